"""What an image without a mask is: a good part, if all says so, or an error."""

from __future__ import annotations

import logging
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.data.small_images import SPOT, grey, put
from tinyunet_deploy.data.layouts import read_dataset
from tinyunet_deploy.errors import DataError


def images(root: Path, *names: str) -> Path:
    for name in names:
        put(root / "images" / f"{name}.png", grey(1))
    return root


def defects(root: Path) -> dict[str, bool]:
    return {item.image.stem: item.defective for item in read_dataset(root).items}


def test_good_parts_without_a_mask_are_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    images(tmp_path, "a", "b", "good/c")
    put(tmp_path / "masks" / "a.png", SPOT)
    with caplog.at_level(logging.WARNING):
        assert defects(tmp_path) == {"a": True, "b": False, "c": False}
    (record,) = caplog.records
    assert "2 of 3 images have no mask and count as good parts" in record.getMessage()


@pytest.mark.parametrize(
    ("other", "mask"),
    [
        ("b", grey(0)),  # an empty mask: good parts have masks here
        ("nowhere", SPOT),  # a mask whose name fits no image: the names may be wrong
    ],
)
def test_a_missing_mask_is_an_error_where_a_sign_speaks_against_a_good_part(
    tmp_path: Path, other: str, mask: object
) -> None:
    images(tmp_path, "a", "b", "c")
    for name in ("a", "b"):
        put(tmp_path / "masks" / f"{name}.png", SPOT)
    assert defects(tmp_path)["c"] is False
    put(tmp_path / "masks" / f"{other}.png", mask)
    with pytest.raises(DataError, match=r"c\.png: has no mask .*masks/c\.png"):
        read_dataset(tmp_path)


def test_a_whole_folder_without_masks_is_an_error_unless_its_name_says_good(
    tmp_path: Path,
) -> None:
    images(tmp_path, "a", "line 2/b")
    put(tmp_path / "masks" / "a.png", SPOT)
    with pytest.raises(DataError, match=r"b\.png: has no mask"):
        read_dataset(tmp_path)
    (tmp_path / "images" / "line 2").rename(tmp_path / "images" / "OK")
    assert defects(tmp_path) == {"a": True, "b": False}


@pytest.mark.parametrize("described", ["", '[masks]\nmissing = "good"\n'])
@pytest.mark.parametrize("name", ["b.gif", "B.npy", "b_mask.gif", "b_GT.tga"])
def test_a_mask_of_a_format_that_is_not_read_does_not_make_a_good_part(
    tmp_path: Path, name: str, described: str
) -> None:
    images(tmp_path, "a", "b")
    put(tmp_path / "masks" / "a.png", SPOT)
    (tmp_path / "dataset.toml").write_text(described)
    assert defects(tmp_path) == {"a": True, "b": False}
    put(tmp_path / "masks" / "b.png", SPOT).rename(tmp_path / "masks" / name)
    with pytest.raises(DataError, match=f"{name}: is in the place of the mask of b.png, but is"):
        read_dataset(tmp_path)


