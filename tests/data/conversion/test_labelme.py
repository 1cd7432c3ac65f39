from __future__ import annotations

import numpy as np
import pytest

from tests.data.conversion.sets import HEIGHT, SQUARE, WIDTH, labelme, png_base64
from tests.data.small_images import SPOT, grey, put
from tinyunet_deploy.data.conversion.drawing import draw
from tinyunet_deploy.data.conversion.reading import read_annotations
from tinyunet_deploy.errors import DataError

CORNERS = [list(pair) for pair in zip(SQUARE[::2], SQUARE[1::2], strict=True)]


def shape(kind: str, points: object, **others: object) -> dict[str, object]:
    return {"label": "scratch", "shape_type": kind, "points": points, **others}


@pytest.mark.parametrize(
    "drawn",
    [
        shape("polygon", CORNERS),
        shape("rectangle", [[4, 4], [12, 12]]),
        shape("rectangle", [[12, 12], [4, 4]]),
        shape("rectangle", CORNERS),
        shape("mask", [[4, 4], [12, 12]], mask=png_base64(SPOT[4:12, 4:12])),
        shape("mask", [[2, 3], [13, 13]], mask=png_base64(SPOT[3:13, 2:13] // 255)),
        shape("mask", [[4, 4], [11, 11]], mask=png_base64(SPOT[4:12, 4:12])),
        shape("mask", [[3.6, 4.4], [11.4, 11.6]], mask=png_base64(SPOT[4:12, 4:12])),
    ],
)
def test_each_kind_with_an_area_gives_the_mask(tmp_path, drawn):
    labelme(tmp_path, drawn)
    (image,) = read_annotations(tmp_path).images
    assert (image.name, image.size) == ("a.png", (HEIGHT, WIDTH))
    pixels, left, top = draw(image.annotations[0], (HEIGHT, WIDTH))
    assert (left, top) == (4, 4)
    np.testing.assert_array_equal(pixels, SPOT[4:12, 4:12] != 0)


def test_a_circle_is_filled(tmp_path):
    labelme(tmp_path, shape("circle", [[8, 12], [8, 17]]))
    (image,) = read_annotations(tmp_path).images
    pixels, left, top = draw(image.annotations[0], (HEIGHT, WIDTH))
    assert (left, top, pixels.shape) == (3, 7, (10, 10))
    assert abs(pixels.sum() - np.pi * 25) < 3


@pytest.mark.parametrize(
    ("drawn", "what"),
    [
        (shape("line", [[1, 2], [3, 4]]), "of the kind 'line', which has no area"),
        (shape("point", [[1, 2]]), "which has no area"),
        (shape("polygon", [[1, 2], [3, 4]]), "a polygon, has 2 points"),
        (shape("polygon", [[1, 2, 3]]), "not pairs"),
        (shape("polygon", "abc"), "not numbers"),
        (shape("circle", [[1, 2], [float("nan"), 3]]), "not pairs"),
        (shape("mask", [[float("inf"), 2], [3, 3]]), "not pairs"),
        (shape("polygon", [[10**400, 2], [3, 3], [4, 4]]), "not numbers"),
        (shape("polygon", [[1, 2], [3]]), "not numbers"),
        (shape("polygon", CORNERS, label=""), "expected a name"),
        (shape("mask", [[4, 4], [12, 12]]), "there is none"),
        (shape("mask", [[4, 4], [12, 12]], mask="***"), "unusable mask"),
        (
            shape("mask", [[4, 4], [12, 20]], mask=png_base64(SPOT[4:12, 4:12])),
            "shape 1 has a mask of 8x8 pixels, but its points span 8x16",
        ),
        (shape("mask", [[4, 4], [9, 9]], mask=png_base64(SPOT[4:12, 4:12])), "points span 5x5"),
        (shape("mask", [[12, 12], [4, 4]], mask=png_base64(SPOT[4:12, 4:12])), "span -8x-8"),
        (shape("polygon", [[0.2, 0.2], [0.6, 0.2], [0.6, 0.7]]), r"all corners within 0\.\.1"),
        (shape("rectangle", [[0.2, 0.2], [0.6, 0.7]]), r"all corners within 0\.\.1"),
        (shape("mask", [[4, 4], [12, 12]], mask="aGVsbG8="), "is not a PNG"),
        (shape("mask", [[4, 4], [12, 12]], mask=png_base64(grey(0))), "covers no pixel"),
    ],
)
def test_what_has_no_area_is_refused(tmp_path, drawn, what):
    path = labelme(tmp_path, drawn)
    with pytest.raises(DataError, match=what) as error:
        read_annotations(tmp_path)
    assert error.value.where == str(path)


def test_an_image_without_a_file_is_not_labelled(tmp_path):
    labelme(tmp_path / "train")
    put(tmp_path / "train/b.png", grey(9))
    images = read_annotations(tmp_path).images
    places = [(image.split, image.name, image.labelled) for image in images]
    assert places == [("train", "a.png", True), ("train", "b.png", False)]


def test_paths_of_images_are_those_of_windows_too_and_stay_in_the_folder(tmp_path):
    path = labelme(tmp_path / "marks", imagePath="..\\a.png")
    put(tmp_path / "a.png", grey(9))
    (tmp_path / "marks/a.png").unlink()
    assert [image.name for image in read_annotations(tmp_path).images] == ["a.png"]
    with pytest.raises(DataError, match="lies outside"):
        read_annotations(path)
    labelme(tmp_path / "marks", imagePath="c.png")
    with pytest.raises(DataError, match="does not exist"):
        read_annotations(tmp_path)


def test_two_files_of_one_image_are_refused(tmp_path):
    path = labelme(tmp_path)
    (tmp_path / "b.json").write_bytes(path.read_bytes())
    with pytest.raises(DataError, match=r"annotates .*a\.png, as .*a\.json does"):
        read_annotations(tmp_path)
