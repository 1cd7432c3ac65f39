"""List folders and label files: entries in either case, images by name, ClassK folders by class."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Final, Literal

from tinyunet_deploy.data.dataset import SPLITS, Split
from tinyunet_deploy.data.decoding import IMAGE_SUFFIXES
from tinyunet_deploy.errors import DataError

__all__ = [
    "class_folders",
    "comma_separated",
    "entries",
    "file_in",
    "has_split",
    "image_tree",
    "images_in",
    "label_fields",
    "label_lines",
    "require_classes",
    "require_splits",
    "split_folders",
    "split_of",
    "subfolder",
]

_SPLIT_NAMES: Final[dict[Split, tuple[str, ...]]] = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}
"""Split -> names of its folder, in lower case."""


def entries(folder: Path) -> list[os.DirEntry[str]]:
    """Return the entries of a folder, sorted by name, without hidden files."""
    with os.scandir(folder) as listing:
        return sorted((e for e in listing if not e.name.startswith(".")), key=lambda e: e.name)


def subfolder(parent: Path, name: str) -> Path | None:
    """Return the folder ``name`` in ``parent``, in upper or lower case."""
    matches = (e for e in entries(parent) if e.name.lower() == name.lower() and e.is_dir())
    return next((Path(entry.path) for entry in matches), None)


def file_in(parent: Path, name: str) -> Path | None:
    """Return the file ``name`` in ``parent``, in upper or lower case."""
    matches = (e for e in entries(parent) if e.name.lower() == name.lower() and e.is_file())
    return next((Path(entry.path) for entry in matches), None)


def images_in(folder: Path) -> dict[str, Path]:
    """Return lower-case name -> path of the images of one folder, sorted by name.

    Raises:
        DataError: two names differ only in case.
    """
    images: dict[str, Path] = {}
    for entry in entries(folder):
        key = entry.name.lower()
        if os.path.splitext(key)[1] not in IMAGE_SUFFIXES or not entry.is_file():  # noqa: PTH122
            continue
        if key in images:
            raise DataError(entry.path, f"differs from {images[key].name} only in case")
        images[key] = Path(entry.path)
    return images


def image_tree(top: Path) -> dict[str, list[Path]]:
    """Return path below ``top`` without its suffix -> the images of that name, sorted.

    Raises:
        DataError: two names in one folder differ only in case.
    """
    pending = [top]
    paths: list[Path] = []
    while pending:
        current = pending.pop()
        paths += images_in(current).values()
        pending += [Path(entry.path) for entry in entries(current) if entry.is_dir()]
    files: dict[str, list[Path]] = {}
    for path in sorted(paths):
        files.setdefault(path.relative_to(top).with_suffix("").as_posix(), []).append(path)
    return files


def split_of(name: str) -> Split | None:
    """Return the split that a folder of this name contains; None for any other name."""
    return next((split for split in SPLITS if name.lower() in _SPLIT_NAMES[split]), None)


def split_folders(parent: Path) -> dict[Split, Path]:
    """Return split -> its folder in ``parent``, in upper or lower case.

    ``training``, ``valid``, ``validation`` and ``testing`` are known names, too.

    Raises:
        DataError: two folders name the same split.
    """
    folders: dict[Split, Path] = {}
    names = {entry.name.lower(): Path(entry.path) for entry in entries(parent) if entry.is_dir()}
    for split in SPLITS:
        for name in _SPLIT_NAMES[split]:
            if name not in names:
                continue
            if split in folders:
                raise DataError(
                    names[name], f"is a second {split} split beside {folders[split].name}/"
                )
            folders[split] = names[name]
    return folders


def require_splits(
    root: Path, splits: Collection[Split] | None, present: Collection[Split | None]
) -> None:
    """Raise DataError if a split that was asked for is missing from ``root``."""
    for split in splits or ():
        if split not in present:
            names = [name for name in present if name is not None]
            hint = f"it has {', '.join(names)}" if names else "it has no splits; leave it out"
            raise DataError(root, f"has no {split} split", hint)


def class_folders(root: Path, suffix: Literal["", "_def"]) -> dict[int, Path]:
    """Return class -> folder of each ``ClassK`` or ``ClassK_def`` in ``root``.

    A ClassK may contain another ClassK, as some archives unpack; the inner one is returned.

    Raises:
        DataError: two folders name the same class.
    """
    folders: dict[int, Path] = {}
    for entry in entries(root):
        match = re.fullmatch(rf"class([0-9]{{1,4}}){suffix}", entry.name, re.IGNORECASE)
        if match is None or not entry.is_dir():
            continue
        class_id = int(match[1])
        if class_id in folders:
            raise DataError(entry.path, f"is a second folder of class {class_id}")
        folder = Path(entry.path)
        inner = None if has_split(folder) else subfolder(folder, entry.name)
        folders[class_id] = inner or folder
    return folders


def has_split(folder: Path) -> bool:
    """Return whether a folder has a train or test folder."""
    return any(subfolder(folder, split) for split in SPLITS)


def require_classes(root: Path, classes: Collection[int] | None, present: Collection[int]) -> None:
    """Raise DataError if a class that was asked for is missing from ``root``."""
    missing = sorted(set(classes or ()) - set(present))
    if missing:
        raise DataError(
            root,
            f"has no class {comma_separated(missing)}",
            f"it has {comma_separated(sorted(present))}",
        )


def comma_separated(values: Iterable[int]) -> str:
    """Return numbers as the command line takes them: ``1,2,3``."""
    return ",".join(map(str, values))


def label_lines(path: Path) -> list[str]:
    """Return the lines of a label file, which may end in LF or CRLF and in blank lines.

    Raises:
        DataError: the file is not ASCII text.
    """
    try:
        text = path.read_bytes().decode("ascii")
    except UnicodeDecodeError as error:
        raise DataError(path, "is not a plain text file") from error
    return text.replace("\r\n", "\n").rstrip().split("\n")


def label_fields(line: str) -> list[str]:
    """Return the tab-separated fields of one line of a label file."""
    return [field.strip() for field in line.rstrip().split("\t")]
