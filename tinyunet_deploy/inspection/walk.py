"""Find the image files below files and folders."""

from __future__ import annotations

import errno
import heapq
import itertools
import os
from collections.abc import Iterator, Sequence
from operator import attrgetter
from pathlib import Path
from typing import Final

from tinyunet_deploy.data.decoding import IMAGE_SUFFIXES
from tinyunet_deploy.data.layouts.released import is_truth_folder
from tinyunet_deploy.errors import RefusedError
from tinyunet_deploy.files import reading

__all__ = ["common_root", "no_images", "walk_images"]

_MAX_DEPTH: Final = 200
"""Deepest nesting of folders that is walked; no station comes near it."""


def no_images(folder: Path) -> RefusedError:
    """Return the error for a folder without any image."""
    suffixes = " ".join(sorted(IMAGE_SUFFIXES))
    return RefusedError(folder, "contains no images", f"their suffixes are {suffixes}")


def common_root(sources: Sequence[Path]) -> Path:
    """Return the deepest folder above all sources: the output mirrors the tree below it."""
    placed = map(_placed, sources)
    return Path(os.path.commonpath([path if path.is_dir() else path.parent for path in placed]))


def walk_images(sources: Sequence[Path], output: Path | None = None) -> Iterator[Path]:
    """Yield the image files below the sources, each once, in the order of their names.

    In a folder, entries without an image suffix, hidden entries, linked folders, DAGM2007 label
    folders and ``output`` itself are passed over. A file that is named as a source is always
    yielded. A folder below a source that cannot be listed, or is nested too deep, is yielded in
    place of its contents: reading it as an image fails, so the report has a line about it.

    Raises:
        RefusedError: a source folder cannot be listed.
    """
    placed = sorted({_placed(source) for source in sources}, key=attrgetter("parts"))
    named = [path for path in placed if not path.is_dir()]
    walks = [_walk(path, output and output.resolve()) for path in placed if path.is_dir()]
    for path, _ in itertools.groupby(heapq.merge(named, *walks, key=attrgetter("parts"))):
        yield path


def _placed(source: Path) -> Path:
    """Resolve ``..`` and links in a source, but keep the name of a linked file.

    Names below the common folder are also names below the output folder: a ``..`` would leave it.
    """
    return source.resolve() if source.is_dir() else source.parent.resolve() / source.name


def _walk(folder: Path, output: Path | None, depth: int = 0) -> Iterator[Path]:
    suffixes = tuple(IMAGE_SUFFIXES)
    names, folders = [], set()  # plain names: a folder of a million images costs 80 bytes each
    try:
        if depth > _MAX_DEPTH:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
        with reading(folder), os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if entry.is_dir(follow_symlinks=False):
                    folders.add(entry.name)
                elif not entry.name.lower().endswith(suffixes):
                    continue
                names.append(entry.name)
    except OSError as error:
        if depth:
            yield folder
            return
        raise RefusedError(folder, f"cannot be listed: {error.strerror}") from error
    names.sort()
    for name in names:
        path = folder / name
        if name not in folders:
            yield path
        elif path != output and not is_truth_folder(path):
            yield from _walk(path, output, depth + 1)
