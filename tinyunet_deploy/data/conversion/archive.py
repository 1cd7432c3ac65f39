"""Unpack a zip archive that may be damaged or malicious."""

from __future__ import annotations

import re
import shutil
import stat
import zipfile
import zlib
from pathlib import Path
from typing import Final

from tinyunet_deploy.errors import DataError
from tinyunet_deploy.files import writing

__all__ = ["unpack"]

_MAX_FILES: Final = 1_000_000
_FREE_BYTES: Final = 1 << 30
"""Unpacked size that every archive may have."""
_MAX_RATIO: Final = 20
"""Largest unpacked size of a larger one, as a multiple of the archive's: images hardly shrink, and
deflate packs zeros to a thousandth."""


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a zip archive into an empty folder.

    Raises:
        DataError: it is damaged or encrypted, unpacks to far more than its size, or contains a
            link, a path that leaves the folder, or two files of the same name.
        RuntimeUnavailable: the disk is full or read-only.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            members = opened.infolist()
            _require_bounded(archive, members)
            paths = _paths(archive, members)
            for path, member in paths.items():
                target = folder / path
                with writing(target):
                    target.parent.mkdir(parents=True, exist_ok=True)
                    with opened.open(member) as packed, target.open("xb") as file:
                        shutil.copyfileobj(packed, file)  # ends at the size in the directory
    except (
        zipfile.BadZipFile,
        zlib.error,
        EOFError,
        NotImplementedError,
        FileExistsError,
    ) as error:
        raise DataError(archive, f"is not a usable zip archive: {error}") from error


def _require_bounded(archive: Path, members: list[zipfile.ZipInfo]) -> None:
    size = sum(member.file_size for member in members)
    limit = max(_FREE_BYTES, _MAX_RATIO * archive.stat().st_size)
    if size > limit or len(members) > _MAX_FILES:
        raise DataError(
            archive,
            f"unpacks to {len(members)} files of {size >> 20} MiB, but at most {_MAX_FILES} of "
            f"{limit >> 20} MiB are taken",
            "unpack it yourself if you trust it, and give the folder",
        )


def _paths(archive: Path, members: list[zipfile.ZipInfo]) -> dict[str, zipfile.ZipInfo]:
    paths: dict[str, zipfile.ZipInfo] = {}
    for member in members:
        if member.is_dir():
            continue
        name = member.filename
        parts = name.replace("\\", "/").split("/")
        if name.startswith(("/", "\\")) or ".." in parts or re.match("[A-Za-z]:", name):
            raise DataError(archive, f"contains {name!r}, a path that leaves the folder")
        if stat.S_ISLNK(member.external_attr >> 16):
            raise DataError(archive, f"contains the link {name!r}")
        if member.flag_bits & 1:
            raise DataError(archive, "is encrypted", "unpack it yourself, and give the folder")
        if name in paths:
            raise DataError(archive, f"contains {name!r} twice")
        paths[name] = member
    return paths
