"""Facts of the machine: processors, memory, system and the versions that results depend on.

Nothing else in the library counts processors or reads ``/proc/cpuinfo``.
"""

from __future__ import annotations

import contextlib
import functools
import math
import platform
import re
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from tinyunet_deploy import __version__, systems

__all__ = [
    "ContainerLimits",
    "container_limits",
    "describe_machine",
    "memory_bytes",
    "processor_count",
    "processor_flags",
    "processor_mhz",
    "processor_name",
    "processor_throttle_count",
    "processors",
]


def describe_machine() -> dict[str, Any]:
    """Return the processor, memory, system and versions that every result records."""
    return {
        "processor": processor_name(),
        "processors": processor_count(),
        "memory_gib": round(memory_bytes() / 2**30, 1),
        "system": platform.platform(),
        "tinyunet_deploy": __version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "opencv": cv2.__version__,
    }


def processors() -> tuple[int, ...]:
    """Return the numbers of the processors that this process may use, in ascending order."""
    return systems.allowed_processors()


def processor_count() -> int:
    """Return how many processors this process may use, at least 1.

    This is the number of :func:`processors`, or the CPU quota of a container if that is less,
    rounded up.
    """
    return math.ceil(min(len(processors()), container_limits().processors))


def memory_bytes() -> int:
    """Return the memory that this process may use: the machine's, or the limit of a container."""
    installed = systems.installed_memory_bytes()
    return min(installed, container_limits().memory_bytes or installed)


class ContainerLimits(NamedTuple):
    """Limits of a process's control group."""

    processors: float
    """Number of processors, a fraction possible; infinite without a quota."""
    memory_bytes: int | None
    """Largest memory, bytes; None without a limit."""


@functools.cache
def container_limits(root: Path = Path("/")) -> ContainerLimits:
    """Read the limits of this process's control group (cgroup v2) and of the groups around it.

    Args:
        root: where ``proc`` and ``sys`` are.
    """
    processors, memory = math.inf, None
    for group in _control_groups(root):
        with contextlib.suppress(OSError, ValueError, ZeroDivisionError):
            quota, period = (group / "cpu.max").read_text().split()
            if quota != "max":
                processors = min(processors, int(quota) / int(period))
        with contextlib.suppress(OSError, ValueError):
            limit = (group / "memory.max").read_text().strip()
            if limit != "max":
                memory = min(int(limit), memory or int(limit))
    return ContainerLimits(processors, memory)


def _control_groups(root: Path) -> list[Path]:
    """Return the folders of this process's group and of those around it."""
    try:
        text = (root / "proc/self/cgroup").read_text()
    except (OSError, ValueError):
        return []
    own = re.search(r"^0::/(.*)$", text, re.M)
    if own is None:
        return []
    mount = root / "sys/fs/cgroup"
    parts = [part for part in own[1].split("/") if part not in ("", "..")]
    return [mount.joinpath(*parts[:count]) for count in range(len(parts) + 1)]


def processor_mhz() -> tuple[float, ...]:
    """Return the current clock rate of each of :func:`processors`, MHz.

    Empty if the system does not report it.
    """
    text = _cpuinfo()
    rates = re.findall(r"^processor\s*:\s*(\d+)$.*?^cpu MHz\s*:\s*([0-9.]+)$", text, re.M | re.S)
    usable = processors()
    return tuple(float(mhz) for number, mhz in rates if int(number) in usable)


def processor_throttle_count() -> int | None:
    """Return how often :func:`processors` were throttled for heat since the system started.

    None if the system does not report it.
    """
    counts = []
    for number in processors():
        counter = f"/sys/devices/system/cpu/cpu{number}/thermal_throttle/core_throttle_count"
        with contextlib.suppress(OSError, ValueError):
            counts.append(int(Path(counter).read_text()))
    return sum(counts) if counts else None


def processor_name() -> str:
    """Return the model name and the instruction sets that int8 and bfloat16 speed depend on."""
    text = _cpuinfo()
    if not text:
        return platform.processor() or platform.machine()
    name = re.search(r"model name\s*:\s*(.+)", text)
    instructions = [flag for flag in ("avx512_vnni", "avx512_bf16", "amx_int8") if flag in text]
    return " ".join([name[1] if name else platform.machine(), *instructions])


def processor_flags() -> frozenset[str] | None:
    """Return the instruction sets of the processor, named as in ``/proc/cpuinfo``, such as
    ``avx512_bf16``; None if the system does not report them."""
    flags = re.search(r"^(?:flags|Features)\s*:\s*(.+)$", _cpuinfo(), re.M)
    return None if flags is None else frozenset(flags[1].split())


def _cpuinfo() -> str:
    """Return the text of ``/proc/cpuinfo``; empty if it cannot be read."""
    try:
        return Path("/proc/cpuinfo").read_text()
    except OSError:
        return ""
