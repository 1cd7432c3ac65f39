import re

import cv2
import numpy as np
import pytest
from PIL import Image

from tests.data.test_layouts import SPOT, grey, put, released
from tinyunet_deploy.data.check import check_dataset
from tinyunet_deploy.data.layouts import read_dataset


def test_oddities_of_a_released_set(tmp_path):
    train = released(tmp_path / "Class1" / "Train", "0001 0002* 0003* 0004* 0005 0006*")
    test = released(tmp_path / "Class1" / "Test", "0010 0011")
    (train / "0005.PNG").write_bytes((train / "0005.PNG").read_bytes()[:60])
    (test / "0010.PNG").write_bytes((train / "0001.PNG").read_bytes())
    two = SPOT.copy()
    two[20, :] = 255
    put(train / "Label" / "0002_label.PNG", two)
    put(train / "Label" / "0003_label.PNG", np.pad(grey(255)[:4, :4], ((0, 20), (0, 12))))
    put(train / "Label" / "0006_label.PNG", SPOT[:, :8])
    (train / "Label" / "Thumbs.db").touch()
    progress: list[int] = []
    oddities = check_dataset(read_dataset(tmp_path), progress.append).oddities
    assert sum(progress) == 8
    shown = [(oddity.kind, oddity.path.name) for oddity in oddities if oddity.kind != "image-size"]
    assert shown == [
        ("unusable-image", "0005.PNG"),
        ("unusable-mask", "0006_label.PNG"),
        ("duplicate", "0010.PNG"),
        ("tiny-mask", "0003_label.PNG"),
        ("fragmented-mask", "0002_label.PNG"),
        ("stray-file", "Thumbs.db"),
    ]
    assert [oddity.kind for oddity in oddities if oddity.fatal] == [
        "unusable-image",
        "unusable-mask",
    ]
    duplicate = next(oddity for oddity in oddities if oddity.kind == "duplicate")
    assert re.search(r"Train/0001\.PNG, in another split$", duplicate.what)
    assert sum(oddity.kind == "image-size" for oddity in oddities) == 7


def test_own_images_may_have_any_one_size_and_several_defects(tmp_path):
    two = SPOT.copy()
    two[20, :] = 255
    for name, mask in (("a", two), ("b", grey(0)), ("c", SPOT)):
        put(tmp_path / "images" / f"{name}.png", grey(ord(name)))
        put(tmp_path / "masks" / f"{name}.png", mask)
    assert check_dataset(read_dataset(tmp_path)).oddities == []
    put(tmp_path / "images" / "d.png", grey(1)[:20])
    put(tmp_path / "masks" / "d.png", SPOT[:20])
    put(tmp_path / "masks" / "z.png", SPOT)
    oddities = check_dataset(read_dataset(tmp_path)).oddities
    assert [(o.kind, o.path.name) for o in oddities] == [
        ("image-size", "d.png"),
        ("stray-file", "z.png"),
    ]


def test_masks_that_look_inverted_or_cover_most_of_the_image(tmp_path):
    large = grey(0)
    large[2:-2, 2:-2] = 255
    for name, mask in (("a", 255 - SPOT), ("b", large), ("c", grey(255)), ("d", SPOT)):
        put(tmp_path / "images" / f"{name}.png", grey(ord(name)))
        put(tmp_path / "masks" / f"{name}.png", mask)
    (tmp_path / "dataset.toml").write_text("[masks]\nnon_zero = true\n")
    oddities = check_dataset(read_dataset(tmp_path)).oddities
    assert [(o.kind, o.path.name) for o in oddities] == [
        ("inverted-mask", "a.png"),
        ("large-mask", "b.png"),
        ("large-mask", "c.png"),
    ]
    assert "100 % of the border" in oddities[0].what
    assert "62 % of the image" in oddities[1].what


def test_masks_of_which_a_rule_counts_nothing(tmp_path):
    """As a threshold of 127 does with masks of 0 and 1; an inverted rule says that they are good"""
    for name, mask in (("a", SPOT // 255), ("b", SPOT), ("c", grey(0))):
        put(tmp_path / "images" / f"{name}.png", grey(ord(name)))
        put(tmp_path / "masks" / f"{name}.png", mask)
    description = tmp_path / "dataset.toml"
    description.write_text("[masks]\nthreshold = 127\n")
    (oddity,) = check_dataset(read_dataset(tmp_path)).oddities
    assert (oddity.kind, oddity.path.name, oddity.fatal) == ("ignored-mask", "a.png", False)
    assert "has the values 0, 1, none of which" in oddity.what
    put(tmp_path / "masks" / "b.png", grey(255))
    description.write_text("[masks]\nnon_zero = true\ninverted = true\n")
    assert [o.path.name for o in check_dataset(read_dataset(tmp_path)).oddities] == [
        *("a.png", "c.png")
    ]


def test_values_of_a_camera_of_fewer_bits_in_a_16_bit_file(tmp_path):
    values = np.linspace(0, 4000, SPOT.size).astype(np.uint16).reshape(SPOT.shape)
    (tmp_path / "images").mkdir()
    for name, image in (("a", values), ("b", values * 16), ("c", np.zeros_like(values))):
        assert cv2.imwrite(str(tmp_path / "images" / f"{name}.png"), image)
        put(tmp_path / "masks" / f"{name}.png", SPOT)
    (oddity,) = check_dataset(read_dataset(tmp_path)).oddities
    assert (oddity.kind, oddity.path.name, oddity.fatal) == ("bit-depth", "a.png", False)
    assert "16-bit values above 4000" in oddity.what
    assert "--bits" in oddity.what
    oddities = check_dataset(read_dataset(tmp_path), bits=12).oddities
    assert [(o.kind, o.path.name) for o in oddities] == [("unusable-image", "b.png")]


def test_an_empty_mask_of_another_size_is_unusable(tmp_path):
    for name, mask in (("a", SPOT), ("b", grey(0).T), ("c", grey(0))):
        put(tmp_path / "images" / f"{name}.png", grey(ord(name)))
        put(tmp_path / "masks" / f"{name}.png", mask)
    (oddity,) = check_dataset(read_dataset(tmp_path)).oddities
    assert (oddity.kind, oddity.path.name, oddity.fatal) == ("unusable-mask", "b.png", True)
    assert oddity.what == "is 24x16 pixels, but its image is 16x24"


@pytest.mark.parametrize(
    ("orientation", "side", "odd"),
    [(6, 16, True), (3, 24, True), (6, 24, False), (1, 16, False), (0, 16, False)],
)
def test_images_that_viewers_turn_without_changing_their_size(tmp_path, orientation, side, odd):
    """If rows and columns differ, the size of the mask says how it was drawn."""
    exif = Image.Exif()
    exif[0x112] = orientation
    mask = np.zeros((side, 16), np.uint8)
    (tmp_path / "images").mkdir()
    for name in ("a", "b"):
        picture = Image.fromarray(np.full_like(mask, ord(name)))
        picture.save(tmp_path / "images" / f"{name}.jpg", exif=exif)
        put(tmp_path / "masks" / f"{name}.png", mask)
        mask[4:12, 4:12] = 255  # a good part has no pixel that could lie in the wrong place
    shown = [(o.kind, o.path.name, o.fatal) for o in check_dataset(read_dataset(tmp_path)).oddities]
    assert shown == [("turned-image", "b.jpg", False)] * odd
