from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from export.checkpoint_comparison import (
    TRAINING_IMAGES,
    ComparisonImages,
    compare_with_checkpoint,
    comparison_images,
)
from export.graph import onnx_graph
from tests.export.conftest import CONTRACT, SIZE
from tinyunet_deploy.artifacts.checkpoint import load_checkpoint
from tinyunet_deploy.artifacts.precision import Precision
from tinyunet_deploy.artifacts.sidecar import Artifact, Sidecar, digest
from tinyunet_deploy.backends.registry import open_backend
from tinyunet_deploy.contract import Batch, Contract
from tinyunet_deploy.data import synthetic
from tinyunet_deploy.data.decoding import read_image
from tinyunet_deploy.data.encoding import write_png
from tinyunet_deploy.data.layouts import read_dataset
from tinyunet_deploy.errors import DataError, GateFailed


@pytest.fixture(scope="module")
def images() -> ComparisonImages:
    return comparison_images(CONTRACT, None)


@pytest.fixture(scope="module")
def expected(checkpoint: Path, images: ComparisonImages) -> Batch:
    with open_backend(checkpoint) as reference:
        return reference.score_alone(np.stack(images.images)[:, None])


def artifact_of(checkpoint: Path, precision: Precision) -> Artifact:
    """The graph of the checkpoint, under the name of any precision."""
    network, parent = load_checkpoint(checkpoint)
    data = onnx_graph(network, CONTRACT, "fp32" if precision == "int8" else precision)
    sidecar = Sidecar(
        "onnx", precision, digest(data), parent.sha256, CONTRACT, parent.threshold, parent.min_area
    )
    return Artifact(Path("net.onnx"), data, sidecar)


def one_pixel_off(expected: Batch) -> Batch:
    changed = expected.copy()
    first = int(changed[0, 0, 0, 0])
    changed[0, 0, 0, 0] = first + 2 if first < 128 else first - 2
    return changed


def test_a_file_that_answers_otherwise_is_refused(
    checkpoint: Path, images: ComparisonImages, expected: Batch
) -> None:
    artifact = artifact_of(checkpoint, "fp32")
    figures = compare_with_checkpoint(expected, artifact, images)
    assert figures["flips"] == 0
    assert figures["images"] == 10
    assert figures["union_px"] == (expected > 102).sum() > 1000
    assert figures["batch_steps"] <= 1
    assert "iou_drop" not in figures, "there is no truth"
    with pytest.raises(
        GateFailed,
        match="largest_steps beside the checkpoint is 2 on 10 synthetic images, but must be <= 1",
    ):
        compare_with_checkpoint(one_pixel_off(expected), artifact, images)


def test_fp16_whose_masks_moved_is_refused(
    checkpoint: Path, images: ComparisonImages, expected: Batch
) -> None:
    near = (expected > 102) & (expected < 130)  # just above round(255 * 0.4)
    assert near.sum() > 100
    with pytest.raises(GateFailed, match="agreement beside the checkpoint is"):
        compare_with_checkpoint(
            np.where(near, 102, expected), artifact_of(checkpoint, "fp16"), images
        )


def test_int8_is_only_reported_here(
    checkpoint: Path, images: ComparisonImages, expected: Batch
) -> None:
    """Its limits need labelled images."""
    figures = compare_with_checkpoint(
        np.zeros_like(expected), artifact_of(checkpoint, "int8"), images
    )
    assert figures["agreement"] == 0.0


def test_images_of_a_folder_are_cut_or_padded_to_the_size(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="contains no images"):
        comparison_images(CONTRACT, tmp_path)
    image = np.zeros((SIZE, SIZE), np.uint8)
    for index in range(12):
        image[0] = index + 1
        write_png(tmp_path / f"{index:02}.png", image)
    compared = comparison_images(CONTRACT, tmp_path)
    assert compared.source == "images"
    assert [int(image[0, 0]) for image in compared.images] == [*range(1, 11)]
    wide = comparison_images(Contract(SIZE // 2, SIZE + 16), tmp_path).images
    assert {image.shape for image in wide} == {(SIZE // 2, SIZE + 16)}
    assert [int(image[0, 0]) for image in wide] == [*range(1, 11)], "where the contrast is"


def test_a_model_is_compared_on_training_images_of_its_own_data(tmp_path: Path) -> None:
    """An eighth of the images is defective, and they are still half of those that compare."""
    synthetic.write_dataset(tmp_path, classes=[1], train=160, test=8, size=SIZE, defective=0.125)
    items = read_dataset(tmp_path).items
    train = {read_image(item.image).tobytes(): item for item in items if item.split == "train"}
    compared = comparison_images(CONTRACT, None, [tmp_path])
    assert compared.source == "training images"
    assert len({image.tobytes() for image in compared.images}) == TRAINING_IMAGES
    defective = [train[image.tobytes()].defective for image in compared.images]
    assert sum(defective) == TRAINING_IMAGES // 2
    (photos := tmp_path / "photos").mkdir()
    write_png(photos / "a.png", compared.images[0])
    assert comparison_images(CONTRACT, photos, [tmp_path]).source == "images", "named for it"


def test_a_large_training_image_is_compared_where_its_defect_is(tmp_path: Path) -> None:
    for folder in ("train/images", "train/masks"):
        (tmp_path / folder).mkdir(parents=True)
    random = np.random.default_rng(0)
    image = random.integers(60, 90, (4 * SIZE, 4 * SIZE), np.uint8)
    mask = np.zeros_like(image)
    mask[200:210, 200:210] = 255
    image[mask != 0] = 255
    write_png(tmp_path / "train/images/0.png", image)
    write_png(tmp_path / "train/masks/0.png", mask)
    (tile,) = comparison_images(CONTRACT, None, [tmp_path]).images
    assert tile.shape == (SIZE, SIZE) and (tile == 255).sum() == 100


def test_data_without_training_images_are_refused(tmp_path: Path) -> None:
    synthetic.write_dataset(tmp_path, classes=[1], train=4, test=2, size=SIZE, defective=0.5)
    shutil.rmtree(tmp_path / "Class1/Train")
    with pytest.raises(DataError, match="has no training images"):
        comparison_images(CONTRACT, None, [tmp_path])


def test_only_a_refusal_on_synthetic_images_advises_to_compare_on_own_ones(
    checkpoint: Path, images: ComparisonImages, expected: Batch
) -> None:
    for source, advised in (("synthetic images", True), ("training images", False)):
        compared = ComparisonImages(source, images.images)
        with pytest.raises(GateFailed, match=f"on 10 {source}") as caught:
            compare_with_checkpoint(
                one_pixel_off(expected), artifact_of(checkpoint, "fp32"), compared
            )
        assert ("--data DIR" in str(caught.value)) == advised
        assert "nothing was written" in str(caught.value)


@pytest.mark.parametrize("size", [(64, 64), (64, 160), (96, 48), (48, 48), (40, 72)])
def test_synthetic_images_have_the_size_and_show_their_defect(size: tuple[int, int]) -> None:
    images = comparison_images(Contract(*size), None).images
    assert [image.shape for image in images] == [size] * 10
    assert len({image.tobytes() for image in images}) == 10
