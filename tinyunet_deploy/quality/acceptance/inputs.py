"""sha256 of every file that an acceptance test rests on."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, NamedTuple

from tinyunet_deploy.data.dataset import Dataset
from tinyunet_deploy.errors import DataError
from tinyunet_deploy.files import read_regular
from tinyunet_deploy.quality.acceptance.evidence import InputFile

__all__ = ["HashedFolder", "hash_dataset", "hash_file", "hash_files"]

_LABEL_SUFFIXES: Final = (".csv", ".json", ".toml", ".txt", ".xml", ".yaml", ".yml")
"""Suffixes of files beside images and masks in which labels may stand."""


class HashedFolder(NamedTuple):
    """The files of a folder and their hashes."""

    digests: dict[Path, str]
    """File -> sha256."""
    listing: str
    """A line for each file, as ``sha256sum`` writes and checks them in the folder."""

    def as_input(self, role: str, name: str) -> InputFile:
        """Return the folder as one input, with the sha256 of its listing."""
        digest = hashlib.sha256(self.listing.encode("utf-8", "surrogateescape")).hexdigest()
        return InputFile(role, name, digest, len(self.digests))


def hash_file(role: str, path: Path) -> InputFile:
    """Return a file as an input.

    Raises:
        DataError: it cannot be read.
    """
    return InputFile(role, path.name, _sha256(path))


def hash_files(root: Path, paths: Iterable[Path], workers: int) -> HashedFolder:
    """Hash files below a folder, sorted by name.

    Raises:
        DataError: one cannot be read.
    """
    files = sorted(set(paths))
    with ThreadPoolExecutor(workers) as pool:
        digests = dict(zip(files, pool.map(_sha256, files), strict=True))
    lines = (
        f"{digest}  {Path(os.path.relpath(path, root)).as_posix()}\n"
        for path, digest in digests.items()
    )
    return HashedFolder(digests, "".join(lines))


def hash_dataset(dataset: Dataset, workers: int) -> HashedFolder:
    """Hash the images and masks of a data set, and the files beside them that may have labels.

    Raises:
        DataError: one cannot be read.
    """
    images = [item.image for item in dataset.items]
    masks = [item.mask for item in dataset.items if item.mask is not None]
    folders = {path.parent for path in (*images, *masks)} | {dataset.root}
    labels = [path for folder in folders for path in _label_files(folder)]
    return hash_files(dataset.root, (*images, *masks, *labels), workers)


def _label_files(folder: Path) -> Sequence[Path]:
    return [
        path
        for path in folder.iterdir()
        if path.suffix.lower() in _LABEL_SUFFIXES and path.is_file()
    ]


def _sha256(path: Path) -> str:
    try:
        return hashlib.sha256(read_regular(path)).hexdigest()
    except OSError as error:
        raise DataError(path, f"cannot be read: {error.strerror}") from error
