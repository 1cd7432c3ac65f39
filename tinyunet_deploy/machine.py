"""What a measurement must say of the machine it was made on."""

from __future__ import annotations

import contextlib
import os
import platform
import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from tinyunet_deploy import __version__, nvidia
from tinyunet_deploy.backends import processor_count
from tinyunet_deploy.timing import Clocks


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


def read_clocks(device: str) -> Clocks:
    """Clocks and throttling of the processors, and of the GPU if ``device`` is one, now."""
    mine = os.sched_getaffinity(0)
    counts = []
    for number in mine:
        counter = f"/sys/devices/system/cpu/cpu{number}/thermal_throttle/core_throttle_count"
        with contextlib.suppress(OSError, ValueError):
            counts.append(int(Path(counter).read_text()))
    gpu = None if device == "cpu" else nvidia.clocks(nvidia.gpu_index(device))
    return Clocks(
        cpu_mhz=_processor_mhz(mine),
        cpu_throttle_count=sum(counts) if counts else None,
        gpu_sm_mhz=gpu and gpu.sm_mhz,
        gpu_memory_mhz=gpu and gpu.memory_mhz,
        gpu_temperature_c=gpu and gpu.temperature_c,
        gpu_power_w=gpu and gpu.power_w,
        gpu_throttle_reasons=gpu and gpu.throttle_reasons,
    )


def _processor_mhz(numbers: set[int]) -> tuple[float, ...]:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return ()
    found = re.findall(r"^processor\s*:\s*(\d+)$.*?^cpu MHz\s*:\s*([0-9.]+)$", text, re.M | re.S)
    return tuple(float(mhz) for number, mhz in found if int(number) in numbers)


def _processor_name() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor() or platform.machine()
    name = re.search(r"model name\s*:\s*(.+)", text)
    wide = [flag for flag in ("avx512_vnni", "avx512_bf16", "amx_int8") if flag in text]
    return " ".join([name[1] if name else platform.machine(), *wide])
