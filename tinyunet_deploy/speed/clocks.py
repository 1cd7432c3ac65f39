"""Clocks of processors and GPU, and whether something holds them back."""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path

from tinyunet_deploy.backends import nvidia_probe
from tinyunet_deploy.speed.benchmark_result import Clocks

__all__ = ["read_clocks"]


def read_clocks(device: str) -> Clocks:
    """Clocks and throttling of the processors, and of the GPU if ``device`` is one, now."""
    mine = os.sched_getaffinity(0)
    counts = []
    for number in mine:
        counter = f"/sys/devices/system/cpu/cpu{number}/thermal_throttle/core_throttle_count"
        with contextlib.suppress(OSError, ValueError):
            counts.append(int(Path(counter).read_text()))
    gpu = None if device == "cpu" else nvidia_probe.clocks(nvidia_probe.gpu_index(device))
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
