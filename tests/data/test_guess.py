"""Images and masks are found by their names."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.data.small_images import grey, put
from tinyunet_deploy.data.description import Description, ImageFiles, MaskFiles
from tinyunet_deploy.data.guess import guess_description


def guess(root: Path, *names: str) -> Description | None:
    for name in names:
        put(root / name, grey(1)) if name.endswith(".png") else put(
            root / f"{name}.png", grey(1)
        ).rename(root / name)
    return guess_description(root)


@pytest.mark.parametrize("end", ["", "_seg", ".mask"])
@pytest.mark.parametrize(
    ("images", "masks", "splits"),
    [
        ("photos/", "labels/", {}),
        ("images/training/", "annotations/training/", {"train": "training"}),
        ("Valid/img/", "Valid/gt/", {"val": "Valid"}),
        ("a/test/imgs/", "a/test/masks/", {"test": "test"}),
    ],
)
def test_two_folders(
    tmp_path: Path, images: str, masks: str, splits: dict[str, str], end: str
) -> None:
    names = [f"{images}deep/{n}.jpg" for n in (1, 12)]
    names += [f"{masks}deep/{n}{end}.png" for n in (1, 12)]
    folders = []
    for folder in (images, masks):
        for name in splits.values():
            folder = folder.replace(name, "{split}")
        folders.append(folder.rstrip("/"))
    wanted = Description(
        splits=splits,  # type: ignore[arg-type]
        images=ImageFiles(folders[0]),
        masks=MaskFiles(folders[1], end),
    )
    assert guess(tmp_path, *names) == wanted


def test_two_suffixes_in_one_folder(tmp_path: Path) -> None:
    wanted = Description(images=ImageFiles(".", ".jpg"), masks=MaskFiles(None, ".png"))
    assert guess(tmp_path, "b/Imgs/1.jpg", "b/Imgs/1.png", "c/Imgs/2.jpg", "c/Imgs/2.png") == wanted


def test_two_suffixes_in_the_folders_of_splits(tmp_path: Path) -> None:
    guessed = guess(tmp_path, "train/1.jpg", "train/1.png", "test/2.jpg", "test/2.png")
    assert guessed is not None
    assert guessed.splits == {"train": "train", "test": "test"}
    assert (guessed.images.folder, guessed.masks.folder) == ("{split}", None)


@pytest.mark.parametrize(
    "names",
    [
        ("photos/1.png", "labels/2.png"),
        ("1.png", "2.png"),
        ("photos/1.png",),
        ("1.png", "1.bmp"),
        ("1.jpg", "1.png", "2.jpg", "3.jpg", "4.jpg", "5.jpg"),
    ],
)
def test_nothing_is_guessed_where_names_do_not_fit(tmp_path: Path, names: tuple[str, ...]) -> None:
    assert guess(tmp_path, *names) is None
