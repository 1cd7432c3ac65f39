from __future__ import annotations

import json

import numpy as np
import pytest

from tests.data.conversion.sets import HEIGHT, SQUARE, WIDTH, coco, coco_annotation, encode
from tests.data.small_images import SPOT
from tinyunet_deploy.data.conversion.drawing import draw
from tinyunet_deploy.data.conversion.reading import read_annotations
from tinyunet_deploy.errors import DataError

RUNS = [4 * HEIGHT + 4, *([8, 16] * 7), 8, 4 * HEIGHT + 12]
"""SPOT, column by column."""


@pytest.mark.parametrize(
    "segmentation",
    [
        [SQUARE],
        {"size": [HEIGHT, WIDTH], "counts": RUNS},
        {"size": [HEIGHT, WIDTH], "counts": encode(RUNS)},
    ],
    ids=["polygon", "list", "string"],
)
def test_polygons_and_run_lengths_give_the_same_mask(tmp_path, segmentation):
    coco(tmp_path, coco_annotation(segmentation))
    annotated = read_annotations(tmp_path)
    assert annotated.labels == ("scratch", "dent")
    first, second = annotated.images
    assert (first.name, first.split, first.size) == ("a.png", None, (HEIGHT, WIDTH))
    assert second.annotations == ()
    pixels, left, top = draw(first.annotations[0], (HEIGHT, WIDTH))
    assert (left, top) == (4, 4)
    np.testing.assert_array_equal(pixels, SPOT[4:12, 4:12] != 0)


def test_files_and_folders_named_for_splits_state_them(tmp_path):
    for split in ("train", "valid"):
        coco(tmp_path / split, name="_annotations.coco.json")
    splits = [
        (image.split, image.image.parent.parent.name) for image in read_annotations(tmp_path).images
    ]
    assert splits == [("train", "train")] * 2 + [("val", "valid")] * 2


def test_one_file_is_read_alone_from_its_folder_of_annotations(tmp_path):
    coco(tmp_path)
    coco(tmp_path, name="annotations/other.json")
    with pytest.raises(DataError, match="its name states no split"):
        read_annotations(tmp_path)
    assert len(read_annotations(tmp_path / "annotations/other.json").images) == 2


@pytest.mark.parametrize(
    "segmentation",
    [
        [[0.25, 0.2, 0.75, 0.2, 0.75, 0.6]],
        [[0.25, 0.2, 0.5, 0.2, 0.5, 0.5], [0.6, 0.6, 1, 0.6, 1, 1]],
    ],
)
def test_shares_of_the_size_are_not_pixels(tmp_path, segmentation):
    coco(tmp_path, coco_annotation(segmentation))
    with pytest.raises(DataError, match=r"annotation 1 has all corners within 0\.\.1"):
        read_annotations(tmp_path)
    coco(tmp_path, coco_annotation([*segmentation, SQUARE]))
    assert len(read_annotations(tmp_path).images[0].annotations[0].areas) > 1


@pytest.mark.parametrize("corners", [[0, 0, 1, 0, 1, 1, 0, 1], [0, 0, 0.5, 0, 0, 0.5]])
def test_the_pixel_in_the_corner_may_be_a_defect(tmp_path, corners):
    coco(tmp_path, coco_annotation([corners]))
    pixels, left, top = draw(read_annotations(tmp_path).images[0].annotations[0], (HEIGHT, WIDTH))
    assert (left, top, pixels.tolist()) == (0, 0, [[True]])


@pytest.mark.parametrize("segmentation", [[SQUARE], {"size": [HEIGHT, WIDTH], "counts": RUNS}])
def test_an_area_outside_its_box_is_refused(tmp_path, segmentation):
    for box in ([15, 4, 1, 8], [4, 15, 8, 8], [0, 0, 1.5, 24], [0, 0, 16, 1], [0.3, 0.2, 0.5, 0.3]):
        coco(tmp_path, coco_annotation(segmentation, bbox=box))
        wanted = "annotation 1 has an area from x=4, y=4 to x=12, y=12, which lies outside its bbox"
        with pytest.raises(DataError, match=wanted):
            read_annotations(tmp_path)


