"""Facts of the machine: processors, memory, system and the versions that results depend on.

Nothing else in the library counts processors or reads ``/proc/cpuinfo``.
"""

from __future__ import annotations

import contextlib
import os
import platform
import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from tinyunet_deploy import __version__

__all__ = [
    "describe_machine",
    "processor_count",
    "processor_mhz",
    "processor_throttle_count",
    "processors",
]


def describe_machine() -> dict[str, Any]:
    """Return the processor, memory, system and versions that every result records."""
    pages, page = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    return {
        "processor": _processor_name(),
        "processors": processor_count(),
        "memory_gib": round(pages * page / 2**30, 1),
        "system": platform.platform(),
        "tinyunet_deploy": __version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "opencv": cv2.__version__,
    }


def processors() -> tuple[int, ...]:
    """Return the numbers of the processors that this process may use, in ascending order."""
    return tuple(sorted(os.sched_getaffinity(0)))


def processor_count() -> int:
    """Return how many processors this process may use."""
    return len(processors())


def processor_mhz() -> tuple[float, ...]:
    """Return the present clock rate of each of :func:`processors`, MHz.

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


def _processor_name() -> str:
    """Return the model name and the instruction sets that int8 and bfloat16 speed depend on."""
    text = _cpuinfo()
    if not text:
        return platform.processor() or platform.machine()
    name = re.search(r"model name\s*:\s*(.+)", text)
    instructions = [flag for flag in ("avx512_vnni", "avx512_bf16", "amx_int8") if flag in text]
    return " ".join([name[1] if name else platform.machine(), *instructions])


def _cpuinfo() -> str:
    """Return the text of ``/proc/cpuinfo``; empty if it cannot be read."""
    try:
        return Path("/proc/cpuinfo").read_text()
    except OSError:
        return ""
