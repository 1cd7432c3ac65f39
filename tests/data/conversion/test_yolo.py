from __future__ import annotations

import sys

import numpy as np
import pytest

from tests.data.conversion.sets import HEIGHT, WIDTH, write, yolo
from tests.data.small_images import SPOT, grey, put
from tinyunet_deploy.data.conversion.drawing import draw
from tinyunet_deploy.data.conversion.reading import read_annotations
from tinyunet_deploy.errors import DataError, RuntimeUnavailable


def test_polygons_in_shares_of_the_image_give_the_mask(tmp_path):
    yolo(tmp_path)
    annotated = read_annotations(tmp_path)
    assert annotated.labels == ("scratch", "dent")
    places = [(image.split, image.name, image.labelled) for image in annotated.images]
    assert places == [
        ("train", "a.png", True),
        ("train", "b.png", False),
        ("val", "a.png", True),
        ("val", "b.png", False),
    ]
    pixels, left, top = draw(annotated.images[0].annotations[0], (HEIGHT, WIDTH))
    assert (left, top) == (4, 4)
    np.testing.assert_array_equal(pixels, SPOT[4:12, 4:12] != 0)


def test_splits_above_images_and_labels_are_read_too(tmp_path):
    for split in ("train", "valid"):
        put(tmp_path / f"top/{split}/images/a.png", grey(9))
        write(tmp_path / f"top/{split}/labels/a.txt", "0 0 0 1 0 1 1\n")
    write(tmp_path / "top/data.yaml", "train: ../train/images\nval: ../valid/images\nnames: {0: a}")
    images = read_annotations(tmp_path).images
    assert [(image.split, image.name) for image in images] == [("train", "a.png"), ("val", "a.png")]


def test_a_list_of_images_states_the_split(tmp_path):
    put(tmp_path / "images/a.png", grey(9))
    write(tmp_path / "labels/a.txt", "0 0 0 1 0 1 1\n")
    write(tmp_path / "val.txt", "data/images/a.png\n")
    write(tmp_path / "data.yaml", "val: val.txt\nnames: [a]")
    assert [image.split for image in read_annotations(tmp_path).images] == ["val"]
    write(tmp_path / "val.txt", "data/images/c.png\n")
    with pytest.raises(DataError, match="does not exist below"):
        read_annotations(tmp_path)


def test_classes_without_names_keep_their_numbers(tmp_path):
    put(tmp_path / "images/a.png", grey(9))
    write(tmp_path / "labels/a.txt", "10 0 0 1 0 1 1\n2 0 0 1 0 1 1\n")
    assert read_annotations(tmp_path).labels == ("2", "10")
    write(tmp_path / "classes.txt", "\n".join("abcdefghijk"))
    assert read_annotations(tmp_path).labels == tuple("abcdefghijk")


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("0 0.5 0.5 0.2 0.2", "line 1 is a box"),
        ("0 0.1 0.1 0.2 0.1 0.2", "has 6 values"),
        ("0 0.1 0.1 0.2", "has 4 values"),
        ("2 0 0 1 0 1 1", "has the class 2"),
        ("-1 0 0 1 0 1 1", "expected a class"),
        ("0 a 0 1 0 1 1", "not a list of numbers"),
        (f"{'9' * 5000} 0 0 1 0 1 1", "expected a class"),
    ],
)
def test_a_line_that_is_not_a_polygon_is_refused(tmp_path, line, what):
    yolo(tmp_path, line)
    with pytest.raises(DataError, match=what):
        read_annotations(tmp_path)


def test_an_unusable_image_is_refused(tmp_path):
    yolo(tmp_path)
    (tmp_path / "images/val/a.png").write_bytes(b"GIF89a")
    with pytest.raises(DataError, match=r"val/a\.png"):
        read_annotations(tmp_path)


def test_labels_without_an_image_are_refused(tmp_path):
    yolo(tmp_path)
    lost = write(tmp_path / "labels/train/c.txt", "0 0 0 1 0 1 1\n")
    with pytest.raises(DataError, match="has no image") as error:
        read_annotations(tmp_path)
    assert error.value.where == str(lost)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("train: [", "is not YAML"),
        ("7", "expected the data.yaml"),
        ("names: {1: a}", "class numbers"),
        ("names: [a, a]", "each name once"),
        ("names: [a]\ntest: images/test", "does not exist below"),
        ("names: [a]\ntrain: images/train\nval: images/train", "in the splits"),
        ("names: [a]\nkpt_shape: [1, 2]", "has kpt_shape, so its labels are boxes with keypoints"),
    ],
)
def test_an_unusable_description_is_refused(tmp_path, text, what):
    yolo(tmp_path)
    write(tmp_path / "data.yaml", text)
    with pytest.raises(DataError, match=what):
        read_annotations(tmp_path)


def test_an_empty_kpt_shape_states_no_keypoints(tmp_path):
    with yolo(tmp_path).open("a") as file:
        file.write("kpt_shape:\n")
    assert len(read_annotations(tmp_path).images) == 4


def test_two_descriptions_are_refused(tmp_path):
    yolo(tmp_path)
    write(tmp_path / "old.yml", "names: [a]")
    with pytest.raises(DataError, match="second description"):
        read_annotations(tmp_path)


def test_without_the_package_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "yaml", None)
    yolo(tmp_path)
    with pytest.raises(RuntimeUnavailable, match=r"tinyunet-deploy\[convert\]"):
        read_annotations(tmp_path)


def test_a_folder_of_masks_named_labels_is_not_yolo(tmp_path):
    put(tmp_path / "images/a.png", grey(9))
    put(tmp_path / "labels/a.png", grey(0))
    with pytest.raises(DataError, match="contains no annotations"):
        read_annotations(tmp_path)
    write(tmp_path / "labels/a.txt", "0 0 0 1 0 1 1\n")
    with pytest.raises(DataError, match=r"labels/a\.png: is a mask by its name or folder"):
        read_annotations(tmp_path)


def test_a_description_shows_that_all_parts_are_good(tmp_path):
    put(tmp_path / "images/a.png", grey(9))
    (tmp_path / "labels").mkdir()
    write(tmp_path / "data.yaml", "names: {0: scratch}\n")
    assert [image.labelled for image in read_annotations(tmp_path).images] == [False]
