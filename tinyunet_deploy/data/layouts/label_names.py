"""Names of masks that lie beside their images: ``part_GT.png``, ``part_mask.png``, ..."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from typing import Final

__all__ = ["image_of_label", "in_a_mask_folder", "is_mask_folder", "label_files", "stem"]

_MASK_FOLDERS: Final[dict[str, frozenset[str]]] = {
    "masks": frozenset({"images"}),
    "ground_truth": frozenset({"train", "test"}),
}
"""Folder of masks -> folders beside which it is one; all in lower case."""
_LABEL: Final = re.compile(r"(?P<image>.+)_(?:gt|mask|label)(?P<copy> \(.+\))?", re.I | re.S)
"""Stem of a mask that lies beside its image; KolektorSDD2 has copies, ``10301_GT (copy).png``."""


def stem(name: str) -> str:
    """Return the name of a file without its suffix."""
    return name.rpartition(".")[0]


def image_of_label(label: str) -> str | None:
    """Return the stem of the image whose mask has this stem; None if no mask has such a stem."""
    match = _LABEL.fullmatch(label)
    return None if match is None else match["image"] + (match["copy"] or "")


def is_mask_folder(name: str, folders: Collection[str]) -> bool:
    """Return whether a folder contains the masks of images in the folders beside it.

    Args:
        folders: names of all folders beside it.
    """
    beside = _MASK_FOLDERS.get(name.lower(), frozenset())
    return bool(beside) and not beside.isdisjoint(folder.lower() for folder in folders)


def in_a_mask_folder(path: str) -> bool:
    """Return whether a folder in a relative path has the name of a folder of masks."""
    return any(name.lower() in _MASK_FOLDERS for name in path.split("/")[:-1])


def label_files(names: Sequence[str]) -> set[str]:
    """Return the files of one folder that are, by their names, masks of other files of it.

    A mask has the name of its image with ``_GT``, ``_mask`` or ``_label`` behind it, in upper or
    lower case; the suffixes may differ. A file without such an image beside it is an image itself,
    whatever its name, and may have a mask.

    Args:
        names: names of all regular files that have a suffix of an image.
    """
    candidates: dict[str, str] = {}
    for name in names:
        image = image_of_label(stem(name))
        if image is not None:
            candidates[name] = image
    if not candidates:
        return set()  # without the memory of all stems
    images = {stem(name) for name in names if name not in candidates}
    labels = set()
    for name in sorted(candidates, key=len):  # an image before its mask
        if candidates[name] in images:
            labels.add(name)
        else:
            images.add(stem(name))
    return labels
