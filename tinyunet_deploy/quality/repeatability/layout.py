"""Find the repeated photographs of parts.

The folder has a subfolder for each repeat; the photographs of one part have the same name in each::

    photos/operator=anna,lamp=old,1/0001.png   photos/operator=anna,lamp=new,1/0001.png
    photos/operator=anna,lamp=old,2/0001.png   photos/operator=ben,lamp=old,1/0001.png

A folder's name may have conditions, ``key=value`` separated by commas; what has no ``=`` only tells
repeats apart.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from pathlib import Path

from tinyunet_deploy.errors import DataError
from tinyunet_deploy.inspection.walk import walk_images

__all__ = ["Repeat", "conditions_of", "find_repeats"]


@dataclass(frozen=True)
class Repeat:
    """One repeat: every part photographed once under the same conditions."""

    name: str
    """Name of the folder."""
    conditions: dict[str, str]
    photographs: dict[str, Path]
    """Name of a part -> its image file."""


def conditions_of(name: str) -> dict[str, str]:
    """Return the conditions in the name of a folder, ``lamp=new,day=2`` as a dictionary.

    Raises:
        ValueError: a key is given twice, or a key or value is empty.
    """
    conditions: dict[str, str] = {}
    for piece in unicodedata.normalize("NFC", name).split(","):
        key, equals, value = (text.strip() for text in piece.partition("="))
        if not equals:
            continue
        if not key or not value:
            raise ValueError(f"{piece!r} is not key=value")
        if key in conditions:
            raise ValueError(f"{key} is given twice")
        conditions[key] = value
    return conditions


def find_repeats(root: Path) -> list[Repeat]:
    """List the repeats of a folder, sorted by name.

    Raises:
        DataError: the folder does not have two subfolders with images, no part is in two of them,
            or a name gives conditions that cannot be read.
    """
    if not root.is_dir():
        raise DataError(root, "is not a folder")
    repeats = []
    for folder in sorted(path for path in root.iterdir() if path.is_dir()):
        if folder.name.startswith("."):
            continue
        try:
            conditions = conditions_of(folder.name)
        except ValueError as error:
            raise DataError(folder, f"has a name with unreadable conditions: {error}") from error
        photographs: dict[str, Path] = {}
        for path in walk_images([folder]):
            part = path.relative_to(folder.resolve()).as_posix()
            photographs[part] = path
        if photographs:
            repeats.append(Repeat(folder.name, conditions, photographs))
    names = [name for repeat in repeats for name in repeat.photographs]
    if len(repeats) < 2:
        raise DataError(
            root,
            f"has {len(repeats)} subfolders with images, but two repeats are needed",
            "a folder for each repeat, with equal file names; --simulate takes single photographs",
        )
    if len(set(names)) == len(names):
        raise DataError(
            root,
            "has no part that was photographed twice: no file name is in two of its subfolders",
            "give the photographs of a part the same name in each",
        )
    return repeats
