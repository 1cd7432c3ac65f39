"""Facts of the machine: processors, memory, system and the versions that results depend on."""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from tinyunet_deploy import __version__


def describe_machine() -> dict[str, Any]:
    """Processor, memory, system and the versions that every result depends on."""
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


def _processor_name() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor() or platform.machine()
    name = re.search(r"model name\s*:\s*(.+)", text)
    wide = [flag for flag in ("avx512_vnni", "avx512_bf16", "amx_int8") if flag in text]
    return " ".join([name[1] if name else platform.machine(), *wide])


def processor_count() -> int:
    """Processors this process may use."""
    return len(os.sched_getaffinity(0))
