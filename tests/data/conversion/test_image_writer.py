from __future__ import annotations

import shutil

import numpy as np
import pytest
from PIL import Image

from tests.data.conversion.sets import (
    HEIGHT,
    SMALL,
    SQUARE,
    WIDTH,
    coco,
    coco_annotation,
    cvat,
    labelme,
    mask_of,
)
from tests.data.small_images import SPOT, grey
from tinyunet_deploy.data.conversion.writer import convert
from tinyunet_deploy.data.layouts import read_dataset
from tinyunet_deploy.data.masks import read_mask
from tinyunet_deploy.errors import DataError


def test_several_types_have_their_number_in_the_mask(tmp_path):
    both = coco_annotation([SQUARE]), coco_annotation([SMALL], id=2, category_id=2)
    for order in (both, both[::-1]):
        coco(tmp_path / "source", *order)
        conversion = convert(tmp_path / "source", tmp_path / "out")
        assert conversion.types == {1: "scratch", 2: "dent"}
        assert conversion.annotations == {"scratch": 1, "dent": 1}
        assert read_dataset(tmp_path / "out").defect_types == {1: "scratch", 2: "dent"}
        assert read_mask(read_dataset(tmp_path / "out").items[0], SPOT.shape).sum() == SPOT.sum()
        expected = (SPOT != 0).astype(np.uint8)
        expected[5:8, 5:8] = 2  # the smaller one lies above
        np.testing.assert_array_equal(mask_of(tmp_path / "out/masks/a.png"), expected)
        shutil.rmtree(tmp_path / "out")


def test_an_annotation_that_another_type_covers_is_refused(tmp_path):
    coco(tmp_path / "s", coco_annotation([SQUARE]), coco_annotation([SQUARE], id=2, category_id=2))
    with pytest.raises(DataError, match="annotation 1 is covered"):
        convert(tmp_path / "s", tmp_path / "out")


def test_the_stated_size_must_be_that_of_the_file(tmp_path):
    cvat(tmp_path / "s", image=f'name="a.png" width="{HEIGHT}" height="{WIDTH}"')
    with pytest.raises(DataError, match=r"is 16x24 pixels, but .*annotations.xml says 24x16"):
        convert(tmp_path / "s", tmp_path / "out")


def test_an_image_that_tools_show_turned_is_refused(tmp_path):
    labelme(tmp_path / "s", imagePath="a.jpg")
    (tmp_path / "s/a.png").unlink()
    picture = Image.fromarray(grey(50))
    exif = Image.Exif()
    exif[0x112] = 3
    picture.save(tmp_path / "s/a.jpg", exif=exif)
    with pytest.raises(DataError, match="EXIF orientation 3"):
        convert(tmp_path / "s", tmp_path / "out")
    exif[0x112] = 1
    picture.save(tmp_path / "s/a.jpg", exif=exif)
    convert(tmp_path / "s", tmp_path / "out")


def test_an_unusable_image_is_refused(tmp_path):
    coco(tmp_path / "s")
    (tmp_path / "s/images/a.png").write_bytes(b"GIF89a")
    with pytest.raises(DataError, match=r"a\.png"):
        convert(tmp_path / "s", tmp_path / "out")
