"""Reading a stranger's file, putting our own under its final name, and what JSON can say."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import math
import os
import re
import secrets
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from tinyunet_deploy.errors import RefusedError, RuntimeUnavailable

_EXHAUSTED = {errno.EMFILE, errno.ENFILE, errno.ENOMEM}
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO} | _EXHAUSTED
_TEMPORARY = re.compile(r"\.tinyunet-[0-9a-f]{16}\.part")


def read_regular(path: Path, limit: int | None = None) -> bytes:
    """The bytes of a regular file.

    A FIFO, socket or device is not opened: that alone can wake a writer or start a machine. Should
    one take the file's place in between, it does not hang the caller.

    Args:
        limit: largest accepted size in bytes, also of a file that says it is empty or grows.

    Raises:
        OSError: the file is missing, unreadable, not regular (EINVAL, EISDIR), or over the limit
            (EFBIG).
        RuntimeUnavailable: it is not the file: this process may open no more, or has no memory.
    """
    _require_regular(path.stat(), path)
    with reading(path), open(path, "rb", opener=_open_without_waiting) as file:
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


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """Tell of a process that can open no more as RuntimeUnavailable; pass on other errors."""
    try:
        yield
    except OSError as error:
        if error.errno in _EXHAUSTED:
            raise RuntimeUnavailable(path, f"cannot be read: {error.strerror}") from error
        raise


def _open_without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)


def write_atomic(
    path: Path, data: bytes | memoryview | Iterable[bytes], *, durable: bool = False
) -> None:
    """Write ``data`` so that ``path`` holds either its old content or all of the new.

    Args:
        data: the content, whole or in pieces.
        durable: also survive a power cut: fsync the file and its folder. And remove what writes
            that were killed have left in the folder.

    Raises:
        RuntimeUnavailable: the disk is full, read-only or failing.
    """
    with writing(path):
        with _temporary(path.parent) as temporary:
            with temporary.open("wb") as file:
                file.writelines([data] if isinstance(data, bytes | memoryview) else data)
                file.flush()
                if durable:
                    os.fsync(file.fileno())
            temporary.replace(path)
        if durable:
            sync_folder(path.parent)
            sweep(path.parent)


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Tell of a machine that cannot write ``path`` as RuntimeUnavailable; pass on other errors."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL or isinstance(error, PermissionError):
            raise RuntimeUnavailable(path, f"cannot write: {error.strerror}") from error
        raise


def sync_folder(folder: Path) -> None:
    """Have the names in a folder survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _temporary(folder: Path) -> Iterator[Path]:
    """A new hidden file, gone at the end unless it was renamed.

    It is locked while it is in use, which is how :func:`sweep` tells it from one whose writer is
    dead, whichever container or machine that ran in.
    """
    while True:
        path = folder / f".tinyunet-{secrets.token_hex(8)}.part"
        lock = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        with contextlib.suppress(OSError):  # a file system without locks, where none are swept
            fcntl.flock(lock, fcntl.LOCK_EX)
        if os.fstat(lock).st_nlink:  # not swept before it was locked
            break
        os.close(lock)
    try:
        yield path
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    finally:
        os.close(lock)


def is_temporary(name: str) -> bool:
    """Whether a file name is one that a write which has not finished has."""
    return _TEMPORARY.fullmatch(name) is not None


def sweep(folder: Path) -> None:
    """Remove the temporary files in a folder whose writers are dead."""
    with os.scandir(folder) as entries:
        leftovers = [entry.path for entry in entries if is_temporary(entry.name)]
    for path in leftovers:
        with contextlib.suppress(OSError):  # in use, gone, or not ours to remove
            descriptor = os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                os.unlink(path)  # noqa: PTH108
            finally:
                os.close(descriptor)


def sweep_tree(folder: Path) -> None:
    """Sweep a folder and all below it."""
    for below, _, _ in os.walk(folder):
        sweep(Path(below))


def lock_folder(folder: Path) -> int:
    """Make a folder and hold it for this process alone, until the descriptor is closed.

    The lock is the kernel's: it goes with the process, however that ends.

    Raises:
        RefusedError: another process has it.
        RuntimeUnavailable: it cannot be made, opened or locked.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise RuntimeUnavailable(folder, f"cannot be written: {error.strerror}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        if isinstance(error, BlockingIOError):
            raise RefusedError(folder, "is in use by another process") from None
        raise RuntimeUnavailable(folder, f"cannot be locked: {error.strerror}") from error
    return descriptor


def json_value(value: Any) -> Any:
    """A value as JSON can say it: keys as text, tuples as lists, NaN as None."""
    if isinstance(value, dict):
        return {str(key): json_value(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [json_value(part) for part in value]
    return None if isinstance(value, float) and math.isnan(value) else value
