from __future__ import annotations

import hashlib
import os
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest

from tests.data.conversion.sets import (
    SMALL,
    SQUARE,
    WIDTH,
    coco,
    coco_annotation,
    cvat,
    labelme,
    mask_of,
    yolo,
)
from tests.data.small_images import SPOT, grey, put
from tinyunet_deploy.data.conversion.writer import convert
from tinyunet_deploy.data.layouts import read_dataset
from tinyunet_deploy.errors import DataError


def tree(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.mark.parametrize("make", [coco, labelme, cvat])
def test_each_format_becomes_images_and_masks(tmp_path, make):
    make(tmp_path / "source")
    conversion = convert(tmp_path / "source", tmp_path / "new/out")
    image = next((tmp_path / "source").rglob("a.png"))
    assert (tmp_path / "new/out/images/a.png").read_bytes() == image.read_bytes()
    mask = mask_of(tmp_path / "new/out/masks/a.png")
    np.testing.assert_array_equal(mask != 0, SPOT != 0)
    dataset = read_dataset(tmp_path / "new/out")
    assert [item.defective for item in dataset.items] == [True, False][: len(dataset.items)]
    assert conversion.splits[None].defective == 1
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["out"]


@pytest.mark.parametrize("source", ["source", ".", "../source", "source/../source"])
@pytest.mark.parametrize("make", [coco, labelme, cvat, yolo])
def test_a_path_from_the_current_folder_is_as_good(tmp_path, monkeypatch, make, source):
    make(tmp_path / "source")
    monkeypatch.chdir(tmp_path / "source" if source in (".", "../source") else tmp_path)
    convert(Path(source), tmp_path / "out")
    assert next((tmp_path / "out").rglob("a.png"))


def test_splits_and_good_parts_of_yolo_are_kept(tmp_path):
    yolo(tmp_path / "source", splits=("train", "test"))
    conversion = convert(tmp_path / "source", tmp_path / "out")
    assert {split: (n.images, n.defective) for split, n in conversion.splits.items()} == {
        "train": (2, 1),
        "test": (2, 1),
    }
    assert conversion.unlabelled == 2
    places = [
        (item.split, item.image.name, item.defective)
        for item in read_dataset(tmp_path / "out").items
    ]
    assert places == [
        ("train", "a.png", True),
        ("train", "b.png", False),
        ("test", "a.png", True),
        ("test", "b.png", False),
    ]


def test_labels_that_are_no_defects_are_left_out_and_counted(tmp_path):
    coco(tmp_path / "s", coco_annotation([SQUARE]), coco_annotation([SMALL], id=2, category_id=2))
    conversion = convert(tmp_path / "s", tmp_path / "out", defects=["dent"])
    assert (conversion.types, conversion.annotations) == ({255: "dent"}, {"dent": 1})
    assert conversion.left_out == {"scratch": 1}
    assert mask_of(tmp_path / "out/masks/a.png").sum() == 9 * 255
    with pytest.raises(DataError, match=r"no label crack \(known: scratch, dent\)|no label crack"):
        convert(tmp_path / "s", tmp_path / "other", defects=["crack"])


def test_images_without_annotations_need_a_decision(tmp_path):
    labelme(tmp_path / "s")
    put(tmp_path / "s/b.png", grey(9))
    put(tmp_path / "s/c.png", grey(9))
    with pytest.raises(DataError, match=r"b\.png.* and 1 more images.*--unlabelled good"):
        convert(tmp_path / "s", tmp_path / "out")
    assert convert(tmp_path / "s", tmp_path / "good", unlabelled="good").splits[None].images == 3
    assert convert(tmp_path / "s", tmp_path / "skip", unlabelled="skip").splits[None].images == 1
    assert not mask_of(tmp_path / "good/masks/b.png").any()
    yolo(tmp_path / "y")
    assert convert(tmp_path / "y", tmp_path / "yolo", unlabelled="skip").splits["train"].images == 1
    shutil.rmtree(tmp_path / "y/labels")
    (tmp_path / "y/labels").mkdir()
    with pytest.raises(DataError, match="all other images"):
        convert(tmp_path / "y", tmp_path / "none", unlabelled="skip")


def test_the_same_source_gives_the_same_bytes_from_an_archive_too(tmp_path):
    coco(tmp_path / "source/set")
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as file:
        for path in (tmp_path / "source").rglob("*.*"):
            file.write(path, path.relative_to(tmp_path / "source"))
    for name in ("one", "two"):
        convert(tmp_path / "source/set", tmp_path / name)
    convert(tmp_path / "set.zip", tmp_path / "three")
    assert tree(tmp_path / "one") == tree(tmp_path / "two") == tree(tmp_path / "three")


def test_an_error_in_an_archive_names_the_archive(tmp_path):
    coco(tmp_path / "s", coco_annotation([], bbox=[1, 2, 3, 4]))
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as file:
        file.write(tmp_path / "s/annotations/instances_default.json", "a/b.json")
    with pytest.raises(DataError) as error:
        convert(tmp_path / "set.zip", tmp_path / "out")
    assert error.value.where == str(tmp_path / "set.zip/a/b.json")


def test_nothing_is_left_of_a_conversion_that_fails(tmp_path):
    (tmp_path / "out").mkdir()
    outside = [[1, 1, WIDTH + 1.5, 1, 4, 4]]
    coco(tmp_path / "s", coco_annotation(outside), coco_annotation(outside, id=2, image_id=2))
    with pytest.raises(DataError, match=r"annotation 1 has a corner.*, and 1 more images") as error:
        convert(tmp_path / "s", tmp_path / "out")
    assert "instances_default.json" in error.value.where
    assert not list((tmp_path / "out").iterdir())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "s"]


