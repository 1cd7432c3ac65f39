"""images/ and masks/: the splits above or below them, and masks with an ending."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.data.small_images import SPOT, grey, put
from tinyunet_deploy.data.layouts import read_dataset, read_training_parts
from tinyunet_deploy.errors import DataError


def rows(root: Path) -> list[tuple[str | None, str, bool]]:
    items = read_dataset(root).items
    return [(item.split, item.image.name, item.defective) for item in items]


@pytest.mark.parametrize("above", [True, False])
def test_splits_above_or_below_images(tmp_path: Path, above: bool) -> None:
    for split in ("Train", "valid", "testing"):
        for part, array in (("images", grey(1)), ("masks", SPOT)):
            folder = tmp_path / split / part if above else tmp_path / part / split
            put(folder / "line 2" / "a.png", array)
    wanted = [(split, "a.png", True) for split in ("train", "val", "test")]
    assert rows(tmp_path) == wanted
    assert {i.split for i in read_training_parts(tmp_path).items} == {"train", "val"}
    (item,) = read_dataset(tmp_path, split="val").items
    assert item.split == "val"


def test_the_training_parts_are_read_without_the_test_part(tmp_path: Path) -> None:
    put(tmp_path / "images" / "train" / "a.png", grey(1))
    put(tmp_path / "masks" / "train" / "a.png", SPOT)
    put(tmp_path / "images" / "test" / "b.png", grey(1))
    (item,) = read_training_parts(tmp_path).items
    assert item.image.name == "a.png"
    with pytest.raises(DataError, match=r"b\.png: has no mask"):
        read_dataset(tmp_path)


def test_all_images_of_a_set_without_splits_may_be_trained_on(tmp_path: Path) -> None:
    put(tmp_path / "images" / "a.png", grey(1))
    put(tmp_path / "masks" / "a.png", SPOT)
    assert len(read_training_parts(tmp_path).items) == 1


def test_images_beside_the_splits_are_refused(tmp_path: Path) -> None:
    put(tmp_path / "images" / "train" / "a.png", grey(1))
    put(tmp_path / "masks" / "train" / "a.png", SPOT)
    put(tmp_path / "images" / "line 2" / "b.png", grey(1))
    with pytest.raises(DataError, match="contains train/ and, beside it, line 2/"):
        read_dataset(tmp_path)
    (tmp_path / "images" / "line 2").rename(tmp_path / "images" / "training")
    with pytest.raises(DataError, match="second train split"):
        read_dataset(tmp_path)


@pytest.mark.parametrize("end", ["_mask", "_label", "_gt"])
def test_a_mask_in_masks_may_have_an_ending(tmp_path: Path, end: str) -> None:
    put(tmp_path / "images" / "a.png", grey(1))
    put(tmp_path / "images" / f"b{end}.png", grey(1))
    mask = put(tmp_path / "masks" / f"a{end}.png", SPOT)
    put(tmp_path / "masks" / f"b{end}.png", SPOT)
    assert rows(tmp_path) == [(None, "a.png", True), (None, f"b{end}.png", True)]
    assert read_dataset(tmp_path).items[0].mask == mask
    put(tmp_path / "masks" / "a.png", SPOT)
    with pytest.raises(DataError, match="is a second mask"):
        read_dataset(tmp_path)
