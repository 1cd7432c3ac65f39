"""The layout of MVTec AD."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.data.small_images import SHAPE, SPOT, grey, put
from tinyunet_deploy.data.check import check_dataset
from tinyunet_deploy.data.layouts import read_dataset
from tinyunet_deploy.data.masks import read_mask
from tinyunet_deploy.errors import DataError


def product(folder: Path, *, end: str = "_mask", first: int = 1) -> Path:
    """A product with three good parts and two kinds of defects."""
    for number, name in enumerate(
        ("train/good/000", "train/good/001", "test/good/000", "test/cut/000", "test/hole/000")
    ):
        put(folder / f"{name}.png", grey(first + number))
    for name in ("cut", "hole"):
        put(folder / "ground_truth" / name / f"000{end}.png", SPOT)
    return folder


@pytest.mark.parametrize("end", ["_mask", ""])
def test_a_product(tmp_path: Path, end: str) -> None:
    dataset = read_dataset(product(tmp_path, end=end))
    assert dataset.layout == "mvtec"
    rows = [(i.split, i.image.parent.name, i.defective, i.class_id) for i in dataset.items]
    assert rows == [
        ("train", "good", False, None),
        ("train", "good", False, None),
        ("test", "cut", True, None),
        ("test", "good", False, None),
        ("test", "hole", True, None),
    ]
    assert (read_mask(dataset.items[2], SHAPE) == SPOT).all()
    assert check_dataset(dataset).oddities == []
    assert len(read_dataset(tmp_path, split="test").items) == 3
    with pytest.raises(DataError, match=r"has no val split .*it has train, test"):
        read_dataset(tmp_path, split="val")
    with pytest.raises(DataError, match="has no classes"):
        read_dataset(tmp_path, classes=[1])


def test_several_products_are_numbered(tmp_path: Path) -> None:
    product(tmp_path / "screw", first=1)
    product(tmp_path / "bottle", first=11)
    dataset = read_dataset(tmp_path)
    assert dataset.class_names == {1: "bottle", 2: "screw"}
    assert [item.class_id for item in dataset.items] == [1] * 5 + [2] * 5
    chosen = read_dataset(tmp_path, classes=[2], split="test").items
    assert {item.image.parts[-4] for item in chosen} == {"screw"}
    with pytest.raises(DataError, match="has no class 3"):
        read_dataset(tmp_path, classes=[3])


@pytest.mark.parametrize(
    ("remove", "message"),
    [
        ("ground_truth/cut/000_mask.png", r"test/cut/000\.png: has no mask"),
        ("test/cut/000.png", r"000_mask\.png: has no image"),
    ],
)
def test_a_mask_or_an_image_alone_is_refused(tmp_path: Path, remove: str, message: str) -> None:
    product(tmp_path)
    (tmp_path / remove).unlink()
    with pytest.raises(DataError, match=message):
        read_dataset(tmp_path)


def test_a_second_image_of_a_mask_is_refused_as_such(tmp_path: Path) -> None:
    other = put(product(tmp_path) / "test" / "cut" / "other.png", grey(9))
    other.rename(other.with_name("000.bmp"))
    with pytest.raises(DataError, match=r"cut/000\.png: has the same mask as .*cut/000\.bmp: "):
        read_dataset(tmp_path)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("test/000.png", "in neither good/ nor the folder of a defect"),
        ("train/cut/000.png", "has defects only in test/"),
        ("test/new/000.png", "has no masks"),
        ("ground_truth/cut/000.png", "is a second mask"),
    ],
)
def test_files_in_a_wrong_place_are_refused(tmp_path: Path, name: str, message: str) -> None:
    put(product(tmp_path) / name, grey(1))
    with pytest.raises(DataError, match=message):
        read_dataset(tmp_path)
