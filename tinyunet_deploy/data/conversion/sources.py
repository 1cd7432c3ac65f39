"""Files of an annotated data set: safe look-up of images by name, splits, bounded JSON."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

from tinyunet_deploy.data.conversion.model import SplitName
from tinyunet_deploy.data.decoding import IMAGE_SUFFIXES
from tinyunet_deploy.data.layouts.listing import entries
from tinyunet_deploy.errors import DataError
from tinyunet_deploy.files import read_regular

__all__ = [
    "MAX_TEXT_BYTES",
    "clean_name",
    "files_below",
    "find_image",
    "read_json",
    "read_text",
    "relative",
    "split_of",
    "without_split",
]

MAX_TEXT_BYTES: Final = 1 << 30
"""Largest accepted file of annotations."""
_SPLITS: Final[dict[str, SplitName]] = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}


def files_below(root: Path, suffixes: Iterable[str]) -> Iterator[Path]:
    """Yield the files of these lower-case suffixes at any depth, sorted, without hidden ones."""
    wanted = frozenset(suffixes)
    for entry in entries(root):
        if entry.is_dir(follow_symlinks=False):
            yield from files_below(Path(entry.path), wanted)
        elif Path(entry.name).suffix.lower() in wanted and entry.is_file():
            yield Path(entry.path)


def split_of(words: Iterable[str]) -> SplitName | None:
    """Return the split that the first of some names states, such as ``Train`` or ``val2017``."""
    for word in words:
        name = word.lower().rstrip("0123456789")
        if name in _SPLITS:
            return _SPLITS[name]
    return None


def without_split(path: Path) -> str:
    """Return a path with ``/``, without the folders whose names state a split."""
    folders = [part for part in path.parent.parts if split_of([part]) is None]
    return "/".join((*folders, path.name))


def relative(name: str) -> str:
    """Return a clean name without leading ``..``."""
    return re.sub(r"^(\.\./)+", "", name)


def clean_name(name: object, where: Path) -> str:
    """Return an image's name in a file of annotations as a relative path with ``/``.

    Raises:
        DataError: it is not a text, empty, absolute, hidden, or not that of an image.
    """
    try:
        usable = isinstance(name, str) and bool(name.strip()) and b"\0" not in os.fsencode(name)
    except UnicodeEncodeError:  # half of a character, as JSON can state it
        usable = False
    if not usable or not isinstance(name, str):
        raise DataError(where, f"has the image name {name!r}", "expected a file name")
    path = os.path.normpath(name.replace("\\", "/"))
    if path.startswith("/") or re.match("[A-Za-z]:", path):
        raise DataError(
            where, f"has the absolute image path {name!r}", "expected one relative to the data set"
        )
    parts = [part for part in path.split("/") if part != ".."]
    if any(part.startswith(".") for part in parts):
        raise DataError(where, f"has the hidden image {name!r}", "rename it")
    if Path(path).suffix.lower() not in IMAGE_SUFFIXES:
        known = ", ".join(sorted(IMAGE_SUFFIXES))
        raise DataError(where, f"has the image {name!r}", f"known suffixes: {known}")
    return path


def find_image(name: str, folders: Iterable[Path], root: Path, where: Path) -> Path:
    """Return the only file of a clean name in some folders, which are ``root`` or below it.

    Raises:
        DataError: it is missing, lies outside ``root``, or two folders have one.
    """
    paths = [_below(root, folder, name) for folder in folders]
    matches = [path for path in dict.fromkeys(paths) if path is not None and os.path.lexists(path)]
    if len(matches) > 1:
        raise DataError(
            where, f"names {name}, but both {matches[0]} and {matches[1]} exist", "keep one"
        )
    if not matches:
        place = "lies outside" if None in paths else "does not exist below"
        raise DataError(where, f"names {name}, which {place} {root}")
    return matches[0]


def _below(root: Path, folder: Path, name: str) -> Path | None:
    """Return the path of a clean name from a folder; None if it leaves ``root``."""
    while name.startswith("../"):
        if folder == root:
            return None
        folder, name = folder.parent, name[3:]
    return folder / name


def read_text(path: Path) -> str:
    """Return the content of a text file in UTF-8.

    Raises:
        DataError: it cannot be read, is larger than :data:`MAX_TEXT_BYTES`, or is not UTF-8.
    """
    try:
        return read_regular(path, MAX_TEXT_BYTES).decode("utf-8-sig")
    except OSError as error:
        raise DataError(path, f"cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise DataError(path, "is not text in UTF-8") from error


def read_json(path: Path) -> Any:
    """Return the content of a JSON file.

    Raises:
        DataError: it cannot be read or is not JSON.
    """
    try:
        return json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise DataError(path, f"is not JSON: {error}") from error
