"""The layout of the released DAGM2007 set: ClassK/Train and ClassK/Test, with Label/Labels.txt."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Final

from tinyunet_deploy.data.dataset import SPLITS, Item, Split
from tinyunet_deploy.data.layouts.listing import (
    class_folders,
    file_in,
    has_split,
    images_in,
    label_fields,
    label_lines,
    subfolder,
)
from tinyunet_deploy.errors import DataError

__all__ = [
    "PUBLISHED_COUNTS",
    "is_truth_folder",
    "read_released",
    "released_classes",
    "released_splits",
]

_TRAIN_DEFECTIVE = (79, 66, 66, 82, 70, 83, 150, 150, 150, 150)
_TEST_DEFECTIVE = (71, 84, 84, 68, 80, 67, 150, 150, 150, 150)
_PUBLISHED_SPLITS: Final[tuple[Split, ...]] = ("train", "test")
PUBLISHED_COUNTS: Final[dict[tuple[int, Split], tuple[int, int]]] = {
    (class_id, split): (575 if class_id <= 6 else 1150, defective[class_id - 1])
    for class_id in range(1, 11)
    for split, defective in zip(_PUBLISHED_SPLITS, (_TRAIN_DEFECTIVE, _TEST_DEFECTIVE), strict=True)
}
"""(class 1..10, split) -> (images, defective images) of the whole released set."""


def released_classes(root: Path) -> dict[int, Path]:
    """Return class -> folder with its Train and Test; empty if ``root`` has another layout.

    A single ClassK folder may be the root.
    """
    folders = {k: folder for k, folder in class_folders(root, "").items() if has_split(folder)}
    name = Path(os.path.abspath(root)).name  # noqa: PTH100 - keeps the name of a symbolic link
    match = re.fullmatch(r"class([0-9]{1,4})", name, re.IGNORECASE)
    if not folders and match is not None and has_split(root):
        return {int(match[1]): root}
    return folders


def released_splits(folders: Mapping[int, Path]) -> list[Split]:
    """Return the splits that a class has."""
    return [
        split
        for split in SPLITS
        if any(subfolder(folder, split) is not None for folder in folders.values())
    ]


def read_released(
    folders: dict[int, Path], classes: Collection[int] | None, splits: Collection[Split] | None
) -> Iterator[Item]:
    """List the images of the released layout, by class, split and name.

    Args:
        folders: class -> folder with its Train and Test.
        classes, splits: list only these; None lists all.

    Raises:
        DataError: a label list disagrees with the files, or a chosen class has no images.
    """
    for class_id, folder in sorted(folders.items()):
        if classes is not None and class_id not in classes:
            continue
        has_images = False
        for name in SPLITS if splits is None else splits:
            split_folder = subfolder(folder, name)
            if split_folder is not None:
                for item in _read_split(split_folder, class_id, name):
                    has_images = True
                    yield item
        if classes is not None and not has_images:
            wanted = "images" if splits is None else f"{' or '.join(splits)} images"
            raise DataError(folder, f"has no {wanted}", "choose another split or other classes")


def _read_split(folder: Path, class_id: int, split: Split) -> Iterator[Item]:
    images = images_in(folder)
    label_folder = subfolder(folder, "Label")
    if not images and label_folder is None:
        return
    labels_txt = None if label_folder is None else file_in(label_folder, "Labels.txt")
    if label_folder is None or labels_txt is None:
        raise DataError(
            folder / "Label" / "Labels.txt",
            "is missing, so nothing says which images are defective",
            "copy the Label folder of this split, too",
        )
    masks = images_in(label_folder)
    listed: dict[Path, Path | None] = {}
    for where, image_name, mask_name in _read_labels_txt(labels_txt):
        image = images.get(image_name.lower())
        if image is None:
            raise DataError(where, f"{image_name} is not in {folder}")
        if image in listed:
            raise DataError(where, f"{image_name} is listed a second time")
        mask = None if mask_name is None else masks.pop(mask_name.lower(), None)
        if mask_name is not None and mask is None:
            raise DataError(
                where,
                f"{image_name} is defective, but its mask {mask_name} is not in {label_folder}",
                "copy the mask there; two images cannot share one",
            )
        listed[image] = mask
    for image in images.values():
        if image not in listed:
            raise DataError(
                labels_txt, f"does not list {image.name}", f"the image is in {folder}; add its line"
            )
    for mask in masks.values():
        raise DataError(
            labels_txt,
            f"does not list the mask {mask.name}",
            "the mask lies beside the list; add its line",
        )
    for image in images.values():
        mask = listed[image]
        yield Item(image, mask is not None, mask, None, class_id, split)


def _read_labels_txt(path: Path) -> Iterator[tuple[str, str, str | None]]:
    """Yield (file:line, image name, mask name or None) for every line after the first."""
    first, *lines = label_lines(path)
    if first.strip() != "1":
        raise DataError(f"{path}:1", f"is {first[:40]!r} where 1 is expected")
    for number, line in enumerate(lines, start=2):
        where = f"{path}:{number}"
        fields = label_fields(line)
        if len(fields) == 4:  # some writers leave the mask of a defect-free image empty
            fields.append("0")
        if len(fields) != 5 or not all(fields):
            raise DataError(
                where,
                f"has {len(fields)} fields: {line[:60]!r}",
                "expected number, 0 or 1, image, 0, mask or 0, separated by tabs",
            )
        _, flag, image, _, mask = fields
        if flag not in ("0", "1"):
            raise DataError(where, f"flag {flag!r} is neither 0 (defect-free) nor 1 (defective)")
        if flag == "1" and mask == "0":
            raise DataError(where, f"{image} is defective but has no mask")
        if flag == "0" and mask != "0":
            raise DataError(where, f"{image} is defect-free but has the mask {mask}")
        yield where, image, mask if flag == "1" else None


def is_truth_folder(folder: Path) -> bool:
    """Return whether a folder contains labels, not images: ``Label/``, and ``Truth/`` beside it."""
    if folder.name == "Truth":
        folder = folder.with_name("Label")
    return folder.name == "Label" and (folder / "Labels.txt").is_file()