def test_beside_images_too_a_mask_of_a_format_that_is_not_read_is_refused(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        put(tmp_path / f"{name}.png", grey(1))
        (tmp_path / f"{name}.json").write_text("{}")  # an annotation, and no mask
    put(tmp_path / "a_mask.png", SPOT)
    assert defects(tmp_path) == {"a": True, "b": False, "c": False}
    (tmp_path / "b_label.gif").touch()
    with pytest.raises(DataError, match=r"b_label\.gif: is in the place of the mask of b\.png"):
        read_dataset(tmp_path)


@pytest.mark.parametrize(("end", "folder"), [("", "masks"), ("_mask", "images")])
def test_a_mask_of_two_images_is_refused(tmp_path: Path, end: str, folder: str) -> None:
    images(tmp_path, "a", "b")
    for name in ("a", "b"):
        put(tmp_path / folder / f"{name}{end}.png", SPOT)
    put(tmp_path / "images" / "c.png", grey(1)).rename(tmp_path / "images" / "c.bmp")
    put(tmp_path / "images" / "c.png", grey(1))  # two good parts: neither has a mask
    assert [item.mask is not None for item in read_dataset(tmp_path).items] == [True] * 2 + [
        False
    ] * 2
    put(tmp_path / "other.png", grey(1)).rename(tmp_path / "images" / "a.bmp")
    wanted = rf"images/a\.png: has the same mask as .*images/a\.bmp: .*{folder}/a{end}\.png"
    with pytest.raises(DataError, match=wanted):
        read_dataset(tmp_path)


def test_a_mask_whose_image_is_not_read_is_counted_and_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    images(tmp_path, "a", "b")
    for name in ("a", "b"):
        put(tmp_path / "masks" / f"{name}.png", SPOT)
    (tmp_path / "images" / "b.png").rename(tmp_path / "images" / "b.gif")
    with caplog.at_level(logging.WARNING):
        assert defects(tmp_path) == {"a": True}
    (record,) = caplog.records
    assert "masks without an image that is read are left out: 1, the first is b.png" in (
        record.getMessage()
    )


def test_an_annotation_beside_an_image_is_not_its_mask(tmp_path: Path) -> None:
    for name in ("a", "b"):
        put(tmp_path / "photos" / f"{name}.png", grey(1))
        (tmp_path / "photos" / f"{name}.json").write_text("{}")
    put(tmp_path / "photos" / "a.mask.bmp", SPOT).rename(tmp_path / "photos" / "a.bmp")
    description = '[images]\nfolder = "photos"\nending = ".png"\n[masks]\nending = ".bmp"\n'
    (tmp_path / "dataset.toml").write_text(description + 'missing = "good"\n')
    assert defects(tmp_path) == {"a": True, "b": False}


def test_each_split_is_judged_by_its_own_masks(tmp_path: Path) -> None:
    for split in ("train", "test"):
        images(tmp_path / split, "a", "b")
        put(tmp_path / split / "masks" / "a.png", SPOT)
    put(tmp_path / "test" / "masks" / "b.png", grey(0))
    put(tmp_path / "test" / "images" / "c.png", grey(1))
    assert len(read_dataset(tmp_path, split="train").items) == 2
    with pytest.raises(DataError, match=r"test/images/c\.png: has no mask"):
        read_dataset(tmp_path)


def test_masks_that_look_inverted_are_counted_and_the_first_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    images(tmp_path, "a", "b", "c")
    for name, mask in (("a", SPOT), ("b", 255 - SPOT), ("c", 255 - SPOT)):
        put(tmp_path / "masks" / f"{name}.png", mask)
    with caplog.at_level(logging.WARNING):
        assert all(defects(tmp_path).values())
    (record,) = caplog.records
    assert "2 of 3 masks mark most of the border as defect" in record.getMessage()
    assert "the first is b.png" in record.getMessage()


def test_masks_of_which_a_rule_counts_nothing_are_counted_and_the_first_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    images(tmp_path, "a", "b", "c")
    for name, mask in (("a", SPOT), ("b", SPOT // 255), ("c", grey(0))):
        put(tmp_path / "masks" / f"{name}.png", mask)
    (tmp_path / "dataset.toml").write_text("[masks]\nthreshold = 127\n")
    with caplog.at_level(logging.WARNING):
        assert defects(tmp_path) == {"a": True, "b": False, "c": False}
    (record,) = caplog.records
    assert "1 of 3 masks have values of which dataset.toml counts none" in record.getMessage()
    assert "the first is b.png" in record.getMessage()


def test_the_good_value_of_a_rule_is_not_one_that_it_ignores(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    images(tmp_path, "a", "b")
    for name, mask in (("a", SPOT // 255 + 1), ("b", grey(1))):
        put(tmp_path / "masks" / f"{name}.png", mask)
    (tmp_path / "dataset.toml").write_text("[masks]\nvalues = [2]\n")
    with caplog.at_level(logging.WARNING):
        assert defects(tmp_path) == {"a": True, "b": False}
    assert caplog.records == []


def test_noise_of_compression_is_not_a_value_that_a_rule_ignores(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    images(tmp_path, "a", "b")
    noise = (np.arange(SPOT.size).reshape(SPOT.shape) % 9).astype(np.uint8)
    for name, mask in (("a", SPOT), ("b", noise)):
        path = tmp_path / "masks" / f"{name}.jpg"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(cv2.imencode(".jpg", mask)[1].tobytes())
    (tmp_path / "dataset.toml").write_text("[masks]\nthreshold = 127\n")
    with caplog.at_level(logging.WARNING):
        assert defects(tmp_path) == {"a": True, "b": False}
    assert caplog.records == []
