"""Names of the files that an image gets in the output folder: no two images share one."""

from __future__ import annotations

import re
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

_KINDS: Final = sorted(suffix.removeprefix(".") for suffix in IMAGE_SUFFIXES)
_SUFFIX: Final = re.compile(rf"\.(?:{'|'.join(_KINDS)})\Z", re.IGNORECASE)
_OUR_ENDING: Final = re.compile(rf"-(?:{'|'.join(_KINDS)}|file|change[0-9]+)\Z", re.IGNORECASE)


def mask_name(name: str, change: int = 0) -> str:
    """Return the name of the mask, and of the score, of an image.

    An image whose suffix is .png keeps its name: ``a.png``. Any other gets its suffix behind a
    hyphen: ``a.jpg`` becomes ``a-jpg.png``, and the file ``a``, which has no suffix of an image,
    ``a-file.png``. So does a .png image whose name could then belong to another image:
    ``a-jpg.png`` becomes ``a-jpg-png.png``.

    Args:
        name: path of the image below the input folder.
        change: number of the change of this file that the mask belongs to, 0 for its first content;
            1 gives ``a-change1.png``.
    """
    return "".join(_stem_and_suffix(name, change))


def overlay_name(name: str, change: int = 0) -> str:
    """Return the name of the overlay of an image: that of its mask with .jpg, ``a.jpg``."""
    stem, suffix = _stem_and_suffix(name, change)
    cases = zip(suffix, ".jpg", strict=True)  # a.PNG and a.png are two images where case counts
    return stem + "".join(new.upper() if old.isupper() else new for old, new in cases)


def _stem_and_suffix(name: str, change: int) -> tuple[str, str]:
    """Return the stem that tells all inputs apart, and .png in the upper or lower case it needs.

    The input's name follows from the result: an ending that we add names the suffix or the change;
    without one, the name is the image's own.
    """
    match = _SUFFIX.search(name)
    suffix = match[0] if match else ""
    stem = name.removesuffix(suffix)
    if suffix.lower() != ".png" or _OUR_ENDING.search(stem):
        stem, suffix = f"{stem}-{suffix.removeprefix('.') or 'file'}", ".png"
    return (f"{stem}-change{change}" if change else stem), suffix


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
