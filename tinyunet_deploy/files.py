"""File I/O: bounded reads of untrusted files, atomic writes, JSON conversion.

The module keeps a list of the temporary files, scratch folders and lock files of this process, so
that :func:`put_away` can remove them when a signal ends it.
"""

from __future__ import annotations

import atexit
import contextlib
import errno
import functools
import logging
import math
import os
import re
import secrets
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Final

from tinyunet_deploy import systems
from tinyunet_deploy.errors import RuntimeUnavailable

__all__ = [
    "LOCK",
    "NO_LOCKS",
    "UNSUPPORTED",
    "is_temporary",
    "json_value",
    "keep",
    "mount_of",
    "put_away",
    "read_regular",
    "reading",
    "remove_at_end",
    "scratch_folder",
    "sweep",
    "sweep_tree",
    "sync",
    "sync_folder",
    "write_atomic",
    "writing",
]

_EXHAUSTED: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})
_FAILING: Final = _EXHAUSTED | {
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO),  # a disk
    *(errno.EBUSY, errno.ETXTBSY, errno.ENODEV, errno.ENXIO, errno.ENOTCONN),  # a drive, a share
    *(errno.ESTALE, errno.ETIMEDOUT, errno.EHOSTDOWN, errno.EHOSTUNREACH),
    *([errno.EREMOTEIO] if hasattr(errno, "EREMOTEIO") else []),  # Linux only
}
"""Error numbers that mean a fault of the machine, not of the path."""
UNSUPPORTED: Final = frozenset({errno.EINVAL, errno.ENOSYS, errno.ENOTSUP})
"""Error numbers of an operation that a file system lacks, such as syncing a folder."""
NO_LOCKS: Final = UNSUPPORTED | {errno.ENOLCK, errno.EBADF}
"""Error numbers where there are no locks; NFS locks only files that are open for writing."""
_PASSING: Final = frozenset({errno.EBUSY, errno.ETXTBSY, errno.EACCES})
"""Error numbers of a rename while a virus scanner or another client has the file open."""
_RETRIES_S: Final = (0.01, 0.02, 0.05, 0.1, 0.3)
"""Waits between the tries of a rename, seconds."""
_TEMPORARY: Final = re.compile(r"\.tinyunet-[0-9a-f]{16}\.part")
_NEW_FILE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | systems.OPEN_INHERITED_BY_NO_CHILD
_EXISTING_FILE: Final = os.O_WRONLY | systems.OPEN_WITHOUT_LINKS | systems.OPEN_WITHOUT_WAITING
_ABANDONED_S: Final = 3600.0
"""Age at which a temporary file counts as left by a dead process if there are no locks, seconds;
writing a file takes seconds at most."""
_GROWTH: Final = 16 << 20
"""Bytes by which a file may be longer than it was when it was opened: a camera may still append,
but files such as ``/proc/self/pagemap`` say that they are empty and have no end."""
LOCK: Final = ".tinyunet.lock"
"""Name of the file that locks a folder (:mod:`tinyunet_deploy.inspection.folder_lock`)."""
_log = logging.getLogger(__name__)
_left: dict[str, Callable[[str], object]] = {}
"""Path that this process would leave behind -> function that removes it."""


def read_regular(path: Path, limit: int | None = None) -> bytes:
    """Return the bytes of a regular file.

    A FIFO, socket or device is not opened, as opening one can wake a writer or start a machine. If
    one replaces the file after the check, opening it does not block.

    Args:
        limit: largest accepted size, bytes; enforced even if the file grows while it is read.

    Raises:
        OSError: the file is missing, unreadable, not regular (EINVAL, EISDIR), over the limit
            (EFBIG), or longer than it says by more than 16 MiB (EAGAIN), as files of ``/proc`` are.
        RuntimeUnavailable: the process has too many open files or too little memory.
    """
    _require_regular(path.stat(), path)
    with reading(path), open(path, "rb", opener=_open_without_waiting) as file:
        status = os.fstat(file.fileno())
        _require_regular(status, path)
        if limit is None:
            return file.read()
        # not file.read(limit + 1), for which Python allocates limit bytes
        data = file.read(status.st_size + 1) if status.st_size <= limit else None
        if data is not None and len(data) > status.st_size:
            data += file.read(min(limit + 1 - len(data), _GROWTH))
            if len(data) > status.st_size + _GROWTH:
                raise OSError(errno.EAGAIN, "grows while it is read", str(path))
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
    """Turn an OSError for too many open files or too little memory into RuntimeUnavailable."""
    try:
        yield
    except OSError as error:
        if error.errno in _EXHAUSTED:
            raise RuntimeUnavailable(path, f"cannot be read: {error.strerror}") from error
        raise


def _open_without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | systems.OPEN_WITHOUT_WAITING)


