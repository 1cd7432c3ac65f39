from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from export.checkpoint_comparison import compare_with_checkpoint, comparison_images
from export.graph import onnx_graph
from tests.export.conftest import CONTRACT, SIZE
from tinyunet_deploy.artifacts.checkpoint import load_checkpoint
from tinyunet_deploy.artifacts.precision import Precision
from tinyunet_deploy.artifacts.sidecar import Artifact, Sidecar, digest
from tinyunet_deploy.backends.registry import open_backend
from tinyunet_deploy.contract import Batch, Contract, Image
from tinyunet_deploy.data.encoding import write_png
from tinyunet_deploy.errors import DataError, GateFailed


@pytest.fixture(scope="module")
def images() -> list[Image]:
    return comparison_images(CONTRACT, None)


@pytest.fixture(scope="module")
def expected(checkpoint: Path, images: list[Image]) -> Batch:
    with open_backend(checkpoint) as reference:
        return reference.score_alone(np.stack(images)[:, None])


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
    checkpoint: Path, images: list[Image], expected: Batch
) -> None:
    artifact = artifact_of(checkpoint, "fp32")
    figures = compare_with_checkpoint(expected, artifact, images)
    assert figures["flips"] == 0
    assert figures["images"] == 10
    assert figures["batch_steps"] <= 1
    assert "iou_drop" not in figures, "there is no truth"
    with pytest.raises(
        GateFailed, match="largest_steps beside the checkpoint is 2, but must be <= 1"
    ):
        compare_with_checkpoint(one_pixel_off(expected), artifact, images)


def test_fp16_whose_masks_moved_is_refused(
    checkpoint: Path, images: list[Image], expected: Batch
) -> None:
    near = (expected > 102) & (expected < 130)  # just above round(255 * 0.4)
    assert near.sum() > 100
    with pytest.raises(GateFailed, match="agreement beside the checkpoint is"):
        compare_with_checkpoint(
            np.where(near, 102, expected), artifact_of(checkpoint, "fp16"), images
        )


def test_int8_is_only_reported_here(checkpoint: Path, images: list[Image], expected: Batch) -> None:
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
    assert [int(image[0, 0]) for image in comparison_images(CONTRACT, tmp_path)] == [*range(1, 11)]
    wide = comparison_images(Contract(SIZE // 2, SIZE + 16), tmp_path)
    assert {image.shape for image in wide} == {(SIZE // 2, SIZE + 16)}
    assert [int(image[0, 0]) for image in wide] == [*range(1, 11)], "where the contrast is"


@pytest.mark.parametrize("size", [(64, 64), (64, 160), (96, 48), (48, 48), (40, 72)])
def test_synthetic_images_have_the_size_and_show_their_defect(size: tuple[int, int]) -> None:
    images = comparison_images(Contract(*size), None)
    assert [image.shape for image in images] == [size] * 10
    assert len({image.tobytes() for image in images}) == 10
