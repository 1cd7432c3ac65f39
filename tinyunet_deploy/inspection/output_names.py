"""Names of the files that an image gets in the output folder: no two images share one."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from tinyunet_deploy.data.decoding import IMAGE_SUFFIXES
from tinyunet_deploy.inspection.run_json import RUN

__all__ = ["FOLDERS", "clashing_names", "folded_name", "ignores_case", "mask_name", "overlay_name"]

FOLDERS: Final = ("masks", "scores", "overlays")
"""Folders in the output folder that mirror the input tree."""

_SUFFIXES: Final = tuple(sorted(IMAGE_SUFFIXES))


def mask_name(name: str, change: int = 0) -> str:
    """Return the name of the mask, and of the score, of an image.

    An image whose suffix is .png keeps its name and any other gets .png after its own suffix:
    ``a.png``, ``a.jpg.png``. A name that another image's mask could then have gets one
    more suffix: ``a.jpg.png`` becomes ``a.jpg.png.png``, and the file ``a``, which has no suffix of
    an image, ``a.file.png``.

    Args:
        name: path of the image below the input folder.
        change: number of the change of this file that the mask belongs to, 0 for its first content;
            1 gives ``a.png.change1.png``.
    """
    base = _base(name, change)
    stem = base.lower().removesuffix(".png")
    kept = len(stem) < len(base) and not _has_reserved_suffix(stem)
    return base if kept else f"{base}.png"


def overlay_name(name: str, change: int = 0) -> str:
    """Return the name of the overlay of an image: ``a.png.jpg``; else as :func:`mask_name`."""
    return f"{_base(name, change)}.jpg"


def _base(name: str, change: int) -> str:
    """Return the name with a suffix of an image or one of ours, which tells all inputs apart."""
    if change:
        return f"{name}.change{change}"
    return name if name.lower().endswith(_SUFFIXES) else f"{name}.file"


def _has_reserved_suffix(stem: str) -> bool:
    """Return whether ``stem`` looks like a name to which :func:`mask_name` appends .png."""
    head, dot, suffix = stem.rpartition(".")
    ours = suffix == "file" or (suffix.startswith("change") and suffix[6:].isdigit())
    return stem.endswith(_SUFFIXES) or bool(head and dot and ours)


def ignores_case(output: Path) -> bool:
    """Return whether the file system of an output folder ignores upper and lower case in names."""
    try:
        return (output / RUN.upper()).samefile(output / RUN)
    except OSError:
        return False


def folded_name(name: str) -> str:
    """Return a key that is equal for all names that such a file system may treat as one.

    Those are names that differ in case, in Unicode composition, or in dots and spaces at the end of
    a folder's name, which servers of Windows shares remove.
    """
    folded = unicodedata.normalize("NFD", name).casefold()
    return "/".join(part.rstrip(". ") for part in unicodedata.normalize("NFD", folded).split("/"))


def clashing_names(names: Iterable[str]) -> frozenset[str]:
    """Return the images whose masks would be one file if upper and lower case are the same."""
    names = list(names)
    uses = Counter(folded_name(mask_name(name)) for name in names)
    return frozenset(name for name in names if uses[folded_name(mask_name(name))] > 1)
