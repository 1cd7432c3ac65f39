"""Reading a stranger's file, putting our own under its final name, and what JSON can say."""

from __future__ import annotations

import errno
import math
import os
import stat
import threading
from pathlib import Path
from typing import Any

from tinyunet_deploy.errors import RuntimeUnavailable

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO}
_FULL |= {errno.EMFILE, errno.ENFILE}
PART = ".part"
"""Suffix of the hidden file in which a write that has not finished is; dead ones may be removed."""


def read_regular(path: Path, limit: int | None = None) -> bytes:
    """The bytes of a regular file.

    A FIFO, socket or device is not opened: that alone can wake a writer or start a machine. Should
    one take the file's place in between, it does not hang the caller.

    Args:
        limit: largest accepted size in bytes, also of a file that says it is empty or grows.

    Raises:
        OSError: the file is missing, unreadable, not regular (EINVAL, EISDIR), or over the limit
            (EFBIG).
    """
    _require_regular(path.stat(), path)
    with open(path, "rb", opener=_open_without_waiting) as file:
        status = os.fstat(file.fileno())
        _require_regular(status, path)
        if limit is None:
            return file.read()
        data = file.read(limit + 1) if status.st_size <= limit else None
        if data is None or len(data) > limit:
            raise OSError(errno.EFBIG, f"larger than {limit} bytes", str(path))
        return data


def _require_regular(status: os.stat_result, path: Path) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, "is a folder", str(path))
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "not a regular file", str(path))


def _open_without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)


def write_atomic(path: Path, data: bytes | memoryview, *, durable: bool = False) -> None:
    """Write ``data`` so that ``path`` holds either its old content or all of the new.

    Args:
        durable: also survive a power cut: fsync the file and its folder.

    Raises:
        RuntimeUnavailable: the disk is full, read-only or failing.
    """
    temporary = path.with_name(f".{os.getpid()}-{threading.get_native_id()}{PART}")
    try:
        try:
            with temporary.open("wb") as file:
                file.write(data)
                file.flush()
                if durable:
                    os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        if durable:
            folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
    except OSError as error:
        if error.errno in _FULL or isinstance(error, PermissionError):
            raise RuntimeUnavailable(path, f"cannot write: {error.strerror}") from error
        raise


def json_value(value: Any) -> Any:
    """A value as JSON can say it: keys as text, tuples as lists, NaN as None."""
    if isinstance(value, dict):
        return {str(key): json_value(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [json_value(part) for part in value]
    return None if isinstance(value, float) and math.isnan(value) else value
