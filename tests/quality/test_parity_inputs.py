from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tinyunet_deploy.data import synthetic
from tinyunet_deploy.data.dataset import Item
from tinyunet_deploy.data.encoding import write_png
from tinyunet_deploy.errors import DataError, RefusedError
from tinyunet_deploy.quality.parity_inputs import (
    ComparedImage,
    find_images,
    find_models,
    spread_images,
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    synthetic.write_dataset(folder, classes=[1, 2], train=2, test=4, size=64, defective=0.5)
    return folder


def test_the_held_out_images_of_a_data_set_are_found_with_their_truth(data: Path) -> None:
    images = find_images(data)
    assert len(images) == 8
    assert all("Test" in image.name for image in images)
    for image in images:
        truth = image.truth((64, 64))
        assert truth is not None
        assert truth.any() == image.defective
    assert len(find_images(data, [2])) == 4


def test_a_folder_that_is_not_a_data_set_gives_all_its_images_without_truth(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    for name in ("b/a.png", "c.png"):
        write_png(tmp_path / name, np.zeros((16, 16), np.uint8))
    images = find_images(tmp_path)
    assert [image.name for image in images] == ["b/a.png", "c.png"]
    assert {image.defective for image in images} == {None}
    assert images[0].truth((16, 16)) is None
    with pytest.raises(DataError, match="contains no data set"):
        find_images(tmp_path, [1])


def test_a_damaged_data_set_is_not_taken_for_a_folder_of_images(tmp_path: Path) -> None:
    synthetic.write_dataset(tmp_path, classes=[1], train=0, test=2, size=64, defective=0.5)
    next(tmp_path.rglob("*_label.PNG")).unlink()
    with pytest.raises(DataError):
        find_images(tmp_path)


def test_a_folder_without_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises((DataError, RefusedError), match="no image"):
        find_images(tmp_path)


def test_models_of_folders_are_listed_once_and_without_checkpoints(
    tmp_path: Path, tiny_onnx: Path
) -> None:
    for name in ("b.onnx", "a.plan", "c.safetensors", "c.safetensors.json", "d.onnx.json"):
        (tmp_path / name).touch()
    models = [tmp_path / "a.plan", tmp_path / "b.onnx"]
    assert find_models([tmp_path]) == models
    assert find_models([tmp_path / "b.onnx", tmp_path, tiny_onnx]) == [*models[::-1], tiny_onnx]
    (tmp_path / "empty").mkdir()
    with pytest.raises(RefusedError, match=r"contains no \.onnx and no \.plan file"):
        find_models([tmp_path / "empty"])


def images_of(defective: list[bool | None]) -> list[ComparedImage]:
    items = [
        None if d is None else Item(Path(f"{n}.png"), d, None, None, None, None)
        for n, d in enumerate(defective)
    ]
    return [ComparedImage(Path(f"{n}.png"), f"{n}.png", item) for n, item in enumerate(items)]


@pytest.mark.parametrize(
    ("good", "defective", "most", "chosen_defective"),
    [(90, 10, 20, 10), (50, 50, 20, 10), (5, 95, 20, 15), (95, 5, 20, 5), (3, 2, 20, 2)],
)
def test_half_of_the_chosen_images_are_defective_where_there_are_so_many(
    good: int, defective: int, most: int, chosen_defective: int
) -> None:
    images = images_of([False] * good + [True] * defective)
    chosen = spread_images(images, most)
    assert len(chosen) == len(set(chosen)) == min(most, len(images))
    assert sum(bool(image.defective) for image in chosen) == chosen_defective
    assert chosen == sorted(chosen, key=images.index)


def test_images_without_truth_are_spread_evenly() -> None:
    images = images_of([None] * 10)
    assert spread_images(images, 5) == images[::2]
    assert spread_images(images, None) == images
