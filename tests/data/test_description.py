"""Which files a description calls masks."""

from __future__ import annotations

from pathlib import PurePosixPath

import pytest

from tinyunet_deploy.data.description import Description, ImageFiles, MaskFiles, name_without


@pytest.mark.parametrize(
    ("name", "ending", "stem"),
    [
        ("a.png", "", "a"),
        ("a.b.png", "", "a.b"),
        ("a_seg.png", "_seg", "a"),
        ("a_SEG.PNG", "_seg.png", "a"),
        ("a.jpg", ".jpg", "a"),
        ("a.png", ".jpg", None),
        ("a.png", "_seg", None),
        ("_seg.png", "_seg", None),
        (".png", ".png", None),
    ],
)
def test_a_name_without_its_ending(name: str, ending: str, stem: str | None) -> None:
    assert name_without(name, ending) == stem


def described(images: tuple[str, str], masks: tuple[str | None, str]) -> Description:
    splits = {"train": "train", "test": "check"} if "{split}" in images[0] else {}
    return Description(splits=splits, images=ImageFiles(*images), masks=MaskFiles(*masks))


@pytest.mark.parametrize(
    ("description", "path", "is_mask"),
    [
        (described(("images", ""), ("labels", "")), "labels/deep/a.png", True),
        (described(("images", ""), ("labels", "")), "images/a.png", False),
        (described(("images", ""), ("labels", "")), "other/a.png", False),
        (described(("images", ""), ("labels", "_seg")), "labels/a.png", True),
        (described((".", ".jpg"), (None, ".png")), "deep/a.png", True),
        (described((".", ".jpg"), (None, ".png")), "deep/a.jpg", False),
        (described((".", ""), (None, "_seg")), "a_seg.png", True),
        (described((".", ""), (None, "_seg")), "a.png", False),
        (described((".", "_img"), (None, "")), "a_img.png", False),
        (described((".", "_img"), (None, "")), "a.png", True),
        (described(("photos", ""), ("photos/masks", "")), "photos/masks/a.png", True),
        (described(("photos", ""), ("photos/masks", "")), "photos/a.png", False),
        (described(("all/photos", ""), ("all", "")), "all/photos/a.png", False),
        (described(("all/photos", ""), ("all", "")), "all/a.png", True),
        (described(("{split}/i", ""), ("{split}/m", "")), "check/m/a.png", True),
        (described(("{split}/i", ""), ("{split}/m", "")), "test/m/a.png", False),
        (Description(layout="mvtec"), "ground_truth/a.png", False),
    ],
)
def test_masks_by_place_and_name(description: Description, path: str, is_mask: bool) -> None:
    assert description.is_mask(PurePosixPath(path)) is is_mask
