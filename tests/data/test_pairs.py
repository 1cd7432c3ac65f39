from pathlib import Path

import pytest

from tests.data.small_images import SHAPE, SPOT, grey, put
from tinyunet_deploy.data.check import check_dataset
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
    assert [(o.kind, o.path.name) for o in check_dataset(read_dataset(tmp_path)).oddities] == [
        ("stray-file", "10301 (copy).png"),
        ("stray-file", "10301_GT (copy).png"),
    ]


# --- pairs of other names -------------------------------------------------------------------------


def test_kolektorsdd_has_a_folder_for_each_part(tmp_path):
    for folder, mask in (("kos01", SPOT), ("kos02", grey(0))):
        put(tmp_path / folder / "Part0.jpg.png", grey(1)).rename(tmp_path / folder / "Part0.jpg")
        put(tmp_path / folder / "Part0_label.b.png", mask).rename(
            tmp_path / folder / "Part0_label.bmp"
        )
    dataset = read_dataset(tmp_path)
    assert dataset.layout == "kolektorsdd"
    names = [item.image.relative_to(tmp_path).as_posix() for item in dataset.items]
    assert names == ["kos01/Part0.jpg", "kos02/Part0.jpg"]
    assert [item.defective for item in dataset.items] == [True, False]
    assert {item.split for item in dataset.items} == {None}
    refuses("has no test split .*it has no splits", tmp_path, split="test")


@pytest.mark.parametrize("end", ["_mask", "_label", "_GT", "_Mask"])
@pytest.mark.parametrize("folder", ["", "line 2", "train", "validation/line 2"])
def test_pairs_by_any_known_ending(tmp_path, end, folder):
    put(tmp_path / folder / "a.png", grey(1))
    put(tmp_path / folder / f"a{end}.png", SPOT)
    split = {"train": "train", "validation/line 2": "val"}.get(folder)
    assert rows(tmp_path) == [(split, "a.png", True)]
    assert rows(tmp_path, split=split) == [(split, "a.png", True)]


def test_pairs_in_two_places_or_with_two_masks_are_refused(tmp_path):
    for name in ("a", "train/b"):
        put(tmp_path / f"{name}.png", grey(1))
        put(tmp_path / f"{name}_mask.png", SPOT)
    refuses("keep one of the two", tmp_path)
    (tmp_path / "train").rename(tmp_path / "line")
    assert [row[1] for row in rows(tmp_path)] == ["a.png", "b.png"]
    put(tmp_path / "a_label.png", SPOT)
    refuses("is a second mask beside", tmp_path)


def test_a_mask_without_its_image_is_never_a_part(tmp_path):
    put(tmp_path / "a.png", grey(1))
    put(tmp_path / "a_mask.png", SPOT)
    put(tmp_path / "b_mask.png", SPOT)
    refuses(r"b_mask\.png: has no image .*b\.png", tmp_path)
    put(tmp_path / "c.png", grey(1))
    refuses(r"c\.png: has no mask", tmp_path)


def test_a_folder_in_two_layouts_is_refused(tmp_path):
    put(tmp_path / "images" / "a.png", grey(1))
    put(tmp_path / "images" / "a_mask.png", SPOT)
    assert read_dataset(tmp_path).layout == "pairs", "there is no masks/"
    put(tmp_path / "masks" / "a.png", SPOT)
    refuses("is in two layouts, folders and pairs", tmp_path)
