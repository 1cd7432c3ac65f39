"""Check whether a file still contains the bytes on which a verdict rests."""

from __future__ import annotations

import errno
import hashlib
import stat
from pathlib import Path
from typing import Final, NamedTuple

from tinyunet_deploy.data.decoding import read_bytes
from tinyunet_deploy.errors import ImageError
from tinyunet_deploy.files import read_regular, reading

__all__ = ["FileIdentity", "file_state", "identity_now", "read_identified"]

_ATTEMPTS: Final = 3
"""Number of attempts to read a file that changes while it is read."""
_COARSEST_NS: Final = 2_000_000_000
"""Coarsest time stamp of a file system, that of FAT, nanoseconds."""


class FileIdentity(NamedTuple):
    """Size, time of change and hash of the bytes that were read from a file."""

    size_bytes: int
    mtime_ns: int
    sha256: str


def read_identified(
    path: Path, *, size: tuple[int, int] | None = None
) -> tuple[bytes, FileIdentity]:
    """Return the bytes of an image file and their identity.

    Args:
        size: as for :func:`~tinyunet_deploy.data.decoding.read_bytes`.

    Raises:
        ImageError: as ``read_bytes``, and ``changing`` if the file changes whenever it is read.
    """
    for _ in range(_ATTEMPTS):
        before = file_state(path)
        data = read_bytes(path, size=size)
        if before == file_state(path) and before[0] == len(data):
            return data, FileIdentity(len(data), before[1], hashlib.sha256(data).hexdigest())
    raise ImageError(path, "changing", "changed while it was read")


def file_state(path: Path) -> tuple[int, int]:
    """Return size in bytes and time of change in nanoseconds; (-1, -1) if there is no file."""
    try:
        status = path.stat()
    except OSError:
        return -1, -1
    return status.st_size, status.st_mtime_ns


def identity_now(path: Path, known: FileIdentity, trusted_before_ns: int) -> FileIdentity | None:
    """Return the present identity of a file if it still contains the known bytes, else None.

    Equal size and time are trusted, unless the file changed so close to the time of reading that a
    coarse clock might have hidden a second change, or its inode was touched later; then the hash
    decides, as it does if only the time differs.

    Args:
        known: identity of the bytes that were read.
        trusted_before_ns: time on the clock of the file system before which the file must have
            changed for the last time to be trusted, nanoseconds since 1970.

    Raises:
        FileNotFoundError: there is no such regular file.
        OSError: it cannot be read.
    """
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise FileNotFoundError(path)
    if status.st_size != known.size_bytes:
        return None
    latest_ns = max(status.st_mtime_ns, status.st_ctime_ns)
    if status.st_mtime_ns == known.mtime_ns and latest_ns < trusted_before_ns - _COARSEST_NS:
        return known
    with reading(path):
        try:
            data = read_regular(path, known.size_bytes)
        except OSError as error:
            if error.errno in (errno.EFBIG, errno.EINVAL, errno.EISDIR):
                return None  # it grew, or is no longer a file
            raise
    unchanged = hashlib.sha256(data).hexdigest() == known.sha256
    return known._replace(mtime_ns=status.st_mtime_ns) if unchanged else None