@pytest.mark.parametrize(
    "box",
    [
        [4, 4, 8, 8],
        [5, 5, 7, 7],
        [4, 4, 12, 12],  # two corners
        [8, 8, 8, 8],  # centre and size
        [0, 0, WIDTH, HEIGHT],
        [14, 4, 1, 1],
        [0, 0, 0, 0],
        [-1, -1, -1, -1],
        [],
        None,
        "none",
        [None] * 4,
        [float("nan")] * 4,
    ],
)
def test_a_box_that_is_loose_or_stands_for_none_is_no_contradiction(tmp_path, box):
    coco(tmp_path, coco_annotation([SQUARE], bbox=box, area=0))
    assert len(read_annotations(tmp_path).images[0].annotations) == 1


@pytest.mark.parametrize(
    ("annotation", "what"),
    [
        (coco_annotation([], bbox=[1, 2, 3, 4]), "annotation 1 has a box but no outline"),
        (coco_annotation(None), "annotation 1 has no outline"),
        (coco_annotation([[1, 2, 3, 4]]), "three corners or more"),
        (coco_annotation([[1, 2, 3, 4, 5, 6, 7]]), "three corners or more"),
        (coco_annotation([["a", 2, 3, 4, 5, 6]]), "not a number"),
        (coco_annotation([SQUARE], category_id=9), "unknown category 9"),
        (coco_annotation([SQUARE], category_id=[1]), "unknown category"),
        (coco_annotation([SQUARE], image_id=[1]), "of an image that is not listed"),
        (coco_annotation([[10**400, 1, 2, 3, 4, 5]]), "number beyond any image"),
        (coco_annotation([SQUARE], bbox=[10**400, 1, 2, 3]), "number beyond any image"),
        (coco_annotation([SQUARE], image_id=9), "of an image that is not listed"),
        (coco_annotation({"size": [WIDTH, HEIGHT], "counts": RUNS}), "RLE of the size"),
        (coco_annotation({"size": [HEIGHT, WIDTH], "counts": [1, 2]}), "runs of 3 pixels"),
        (coco_annotation({"size": [HEIGHT, WIDTH], "counts": 3}), "neither whole numbers"),
        (coco_annotation({"size": [HEIGHT, WIDTH], "counts": [384]}), "covers no pixel"),
        ({"image_id": 1}, "without an id"),
    ],
)
def test_what_is_not_understood_is_refused(tmp_path, annotation, what):
    path = coco(tmp_path, annotation)
    with pytest.raises(DataError, match=what) as error:
        read_annotations(tmp_path)
    assert error.value.where == str(path)


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("c.png", "which does not exist"),
        ("../../c.png", "which lies outside"),
        ("/etc/c.png", "absolute image path"),
        ("C:\\c.png", "absolute image path"),
        (".c.png", "hidden image"),
        ("c.gif", "known suffixes"),
        (7, "expected a file name"),
        ("a\0.png", "expected a file name"),
        ("\ud800.png", "expected a file name"),
    ],
)
def test_an_image_must_lie_in_the_data_set(tmp_path, name, what):
    image = {"id": 1, "file_name": name, "height": HEIGHT, "width": WIDTH}
    coco(tmp_path, coco_annotation([SQUARE]), images=[image])
    with pytest.raises(DataError, match=what):
        read_annotations(tmp_path)


def test_a_name_with_two_files_is_ambiguous(tmp_path):
    coco(tmp_path)
    (tmp_path / "a.png").write_bytes((tmp_path / "images/a.png").read_bytes())
    with pytest.raises(DataError, match=r"both .* exist"):
        read_annotations(tmp_path)


def test_backslashes_separate_folders(tmp_path):
    image = {"id": 1, "file_name": "images\\a.png", "height": HEIGHT, "width": WIDTH}
    coco(tmp_path, images=[image])
    assert read_annotations(tmp_path).images[1].name == "images/a.png"


@pytest.mark.parametrize("text", ["{", "[" * 100_000, '{"images": 1, "annotations": []}'])
def test_a_damaged_file_is_one_clear_error(tmp_path, text):
    path = coco(tmp_path)
    path.write_text(text)
    with pytest.raises(DataError) as error:
        read_annotations(tmp_path)
    assert error.value.where == str(path)


def test_ids_are_unique(tmp_path):
    path = coco(tmp_path)
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "images": content["images"][:1] * 2}))
    with pytest.raises(DataError, match="two images with the same id"):
        read_annotations(tmp_path)
    path.write_text(json.dumps({**content, "categories": content["categories"][:1] * 2}))
    with pytest.raises(DataError, match="two categories with the id 1"):
        read_annotations(tmp_path)
