"""Differences between operating systems: the only module that needs POSIX.

Linux has every call. Where macOS or Windows lacks one, this module uses what they offer instead;
nothing else in the library imports ``fcntl`` or ``resource``, or uses a flag, a signal or a call
that one of the three systems lacks.

==================  =====================  =========================  ==============================
what                Linux                  macOS                      Windows
==================  =====================  =========================  ==============================
lock of a folder    ``flock`` and a file   ``flock`` and a file       a file (package filelock)
folder to disk      ``fsync``              ``fsync``                  the file system's journal
processors          affinity               all of the machine         affinity (package psutil)
memory, children    ``sysconf``, ``/proc`` psutil                     psutil
limits of a trial   ``setrlimit``          refused: no memory limit   refused: no limits
run when idle       ``SCHED_IDLE``         ``nice``                   idle priority class
signals             TERM, INT, HUP         TERM, INT, HUP             TERM, INT
==================  =====================  =========================  ==============================
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Final

from tinyunet_deploy.errors import RuntimeUnavailable

fcntl: ModuleType | None
resource: ModuleType | None
try:
    import fcntl
except ImportError:
    fcntl = None
try:
    import resource
except ImportError:
    resource = None

__all__ = [
    "ENDING_SIGNALS",
    "HAS_FILE_LOCKS",
    "INHERITS_DESCRIPTORS",
    "OPEN_DIRECTORY",
    "OPEN_INHERITED_BY_NO_CHILD",
    "OPEN_WITHOUT_LINKS",
    "OPEN_WITHOUT_WAITING",
    "SIGPIPE",
    "address_space_bytes",
    "after_fork",
    "allowed_processors",
    "block_signals",
    "child_processes",
    "installed_memory_bytes",
    "keep_freed_memory",
    "kill",
    "limit_this_process",
    "lock_file",
    "pid_namespace",
    "run_when_idle",
    "unblock_signals",
    "use_processors",
]

OPEN_WITHOUT_WAITING: Final[int] = getattr(os, "O_NONBLOCK", 0)
"""Flag of ``os.open``: do not wait for the other end of a FIFO. Windows has no FIFO in a folder."""
OPEN_WITHOUT_LINKS: Final[int] = getattr(os, "O_NOFOLLOW", 0)
"""Flag of ``os.open``: refuse a symbolic link."""
OPEN_DIRECTORY: Final[int | None] = getattr(os, "O_DIRECTORY", None)
"""Flag of ``os.open`` for a folder; None if folders cannot be opened, as on Windows."""
OPEN_INHERITED_BY_NO_CHILD: Final[int] = getattr(os, "O_CLOEXEC", getattr(os, "O_NOINHERIT", 0))
"""Flag of ``os.open``: no child process inherits the descriptor."""
INHERITS_DESCRIPTORS: Final = os.name == "posix"
"""True if a child process can be given an open file, such as shared memory, by its number."""
HAS_FILE_LOCKS: Final = fcntl is not None
"""True if the kernel has locks that end with their process, whatever the file is used for."""
SIGPIPE: Final = 13
"""Number of the signal of a closed pipe, for the exit code 128 + 13, even if it is never sent."""

_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
"""Parameters of ``mallopt``, from ``malloc.h`` of glibc."""

ENDING_SIGNALS: Final[tuple[signal.Signals, ...]] = tuple(
    signal.Signals[name]
    for name in ("SIGTERM", "SIGINT", "SIGHUP")
    if name in signal.Signals.__members__
)
"""Signals that end a command."""


def lock_file(descriptor: int, *, wait: bool = True) -> None:
    """Take the kernel's lock of an open file or folder for this process alone.

    Raises:
        BlockingIOError: another process has it, and ``wait`` is False.
        OSError: the file system has no locks.
        RuntimeUnavailable: the system has no such locks; see :data:`HAS_FILE_LOCKS`.
    """
    if fcntl is None:
        raise RuntimeUnavailable("flock", "is not on this operating system")
    fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))


def allowed_processors() -> tuple[int, ...]:
    """Return the numbers of the processors that this process may use, in ascending order."""
    if hasattr(os, "sched_getaffinity"):
        return tuple(sorted(os.sched_getaffinity(0)))
    process = _psutil().Process()
    if hasattr(process, "cpu_affinity"):
        return tuple(sorted(process.cpu_affinity()))
    return tuple(range(os.cpu_count() or 1))


def use_processors(numbers: Sequence[int]) -> None:
    """Run this process on these processors only.

    Raises:
        RuntimeUnavailable: the system cannot do this, such as macOS.
        OSError: it has no such processor.
    """
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, numbers)
        return
    process = _psutil().Process()
    if not hasattr(process, "cpu_affinity"):
        raise RuntimeUnavailable("processors", "cannot be chosen on this operating system")
    process.cpu_affinity(list(numbers))


def installed_memory_bytes() -> int:
    """Return the memory of the machine, bytes."""
    if "SC_PHYS_PAGES" in getattr(os, "sysconf_names", {}):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return int(_psutil().virtual_memory().total)


def keep_freed_memory() -> None:
    """Let the C library reuse the memory of one image for the next; only glibc can be asked.

    It otherwise gives freed blocks of this size back to the system and takes new pages for the next
    image, which costs as much as inflating it. Up to 16 MiB in each of its arenas are kept, blocks
    of more than 4 MiB never.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    mallopt(_M_MMAP_THRESHOLD, 4 << 20)
    mallopt(_M_TRIM_THRESHOLD, 16 << 20)


