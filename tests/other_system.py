"""Run commands as on another operating system: what it lacks is taken out of this interpreter.

``python tests/other_system.py windows|macos`` reads a JSON list of commands, each a list of words
for ``tinyunet``, from stdin, runs them one after the other, and prints their exit codes. A command
``["python", CODE]`` is executed.
"""

from __future__ import annotations

import importlib.abc
import json
import os
import shutil
import signal
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Literal

SIGNALS = ("SIGHUP", "SIGKILL", "SIGPIPE", "SIGUSR1", "SIGUSR2", "SIGALRM", "SIGQUIT")
MISSING = {
    "windows": {
        "modules": ("fcntl", "resource", "termios", "pwd", "grp", "syslog"),
        "os": (
            *("O_NONBLOCK", "O_NOFOLLOW", "O_DIRECTORY", "O_CLOEXEC", "register_at_fork", "fork"),
            *("sched_getaffinity", "sched_setaffinity", "sysconf", "sysconf_names", "getuid"),
            *("geteuid", "mkfifo", "killpg", "setsid", "statvfs", "getloadavg"),
        ),
        "signal": (*SIGNALS, "pthread_sigmask", "pthread_kill", "setitimer"),
    },
    "macos": {"modules": (), "os": ("sched_getaffinity", "sched_setaffinity"), "signal": ()},
}


class _Refusal(importlib.abc.MetaPathFinder):
    """Finds none of the modules that the system lacks."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = names

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name in self._names:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return None


def become(system: Literal["windows", "macos"]) -> None:
    """Take out of this process what the system lacks."""
    import psutil  # noqa: F401  its build for Linux needs what its other builds do without

    missing = MISSING[system]
    for name in missing["modules"]:
        sys.modules.pop(name, None)
    sys.meta_path.insert(0, _Refusal(missing["modules"]))
    for module in (os, signal):
        for name in missing[module.__name__]:
            if hasattr(module, name):
                delattr(module, name)
    if system == "windows":
        sys.modules["torch"] = None  # type: ignore[assignment]  # its Linux build asks for fork
        shutil._use_fd_functions = False  # type: ignore[attr-defined]
        signal.Signals._member_map_ = {  # type: ignore[misc]
            name: member
            for name, member in signal.Signals._member_map_.items()
            if name not in SIGNALS
        }
        _refuse_opened_folders()
    else:
        _refuse_memory_limits()
    _hide_proc()


def _refuse_opened_folders() -> None:
    real = os.open

    def opened(path: str, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        if Path(path).is_dir():
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, flags, mode)

    os.open = opened


def _refuse_memory_limits() -> None:
    import resource

    real = resource.setrlimit

    def setrlimit(kind: int, limits: tuple[int, int]) -> None:
        if kind == resource.RLIMIT_AS:
            raise ValueError("current limit exceeds maximum limit")
        real(kind, limits)

    resource.setrlimit = setrlimit


def _hide_proc() -> None:
    real = Path.stat

    def stat(path: Path, *, follow_symlinks: bool = True) -> os.stat_result:
        if str(path).startswith(("/proc/", "/sys/")):
            raise FileNotFoundError(2, "No such file or directory", str(path))
        return real(path, follow_symlinks=follow_symlinks)

    Path.stat = stat  # type: ignore[method-assign]
    text = Path.read_text

    def read_text(path: Path, *args: str | None, **options: str | None) -> str:
        if str(path).startswith(("/proc/", "/sys/")):
            raise FileNotFoundError(2, "No such file or directory", str(path))
        return text(path, *args, **options)

    Path.read_text = read_text  # type: ignore[assignment,method-assign]
    Path.is_dir = (  # type: ignore[method-assign]
        lambda path, **_: os.path.isdir(path) and not str(path).startswith(("/proc/", "/sys/"))  # noqa: PTH112
    )


def main() -> None:
    """Run the commands."""
    become(sys.argv[1])  # type: ignore[arg-type]
    from tinyunet_deploy.cli import run, tinyunet

    codes = []
    for words in json.load(sys.stdin):
        print("$", *words, file=sys.stderr)
        if words[0] == "python":
            exec(words[1], {})
            codes.append(0)
        else:
            codes.append(run(tinyunet, words))
    print(json.dumps(codes))


if __name__ == "__main__":
    main()
