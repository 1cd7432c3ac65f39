from pathlib import Path

import pytest

from tests.data.small_images import SHAPE, SPOT, grey, put
from tinyunet_deploy.data.check import find_oddities
from tinyunet_deploy.data.layouts import read_dataset
from tinyunet_deploy.data.masks import read_mask
from tinyunet_deploy.errors import DataError


def kolektor(folder: Path, names: str) -> Path:
    """A train or test folder; the images marked with * are defective."""
    for name in names.split():
        stem = name.rstrip("*")
        put(folder / f"{stem}.png", grey(int(stem) % 256))
        put(folder / f"{stem}_GT.png", SPOT if name.endswith("*") else grey(0))
    return folder


def rows(root: Path, **choice) -> list[tuple]:
    """(split, image name, defective) of the items."""
    items = read_dataset(root, **choice).items
    return [(item.split, item.image.name, item.defective) for item in items]


def refuses(message: str, root: Path, **choice) -> None:
    with pytest.raises(DataError, match=message):
        read_dataset(root, **choice)


def test_images_are_sorted_by_split_and_name_and_masks_are_no_images(tmp_path):
    kolektor(tmp_path / "test", "20001* 20000")
    kolektor(tmp_path / "train", "10001 10000*")
    dataset = read_dataset(tmp_path)
    assert dataset.layout == "kolektorsdd2"
    assert rows(tmp_path) == [
        ("train", "10000.png", True),
        ("train", "10001.png", False),
        ("test", "20000.png", False),
        ("test", "20001.png", True),
    ]
    assert [item.mask.name for item in dataset.items if item.mask] == [
        "10000_GT.png",
        "10001_GT.png",
        "20000_GT.png",
        "20001_GT.png",
    ]
    assert all(item.class_id is None for item in dataset.items)
    assert (read_mask(dataset.items[0], SHAPE) == SPOT).all()
    assert not read_mask(dataset.items[1], SHAPE).any()


def test_one_split_may_be_chosen_or_the_only_one(tmp_path):
    kolektor(tmp_path / "Train", "10000*").joinpath("10000_GT.png").rename(
        tmp_path / "Train" / "10000_gt.PNG"
    )
    assert rows(tmp_path) == rows(tmp_path, split="train") == [("train", "10000.png", True)]
    refuses("has no test split", tmp_path, split="test")
    kolektor(tmp_path / "test", "20000")
    assert rows(tmp_path, split="test") == [("test", "20000.png", False)]
    refuses("has no classes", tmp_path, classes=[1])


def test_an_image_or_a_mask_alone_is_refused(tmp_path):
    folder = kolektor(tmp_path / "train", "10000 10001*")
    (folder / "10000_GT.png").rename(folder / "10002_GT.png")
    refuses(r"10000\.png: has no mask .*10000_GT\.png", tmp_path)
    (folder / "10000.png").unlink()
    refuses(r"10002_GT\.png: has no image .*10002\.png", tmp_path)
    (folder / "10002_GT.png").unlink()
    put(folder / "10001_GT.bmp.png", SPOT).rename(folder / "10001_GT.bmp")
    refuses("is a second mask beside 10001_GT.bmp", tmp_path)
    (folder / "10001_GT.bmp").unlink()
    (folder / "10001_GT.png").write_bytes(b"not an image")
    refuses(r"10001_GT\.png: is not a usable mask", tmp_path)


def test_a_folder_without_any_mask_is_no_data_set(tmp_path):
    put(tmp_path / "train" / "10000.png", grey(1))
    refuses("contains no data set", tmp_path)


def test_the_two_copies_of_the_published_archive_are_stray_files(tmp_path):
    folder = kolektor(tmp_path / "train", "10301 10302*")
    put(folder / "10301 (copy).png", grey(1))
    put(folder / "10301_GT (copy).png", grey(0))
    assert rows(tmp_path) == [("train", "10301.png", False), ("train", "10302.png", True)]
    assert [(o.kind, o.path.name) for o in find_oddities(read_dataset(tmp_path))] == [
        ("stray-file", "10301 (copy).png"),
        ("stray-file", "10301_GT (copy).png"),
    ]
