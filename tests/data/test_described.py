"""Data sets that a dataset.toml describes, and what one adds to a known layout."""

from __future__ import annotations

import logging
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.data.small_images import SHAPE, SPOT, grey, put
from tests.data.test_mvtec import product
from tinyunet_deploy.data.check import check_dataset
from tinyunet_deploy.data.layouts import read_dataset, read_training_parts
from tinyunet_deploy.data.masks import read_mask
from tinyunet_deploy.errors import DataError

KINDS = SPOT // 255
"""A mask of two kinds of defects, 1 and 2."""
KINDS[4:8] *= 2


def describe(root: Path, text: str) -> Path:
    (root / "dataset.toml").write_text(text)
    return root


def rows(root: Path, **choice: object) -> list[tuple[int | None, str | None, str, bool]]:
    items = read_dataset(root, **choice).items  # type: ignore[arg-type]
    return [
        (item.class_id, item.split, item.image.relative_to(root).as_posix(), item.defective)
        for item in items
    ]


def refuses(message: str, root: Path, **choice: object) -> None:
    with pytest.raises(DataError, match=message):
        read_dataset(root, **choice)  # type: ignore[arg-type]


def test_own_folders_endings_splits_and_products(tmp_path: Path) -> None:
    describe(
        tmp_path,
        '[splits]\ntrain = "training"\nval = "tuning"\n'
        '[images]\nfolder = "photos/{split}"\nending = "_img"\nproducts = ["ring", "plate"]\n'
        '[masks]\nfolder = "labels/{split}"\nending = "_seg"\nvalues = [2]\n',
    )
    for split in ("training", "tuning"):
        for name in ("ring", "plate/line 2"):
            put(tmp_path / "photos" / split / name / "a_img.png", grey(1))
            put(tmp_path / "labels" / split / name / "a_seg.png", KINDS)
    assert rows(tmp_path) == [
        (1, "train", "photos/training/ring/a_img.png", True),
        (1, "val", "photos/tuning/ring/a_img.png", True),
        (2, "train", "photos/training/plate/line 2/a_img.png", True),
        (2, "val", "photos/tuning/plate/line 2/a_img.png", True),
    ]
    dataset = read_dataset(tmp_path)
    assert (dataset.layout, dataset.class_names) == ("described", {1: "ring", 2: "plate"})
    assert (read_mask(dataset.items[0], SHAPE) == 255 * (KINDS == 2)).all()
    assert rows(tmp_path, classes=[2], split="val") == rows(tmp_path)[3:]
    refuses("has no test split", tmp_path, split="test")
    put(tmp_path / "photos" / "tuning" / "b_img.png", grey(1))
    refuses("b_img.png: is in the folder of no product", tmp_path)
    (tmp_path / "photos" / "tuning").rename(tmp_path / "photos" / "other")
    refuses("images.folder names photos/tuning, which is not a folder", tmp_path)


def test_masks_in_the_folder_of_the_images_by_their_suffix(tmp_path: Path) -> None:
    describe(tmp_path, '[images]\nfolder = "."\nending = ".jpg"\n[masks]\nending = ".png"\n')
    for name, mask in (("a", SPOT), ("deep/b", grey(0))):
        put(tmp_path / f"{name}.png", mask)
        assert cv2.imwrite(str(tmp_path / f"{name}.jpg"), grey(9))
    assert rows(tmp_path) == [(None, None, "a.jpg", True), (None, None, "deep/b.jpg", False)]
    put(tmp_path / "c.png", SPOT)
    refuses(r"c\.png: has no image", tmp_path)


def test_masks_in_the_folder_of_the_images_by_an_ending(tmp_path: Path) -> None:
    describe(tmp_path, '[images]\nfolder = "."\n[masks]\nending = "_seg"\n')
    put(tmp_path / "a.png", grey(1))
    put(tmp_path / "a_seg.png", SPOT)
    assert rows(tmp_path) == [(None, None, "a.png", True)]
    assert check_dataset(read_dataset(tmp_path)).oddities == [], "dataset.toml is not stray"


