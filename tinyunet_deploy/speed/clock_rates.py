"""Clock rates of processors and GPU, and whether they are throttled."""

from __future__ import annotations

from tinyunet_deploy.backends import nvidia_probe
from tinyunet_deploy.host import processor_mhz, processor_throttle_count
from tinyunet_deploy.speed.benchmark_result import ClockRates

__all__ = ["read_clock_rates"]


def read_clock_rates(device: str) -> ClockRates:
    """Read the current clock rates and throttling of the processors, and of a GPU.

    Args:
        device: ``cpu``, or ``cuda:N`` to read that GPU as well.
    """
    gpu = None if device == "cpu" else nvidia_probe.clocks(nvidia_probe.gpu_index(device))
    return ClockRates(
        cpu_mhz=processor_mhz(),
        cpu_throttle_count=processor_throttle_count(),
        gpu_sm_mhz=gpu and gpu.sm_mhz,
        gpu_memory_mhz=gpu and gpu.memory_mhz,
        gpu_temperature_c=gpu and gpu.temperature_c,
        gpu_power_w=gpu and gpu.power_w,
        gpu_throttle_reasons=gpu and gpu.throttle_reasons,
        gpu_energy_j=gpu and gpu.energy_j,
    )
