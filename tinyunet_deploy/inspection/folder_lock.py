"""Reserve a folder for one process, on local and network file systems."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from filelock import SoftFileLock, Timeout

from tinyunet_deploy import systems
from tinyunet_deploy.errors import RefusedError, RuntimeUnavailable
from tinyunet_deploy.files import (
    LOCK,
    NO_LOCKS,
    keep,
    mount_of,
    read_regular,
    remove_at_end,
)

__all__ = ["FolderLock", "alone", "lock_folder"]

_LOCAL: Final = frozenset(
    {
        *("ext2", "ext3", "ext4", "xfs", "btrfs", "f2fs", "zfs", "bcachefs", "jfs"),
        *("overlay", "tmpfs", "ramfs", "vfat", "exfat", "ntfs3"),
    }
)
"""File systems of one machine, whose kernel knows every lock. On other file systems, a client may
not know what another has locked."""

_log = logging.getLogger(__name__)


class FolderLock:
    """A folder that this process alone may write; made by :func:`lock_folder`."""

    def __init__(self, folder: Path, descriptor: int | None, release: Callable[[], None]) -> None:
        self._folder, self._descriptor, self._release = folder, descriptor, release
        self._file = folder / LOCK
        status = folder.stat() if descriptor is None else os.fstat(descriptor)
        self._identity = (*self._lock_file(), status.st_ino)
        remove_at_end(str(self._file), self._remove)

    def check(self) -> None:
        """Check that this process still holds the folder; call it before results are complete.

        Raises:
            RefusedError: the folder was replaced, or another process has taken it over, which can
                happen where the file system has no locks.
        """
        try:
            intact = (*self._lock_file(), self._folder.stat().st_ino) == self._identity
        except OSError:
            intact = False
        if not intact:
            raise RefusedError(
                self._folder,
                "was replaced or taken over by another process while it was written",
                "make sure that only one process writes there, then run the same command again",
            )

    def close(self) -> None:
        """Release the folder for other processes."""
        keep(str(self._file))
        with contextlib.suppress(OSError):
            self._release()
        if self._descriptor is not None:
            os.close(self._descriptor)

    def _lock_file(self) -> tuple[int, bytes]:
        """Return inode and content; a file system may give the inode of a file to the next one."""
        return self._file.stat().st_ino, read_regular(self._file, limit=4096)

    def _remove(self, _: str) -> None:
        if self._lock_file() == self._identity[:2]:
            self._file.unlink()


def lock_folder(folder: Path) -> FolderLock:
    """Make a folder and hold it for this process alone.

    Two locks are taken. The kernel's lock of the folder ends with the process, however the process
    ends. A file in the folder names host, process and start time; it also works on network file
    systems that have no locks, or whose clients do not see each other's locks. A system that cannot
    open and lock a folder, as Windows, has the file alone.

    The file of a dead process is taken over if its death is certain: it ran on this host and is
    gone or did not finish the file, or it ran in a container that is gone from this machine, while
    the kernel has no lock of the folder and no other machine can see the file system.

    Raises:
        RefusedError: another process holds the folder, or may hold it.
        RuntimeUnavailable: the folder cannot be made, opened or locked.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = _open_folder(folder)
    except OSError as error:
        raise RuntimeUnavailable(folder, f"cannot be written: {error.strerror}") from error
    file = folder / LOCK
    lock = SoftFileLock(file, timeout=0.3, poll_interval=0.02, thread_local=False)
    try:
        locked = descriptor is not None and _flock(descriptor, folder)
        try:
            lock.acquire()
        except Timeout:
            # who holds the folder on this machine has the kernel's lock, which is now ours
            alone = locked and mount_of(folder)[1] in _LOCAL
            if not alone and not (_is_this_host(_holder(file)) and _is_torn(file)):
                raise
            lock.break_lock()
            lock.acquire()
        return FolderLock(folder, descriptor, lock.release)
    except BaseException as error:
        if descriptor is not None:
            os.close(descriptor)
        if isinstance(error, BlockingIOError | Timeout):
            raise _in_use(folder, file) from None
        if isinstance(error, OSError):
            raise RuntimeUnavailable(folder, f"cannot be locked: {error.strerror}") from error
        raise


def _open_folder(folder: Path) -> int | None:
    """Open a folder, to lock it; None on a system that cannot do both."""
    if systems.OPEN_DIRECTORY is None or not systems.HAS_FILE_LOCKS:
        return None
    flags = os.O_RDONLY | systems.OPEN_DIRECTORY | systems.OPEN_INHERITED_BY_NO_CHILD
    return os.open(folder, flags)


def _flock(descriptor: int, folder: Path, *, wait: bool = False) -> bool:
    """Take the kernel's lock; False if the system or the file system has none."""
    if not systems.HAS_FILE_LOCKS:
        return False
    try:
        systems.lock_file(descriptor, wait=wait)
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        _warn_unlocked(mount_of(folder)[0])
        return False
    return True


@functools.cache
def _warn_unlocked(mount: str) -> None:
    _log.warning(
        "%s: does not support locks; the file %s in the output folder replaces them", mount, LOCK
    )


@contextlib.contextmanager
def alone(folder: Path, name: str) -> Iterator[None]:
    """Make a folder and wait until this process alone has the lock called ``name`` in it.

    Use it where processes that otherwise write side by side must take turns. The lock is on a file,
    not on a folder, because network file systems share only locks of files.

    Raises:
        RefusedError: another process has held the lock for a minute.
        OSError: the folder cannot be written.
    """
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            flags = os.O_RDWR | os.O_CREAT | systems.OPEN_INHERITED_BY_NO_CHILD
            lock = os.open(folder / name, flags, 0o666)
        except FileNotFoundError:  # the folder was removed just now
            continue
        try:
            soft = None if _flock(lock, folder, wait=True) else _wait_for(folder / f"{name}.soft")
            if os.fstat(lock).st_nlink:
                break
        except FileNotFoundError:
            pass
        except BaseException:
            os.close(lock)
            raise
        os.close(lock)
    try:
        yield
    finally:
        if soft is not None:
            soft.release()
        os.close(lock)


def _wait_for(file: Path) -> SoftFileLock:
    lock = SoftFileLock(file, timeout=60.0, poll_interval=0.02, thread_local=False)
    try:
        lock.acquire()
    except Timeout:
        raise _in_use(file.parent, file) from None
    return lock


def _in_use(folder: Path, file: Path) -> RefusedError:
    holder = _holder(file)
    if holder is None:
        return RefusedError(folder, "is in use by another process")
    number, host = holder
    way_out = None if _is_this_host(holder) else f"if that process has ended, remove {file}"
    return RefusedError(folder, f"is in use by process {number} on {host}", way_out)


def _holder(file: Path) -> tuple[int, str] | None:
    """Return the process that a lock file names; its lines are number, host and start time."""
    try:
        number, host = read_regular(file, limit=4096).decode().split("\n")[:2]
        return int(number), host
    except (OSError, ValueError):
        return None


def _is_torn(file: Path) -> bool:
    """Return whether the writer of a lock file died in the one call that writes it."""
    try:
        return not read_regular(file, limit=4096).endswith(b"\n")
    except OSError:
        return False


def _is_this_host(holder: tuple[int, str] | None) -> bool:
    """Return whether a lock file's holder, as filelock writes it, is on this host or container."""
    name, namespace = socket.gethostname(), systems.pid_namespace()
    inside = set() if namespace is None else {f"{name}?pidns-{namespace:x}"}
    return holder is not None and holder[1] in {name, *inside}