def test_an_output_in_use_is_never_touched(tmp_path):
    coco(tmp_path / "s")
    put(tmp_path / "out/a.png", grey(1))
    for output in (tmp_path / "out", tmp_path / "out/a.png"):
        with pytest.raises(DataError, match="not an empty folder"):
            convert(tmp_path / "s", output)
    assert os.listdir(tmp_path / "out") == ["a.png"]  # noqa: PTH208


@pytest.mark.parametrize("other", ["a.bmp", "A.png"])
def test_two_images_that_would_share_a_mask_are_refused(tmp_path, other):
    labelme(tmp_path / "s")
    put(tmp_path / "s" / "b.png", grey(1)).rename(tmp_path / "s" / other)
    with pytest.raises(DataError, match="would have the mask of"):
        convert(tmp_path / "s", tmp_path / "out", unlabelled="good")


def test_an_image_outside_the_splits_is_refused(tmp_path):
    labelme(tmp_path / "s/train")
    put(tmp_path / "s/b.png", grey(1))
    with pytest.raises(DataError, match="is in no split"):
        convert(tmp_path / "s", tmp_path / "out", unlabelled="good")


def test_names_of_types_survive_dataset_toml(tmp_path):
    name = 'a "b" \\ é 漢'
    labelme(tmp_path / "s", {"label": name, "points": [[1, 1], [9, 1], [9, 9]]})
    convert(tmp_path / "s", tmp_path / "out")
    assert read_dataset(tmp_path / "out").defect_types == {255: name}
    labelme(tmp_path / "s", {"label": "a\nb", "points": [[1, 1], [9, 1], [9, 9]]})
    with pytest.raises(DataError, match="printable"):
        convert(tmp_path / "s", tmp_path / "other")


def test_more_types_than_a_mask_can_name_are_refused(tmp_path):
    shapes = [
        {"label": f"l{n}", "points": [[1, 1], [9, 1], [9, 9]], "shape_type": "polygon"}
        for n in range(256)
    ]
    labelme(tmp_path / "s", *shapes)
    with pytest.raises(DataError, match="256 labels"):
        convert(tmp_path / "s", tmp_path / "out")
