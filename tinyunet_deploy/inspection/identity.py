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

__all__ = ["FileIdentity", "FileState", "file_state", "identity_now", "read_identified"]

_ATTEMPTS: Final = 3
"""Number of attempts to read a file that changes while it is read."""
_COARSEST_NS: Final = 2_000_000_000
"""Coarsest time stamp of a file system, that of FAT, nanoseconds."""


class FileIdentity(NamedTuple):
    """Size, time of change and hash of the bytes that were read from a file."""

    size_bytes: int
    mtime_ns: int
    sha256: str


class FileState(NamedTuple):
    """Facts by which a change of a file is noticed without reading it; all are -1 without a file.

    Two parts may have one size and one time: cameras write files of a fixed size, and some copies
    keep times. No writer sets the other two facts.
    """

    size_bytes: int = -1
    mtime_ns: int = -1
    """Time of the last change of the bytes, nanoseconds since 1970."""
    ctime_ns: int = -1
    """Time at which the file was last written, renamed or given another time; on Windows, and on
    file systems without it, another time of the file."""
    inode: int = -1
    """Number of the file; a file that is renamed over another has its own."""

    @property
    def size_and_time(self) -> tuple[int, int]:
        """Size and time: they change while a file is written, but not by a link or a new mode."""
        return self.size_bytes, self.mtime_ns


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
        size_bytes, mtime_ns = before = file_state(path).size_and_time
        data = read_bytes(path, size=size)
        if before == file_state(path).size_and_time and size_bytes == len(data):
            return data, FileIdentity(size_bytes, mtime_ns, hashlib.sha256(data).hexdigest())
    raise ImageError(path, "changing", "changed while it was read")


def file_state(path: Path) -> FileState:
    """Return the present state of a file."""
    try:
        status = path.stat()
    except OSError:
        return FileState()
    return FileState(status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)


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