def write_atomic(
    path: Path, data: bytes | memoryview | Iterable[bytes], *, durable: bool = False
) -> None:
    """Write ``data`` so that ``path`` always has either its old content or all of the new.

    Args:
        data: the content, whole or in pieces.
        durable: fsync the file and its folder, so that the file survives a power cut, and remove
            temporary files that killed processes have left in the folder.

    Raises:
        RuntimeUnavailable: the disk is full, read-only or failing.
    """
    with writing(path):
        with _temporary(path.parent) as temporary:
            with open(temporary, "wb") as file:  # noqa: PTH123  called for each mask
                file.writelines([data] if isinstance(data, bytes | memoryview) else data)
                file.flush()
                if durable:
                    sync(file.fileno(), path)
            _rename(temporary, path)
        if durable:
            sync_folder(path.parent)
            sweep(path.parent)


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Raise RuntimeUnavailable if the machine cannot write ``path``; pass on other errors."""
    try:
        yield
    except OSError as error:
        if error.errno in _FAILING or isinstance(error, PermissionError):
            raise RuntimeUnavailable(path, f"cannot write: {error.strerror}") from error
        raise


def _rename(temporary: str, path: Path) -> None:
    for wait_s in _RETRIES_S:
        try:
            return os.replace(temporary, path)  # noqa: PTH105  called for each mask
        except OSError as error:
            if error.errno not in _PASSING:
                raise
        time.sleep(wait_s)
    return os.replace(temporary, path)  # noqa: PTH105


def sync(descriptor: int, path: Path) -> None:
    """Sync a file to the disk, so that it survives a power cut; warn if its file system cannot."""
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise
        _warn_unsynced(mount_of(path)[0])


def sync_folder(folder: Path) -> None:
    """Sync the names in a folder to the disk; warn if its file system cannot.

    Windows cannot open a folder: there the journal of its file system keeps the names.
    """
    if systems.OPEN_DIRECTORY is None:
        return
    descriptor = os.open(folder, os.O_RDONLY | systems.OPEN_DIRECTORY)
    try:
        sync(descriptor, folder)
    finally:
        os.close(descriptor)


@functools.cache
def _warn_unsynced(mount: str) -> None:
    _log.warning("%s: cannot sync files to the disk; a power cut may lose the newest", mount)


@contextlib.contextmanager
def _temporary(folder: Path) -> Iterator[str]:
    """Make a hidden file; remove it after an error.

    The file is locked while it is in use. The lock lets :func:`sweep` recognise files whose writer
    is dead, even if the writer ran in another container or on another machine. A system without
    such locks could not rename an open file, so there it is closed at once, and its age decides.
    """
    while True:
        path = f"{folder}/.tinyunet-{secrets.token_hex(8)}.part"
        lock = os.open(path, _NEW_FILE, 0o666)
        if not systems.HAS_FILE_LOCKS:
            os.close(lock)
            break
        with contextlib.suppress(
            OSError
        ):  # without locks on this file system, sweep removes nothing
            systems.lock_file(lock)
        if os.fstat(lock).st_nlink:  # not swept before it was locked
            break
        os.close(lock)
    _left[path] = os.unlink
    try:
        yield path
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)  # noqa: PTH108
        raise
    finally:
        _left.pop(path, None)
        if systems.HAS_FILE_LOCKS:
            os.close(lock)


def _remove_folder(folder: str) -> None:
    shutil.rmtree(folder, ignore_errors=True)


def remove_at_end(path: str, remove: Callable[[str], object] = _remove_folder) -> None:
    """Call ``remove(path)`` when this process ends; the default removes a folder."""
    _left[path] = remove


def keep(path: str) -> None:
    """Cancel :func:`remove_at_end` for a path."""
    _left.pop(path, None)


@contextlib.contextmanager
def scratch_folder() -> Iterator[Path]:
    """Make a temporary folder; remove it at the end, even if a signal ends the process."""
    folder = tempfile.mkdtemp(prefix="tinyunet-")
    remove_at_end(folder)
    try:
        yield Path(folder)
    finally:
        keep(folder)
        _remove_folder(folder)


def put_away() -> None:
    """Remove everything that this process would leave behind; call it just before the end."""
    for path, remove in list(_left.items()):
        with contextlib.suppress(OSError):
            remove(path)
        _left.pop(path, None)


atexit.register(put_away)
systems.after_fork(in_child=_left.clear)


def is_temporary(name: str) -> bool:
    """Return whether a file name is that of an unfinished write or of a lock."""
    return _TEMPORARY.fullmatch(name) is not None or name.startswith(LOCK)


def sweep(folder: Path, *, alone: bool = False) -> None:
    """Remove the temporary files in a folder whose writers are dead.

    Args:
        alone: the caller knows that no other process writes there. So it removes the files even
            where the file system has no locks, by which dead writers are known otherwise.
    """
    with os.scandir(folder) as entries:
        leftovers = [entry.path for entry in entries if _TEMPORARY.fullmatch(entry.name)]
    for path in leftovers:
        with contextlib.suppress(OSError):  # in use, gone, or not ours to remove
            if not systems.HAS_FILE_LOCKS:
                if alone or time.time() - os.lstat(path).st_mtime > _ABANDONED_S:
                    os.unlink(path)  # noqa: PTH108
                continue
            descriptor = os.open(path, _EXISTING_FILE)
            try:
                try:
                    systems.lock_file(descriptor, wait=False)
                except OSError as error:
                    if not alone or error.errno not in NO_LOCKS:
                        raise
                os.unlink(path)  # noqa: PTH108
            finally:
                os.close(descriptor)


def sweep_tree(folder: Path, *, alone: bool = False) -> None:
    """Sweep a folder and all folders below it, as :func:`sweep`."""
    for below, _, _ in os.walk(folder):
        sweep(Path(below), alone=alone)


def mount_of(path: Path) -> tuple[str, str]:
    """Return the mount point of a path and the type of its file system, such as ``nfs4``."""
    best = ("/", "unknown")
    with contextlib.suppress(OSError, ValueError, IndexError):
        place = str(path.resolve())
        for line in Path("/proc/self/mountinfo").read_text("utf-8", "surrogateescape").splitlines():
            fields, _, rest = line.partition(" - ")
            point = re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), fields.split()[4])
            if f"{place}/".startswith(f"{point.rstrip('/')}/") and len(point) >= len(best[0]):
                best = (point, rest.split()[0])
    return best


def json_value(value: Any) -> Any:
    """Convert a value to JSON's types: keys to text, tuples to lists, NaN to None."""
    if isinstance(value, dict):
        return {str(key): json_value(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [json_value(part) for part in value]
    return None if isinstance(value, float) and math.isnan(value) else value
