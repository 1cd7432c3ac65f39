from __future__ import annotations

import numpy as np
import pytest

from tests.data.conversion.sets import HEIGHT, WIDTH, cvat, write
from tests.data.small_images import SPOT, grey, put
from tinyunet_deploy.data.conversion.drawing import draw
from tinyunet_deploy.data.conversion.reading import read_annotations
from tinyunet_deploy.errors import DataError


@pytest.mark.parametrize(
    "shape",
    [
        '<polygon label="scratch" points="4.0,4.0;12,4;12,12;4,12"/>',
        '<box label="scratch" xtl="4" ytl="4" xbr="12" ybr="12"/>',
        '<box label="scratch" xtl="4" ytl="4" xbr="12" ybr="12" rotation="90.0"/>',
        '<mask label="scratch" rle="0, 64" left="4" top="4" width="8" height="8"/>',
        '<mask label="scratch" rle="10, 8, 2, 8, 2, 8, 2, 8, 2, 8, 2, 8, 2, 8, 2, 8, 2"'
        ' left="2" top="3" width="10" height="9"/>',
    ],
)
def test_each_kind_with_an_area_gives_the_mask(tmp_path, shape):
    if 'width="10"' in shape:  # two empty columns on the left, an empty row above
        shape = shape.replace('rle="10, 8', 'rle="12, 8').replace('8, 2"', '8"')
    cvat(tmp_path, shape)
    annotated = read_annotations(tmp_path)
    assert annotated.labels == ("scratch",)
    (image,) = annotated.images
    assert (image.name, image.size, image.split) == ("a.png", (HEIGHT, WIDTH), None)
    pixels, left, top = draw(image.annotations[0], (HEIGHT, WIDTH))
    assert (left, top) == (4, 4)
    np.testing.assert_array_equal(pixels, SPOT[4:12, 4:12] != 0)


def test_an_ellipse_is_filled_and_turned(tmp_path):
    cvat(tmp_path, '<ellipse label="spot" cx="8" cy="12" rx="6" ry="2" rotation="90"/>')
    annotated = read_annotations(tmp_path)
    assert annotated.labels == ("scratch", "spot")
    pixels, left, top = draw(annotated.images[0].annotations[0], (HEIGHT, WIDTH))
    assert (left, top, pixels.shape) == (6, 6, (12, 4))
    assert abs(pixels.sum() - np.pi * 12) < 4


def test_the_subset_of_an_image_states_its_split(tmp_path):
    cvat(tmp_path, image=f'name="b.png" subset="Train" width="{WIDTH}" height="{HEIGHT}"')
    (tmp_path / "images/a.png").unlink()
    put(tmp_path / "images/Train/b.png", grey(9))
    assert [image.split for image in read_annotations(tmp_path).images] == ["train"]


@pytest.mark.parametrize(
    ("shape", "what"),
    [
        ('<polyline label="scratch" points="1,2;3,4"/>', "polyline 1 of a.png is of a kind"),
        ('<points label="scratch" points="1,2"/>', "kind that has no area"),
        ('<tag label="scratch"/>', "kind that has no area"),
        ('<polygon points="1,2;3,4;5,6"/>', "has no label"),
        ('<polygon label="scratch" points="1,2;3,4"/>', "three points or more"),
        ('<polygon label="scratch" points="1,2;3;5,6"/>', "not pairs of numbers"),
        ('<mask label="s" rle="1, 2" left="4" top="4" width="8" height="8"/>', "runs of 3 pixels"),
        ('<mask label="s" rle="a" left="4" top="4" width="8" height="8"/>', "unusable mask"),
        ('<mask label="s" rle="4" left="4" top="4" width="2" height="2"/>', "covers no pixel"),
        ('<mask label="s" rle="4" left="4" top="4" width="99999999" height="9999"/>', "pixels"),
        ('<mask label="s" rle="4" left="4.5" top="4" width="2" height="2"/>', "not a whole number"),
        ('<box label="scratch" xtl="a" ytl="4" xbr="12" ybr="12"/>', "not a number"),
        ('<box label="scratch" ytl="4" xbr="12" ybr="12"/>', "not a number"),
        ('<ellipse label="s" cx="8" cy="9" rx="nan" ry="2"/>', "not a number"),
    ],
)
def test_what_is_not_understood_is_refused(tmp_path, shape, what):
    path = cvat(tmp_path, shape)
    with pytest.raises(DataError, match=what) as error:
        read_annotations(tmp_path)
    assert error.value.where == str(path)


def test_a_video_is_refused(tmp_path):
    path = cvat(tmp_path)
    path.write_text(path.read_text().replace("<image ", "<track ").replace("</image>", "</track>"))
    with pytest.raises(DataError, match="tracks of a video"):
        read_annotations(tmp_path)


def test_a_document_type_is_refused_before_it_can_expand(tmp_path):
    entities = "".join(f'<!ENTITY e{n} "{f"&e{n - 1};" * 10}">' for n in range(1, 10))
    cvat(tmp_path, head=f'<!DOCTYPE annotations [<!ENTITY e0 "lol">{entities}]>')
    with pytest.raises(DataError, match="document type"):
        read_annotations(tmp_path)


@pytest.mark.parametrize(
    "text", ["<annotations>", "<annotations><x/></annotations>", "<b><annotations/></b>"]
)
def test_a_damaged_file_is_one_clear_error(tmp_path, text):
    write(tmp_path / "annotations.xml", text)
    with pytest.raises(DataError) as error:
        read_annotations(tmp_path)
    assert error.value.where == str(tmp_path / "annotations.xml")