def test_a_missing_mask_is_what_the_description_says(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("a", "b"):
        put(tmp_path / "images" / f"{name}.png", grey(1))
    put(tmp_path / "masks" / "a.png", SPOT)
    describe(tmp_path, '[masks]\nmissing = "error"\n')
    refuses(r"b\.png: has no mask", tmp_path)
    describe(tmp_path, '[masks]\nmissing = "good"\n')
    (tmp_path / "masks" / "a.png").unlink()
    with caplog.at_level(logging.WARNING):
        assert [row[3] for row in rows(tmp_path)] == [False, False]
    assert "2 of 2 images have no mask" in caplog.text
    product(tmp_path / "mvtec")
    describe(tmp_path / "mvtec", '[masks]\nmissing = "good"\n')
    refuses("says masks.missing, which the layout mvtec does not need", tmp_path / "mvtec")


@pytest.mark.parametrize(
    ("mask", "rule", "marked"),
    [
        (KINDS, "non_zero = true", SPOT > 0),
        (KINDS, "values = [1]", KINDS == 1),
        (KINDS, "values = [0]\ninverted = true", SPOT > 0),
        (255 - SPOT, "inverted = true", SPOT > 0),
        (KINDS * 100, "threshold = 150", KINDS == 2),
        (np.dstack([KINDS * 0, KINDS * 100, KINDS * 0]), "non_zero = true", SPOT > 0),
        (KINDS.astype(np.uint16) * 30000, "non_zero = true", SPOT > 0),
    ],
)
def test_a_rule_reads_masks_and_decides_what_is_defective(
    tmp_path: Path, mask: np.ndarray, rule: str, marked: np.ndarray
) -> None:
    describe(tmp_path, f"[masks]\n{rule}\n")
    put(tmp_path / "images" / "a.png", grey(1))
    (tmp_path / "masks").mkdir()
    assert cv2.imwrite(str(tmp_path / "masks" / "a.png"), mask)
    (item,) = read_dataset(tmp_path).items
    assert item.defective
    assert (read_mask(item, SHAPE) == 255 * marked).all()


def test_an_inverted_mask_of_a_good_part_is_white(tmp_path: Path) -> None:
    put(tmp_path / "images" / "a.png", grey(1))
    put(tmp_path / "masks" / "a.png", grey(255))
    refuses(r"a\.png: has the value 255 throughout: good or defect\?", tmp_path)
    describe(tmp_path, "[masks]\nnon_zero = true\n")
    assert read_dataset(tmp_path).items[0].defective
    describe(tmp_path, "[masks]\ninverted = true\n")
    assert not read_dataset(tmp_path).items[0].defective


def test_a_layout_may_be_chosen(tmp_path: Path) -> None:
    put(tmp_path / "images" / "a.png", grey(1))
    put(tmp_path / "images" / "a_mask.png", SPOT)
    put(tmp_path / "masks" / "a.png", grey(0))
    put(tmp_path / "masks" / "a_mask.png", grey(0))
    refuses("is in two layouts, folders and pairs", tmp_path)
    describe(tmp_path, 'layout = "pairs"\n')
    assert [row[3] for row in rows(tmp_path)][:1] == [True]
    describe(tmp_path, 'layout = "folders"\n')
    assert [row[3] for row in rows(tmp_path)] == [False, False]
    describe(tmp_path, 'layout = "visa"\n')
    refuses(r"dataset\.toml: says layout = 'visa'", tmp_path)


def test_the_depth_of_the_camera_goes_with_the_data_set(tmp_path: Path) -> None:
    put(tmp_path / "images" / "a.png", grey(1))
    put(tmp_path / "masks" / "a.png", SPOT)
    assert read_dataset(tmp_path).bits is None
    describe(tmp_path, "[images]\nbit_depth = 12\n")
    assert read_dataset(tmp_path).bits == read_training_parts(tmp_path).bits == 12
