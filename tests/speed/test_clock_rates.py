from __future__ import annotations

import ctypes
import sys

import pynvml
import pytest

from tinyunet_deploy.backends import nvidia_probe
from tinyunet_deploy.errors import RuntimeUnavailable
from tinyunet_deploy.speed import clock_rates
from tinyunet_deploy.speed.clock_rates import read_clock_rates


class Driver:
    """A driver that numbers this process's GPUs otherwise than the machine does."""

    def cuDeviceGet(self, device: object, index: int) -> int:  # noqa: N802
        ctypes.cast(device, ctypes.POINTER(ctypes.c_int))[0] = 100 + index  # type: ignore[arg-type]
        return 0

    def cuDeviceGetPCIBusId(  # noqa: N802
        self, address: ctypes.Array[ctypes.c_char], _size: int, device: ctypes.c_int
    ) -> int:
        address.value = f"0000:{device.value}:00.0".encode()
        return 0


@pytest.fixture
def one_gpu(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """NVIDIA's own Python bindings, their calls into the missing library replaced one by one."""
    called: list[str] = []
    answers = {
        "nvmlInit": lambda: called.append("init"),
        "nvmlShutdown": lambda: called.append("shutdown"),
        "nvmlDeviceGetHandleByPciBusId": lambda address: called.append(address) or "gpu",
        "nvmlDeviceGetClockInfo": lambda _gpu, kind: {
            pynvml.NVML_CLOCK_SM: 1410,
            pynvml.NVML_CLOCK_MEM: 1215,
        }[kind],
        "nvmlDeviceGetTemperature": lambda _gpu, _kind: 61,
        "nvmlDeviceGetPowerUsage": lambda _gpu: 249_500,
        "nvmlDeviceGetCurrentClocksEventReasons": lambda _gpu: (
            pynvml.nvmlClocksEventReasonSwPowerCap | pynvml.nvmlClocksEventReasonSwThermalSlowdown
        ),
    }
    for name, answer in answers.items():
        monkeypatch.setattr(pynvml, name, answer)
    monkeypatch.setattr(nvidia_probe, "driver", Driver)
    return called


def test_gpu_clock_rates_come_with_the_throttle_reasons(one_gpu: list[str]) -> None:
    rates = read_clock_rates("cuda:1")
    assert (rates.gpu_sm_mhz, rates.gpu_memory_mhz) == (1410, 1215)
    assert (rates.gpu_temperature_c, rates.gpu_power_w) == (61, 249.5)
    assert rates.gpu_throttle_reasons == ("SwPowerCap", "SwThermalSlowdown")
    assert one_gpu == ["init", b"0000:101:00.0", "shutdown"]


def test_a_gpu_that_is_not_throttled_has_no_reasons(
    one_gpu: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pynvml, "nvmlDeviceGetCurrentClocksEventReasons", lambda _gpu: 0)
    assert read_clock_rates("cuda:0").gpu_throttle_reasons == ()


def test_without_bindings_or_driver_there_are_no_gpu_clock_rates(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def no_driver() -> None:
        raise RuntimeUnavailable("libcuda.so.1", "no NVIDIA driver is installed")

    monkeypatch.setattr(nvidia_probe, "driver", no_driver)
    assert read_clock_rates("cuda:0").gpu_throttle_reasons is None
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert read_clock_rates("cuda:0").gpu_sm_mhz is None


def test_rates_and_throttling_of_the_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock_rates, "processor_mhz", lambda: (2100.0, 3500.5))
    monkeypatch.setattr(clock_rates, "processor_throttle_count", lambda: 3)
    rates = read_clock_rates("cpu")
    assert (rates.cpu_mhz, rates.cpu_throttle_count) == ((2100.0, 3500.5), 3)
    assert rates.gpu_sm_mhz is None