def address_space_bytes() -> int | None:
    """Return the limit of this process's address space (``ulimit -v``), bytes; None without one."""
    if resource is None:
        return None
    limit: int = resource.getrlimit(resource.RLIMIT_AS)[0]
    return None if limit == resource.RLIM_INFINITY else limit


def child_processes() -> list[int]:
    """Return the numbers of the processes that this one has started."""
    tasks = Path("/proc/self/task")
    if tasks.is_dir():
        numbers: list[int] = []
        for task in tasks.glob("*/children"):
            with contextlib.suppress(OSError):
                numbers += map(int, task.read_text().split())
        return numbers
    return [child.pid for child in _psutil().Process().children()]


def pid_namespace() -> int | None:
    """Return the number of the container whose process numbers these are; None without any."""
    try:
        return Path("/proc/self/ns/pid").stat().st_ino
    except OSError:
        return None


def kill(process: int) -> None:
    """End a process at once.

    Raises:
        OSError: it has ended, or belongs to another user.
    """
    # Windows has no SIGKILL: there SIGTERM ends a process at once.
    os.kill(process, getattr(signal, "SIGKILL", signal.SIGTERM))


def after_fork(
    *,
    in_child: Callable[[], object],
    before: Callable[[], object] | None = None,
    in_parent: Callable[[], object] | None = None,
) -> None:
    """Call functions whenever this process forks; no effect on systems that cannot fork."""
    if not hasattr(os, "register_at_fork"):
        return
    hooks = {"before": before, "after_in_parent": in_parent, "after_in_child": in_child}
    os.register_at_fork(**{name: hook for name, hook in hooks.items() if hook is not None})


def block_signals() -> None:
    """Block :data:`ENDING_SIGNALS` in this thread, if the system can."""
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_BLOCK, ENDING_SIGNALS)


def unblock_signals() -> None:
    """Unblock :data:`ENDING_SIGNALS`."""
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING_SIGNALS)


def run_when_idle() -> None:
    """Let this process run only when no other wants the processors, as far as the system can.

    On Linux this is the policy SCHED_IDLE for every thread that exists; later threads inherit it.
    Elsewhere it is the lowest priority.
    """
    if sys.platform == "linux":
        for thread in Path("/proc/self/task").iterdir():
            with contextlib.suppress(OSError):  # it has ended, or the policy is not allowed
                os.sched_setscheduler(int(thread.name), os.SCHED_IDLE, os.sched_param(0))
    elif sys.platform == "win32":
        _psutil().Process().nice(_psutil().IDLE_PRIORITY_CLASS)
    else:
        os.nice(19)


def limit_this_process(*, memory_bytes: int, processor_s: int) -> None:
    """Limit this process until its end: memory, processor time, no writing to files, no core file.

    Args:
        memory_bytes: largest address space.
        processor_s: largest time on all processors together, seconds.

    Raises:
        RuntimeUnavailable: the system cannot do this, so no untrusted file may run in this process.
    """
    if resource is None:
        raise RuntimeUnavailable("setrlimit", "is not on this operating system")
    for limit, value in (
        (resource.RLIMIT_AS, memory_bytes),
        (resource.RLIMIT_CPU, processor_s),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        try:
            resource.setrlimit(limit, (value, value))
        except (OSError, ValueError) as error:
            raise RuntimeUnavailable("setrlimit", f"fails: {error}") from error


def _psutil() -> ModuleType:
    """Import psutil, which is installed with the library on all systems except Linux."""
    import psutil

    module: ModuleType = psutil
    return module
