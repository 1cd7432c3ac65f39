from __future__ import annotations

import pytest

from tests.data.conversion.sets import coco, cvat, labelme, write, yolo
from tests.data.small_images import grey, put
from tinyunet_deploy.data.conversion.reading import read_annotations
from tinyunet_deploy.errors import DataError


@pytest.mark.parametrize(
    ("make", "name"), [(coco, "coco"), (yolo, "yolo"), (labelme, "labelme"), (cvat, "cvat")]
)
def test_each_format_is_recognised_also_below_one_folder(tmp_path, make, name):
    make(tmp_path / "export/set")
    assert read_annotations(tmp_path).format == name
    assert read_annotations(tmp_path / "export/set", name).format == name


def test_two_formats_need_a_choice(tmp_path):
    coco(tmp_path)
    cvat(tmp_path)
    with pytest.raises(DataError, match="annotations of coco and cvat"):
        read_annotations(tmp_path)
    assert read_annotations(tmp_path, "cvat").format == "cvat"
    with pytest.raises(DataError, match="no annotations of yolo"):
        read_annotations(tmp_path, "yolo")


def test_a_folder_without_annotations_is_refused(tmp_path):
    put(tmp_path / "images/a.png", grey(9))
    write(tmp_path / "package.json", '{"name": "x"}')
    with pytest.raises(DataError, match="contains no annotations"):
        read_annotations(tmp_path)
    with pytest.raises(DataError, match="does not exist"):
        read_annotations(tmp_path / "nowhere")


def test_images_that_no_entry_names_are_listed_as_not_labelled(tmp_path):
    file = coco(tmp_path)
    put(tmp_path / "images/c.png", grey(9))
    put(tmp_path / "later/images/d.png", grey(9))
    names = {image.name: image.labelled for image in read_annotations(tmp_path).images}
    assert names == {"a.png": True, "b.png": True, "c.png": False, "later/d.png": False}
    names = {image.name: image.labelled for image in read_annotations(file).images}
    assert names == {"a.png": True, "b.png": True, "c.png": False}


def test_masks_are_not_taken_for_images_of_good_parts(tmp_path):
    coco(tmp_path)
    masks = ["masks/a.png", "labels/a.png", "images/c_mask.png", "ground_truth/scratch/a.png"]
    put(tmp_path / "images/c.png", grey(9))
    for name in masks:
        put(tmp_path / name, grey(0))
        with pytest.raises(DataError, match=f"{name}: is a mask by its name or folder"):
            read_annotations(tmp_path)
        (tmp_path / name).unlink()
    put(tmp_path / "images/front_mask.png", grey(9))  # no image has it as its mask
    assert len(read_annotations(tmp_path).images) == 4
