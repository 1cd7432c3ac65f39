from __future__ import annotations

import ctypes
import sys

import pynvml
import pytest

from tinyunet_deploy.backends import nvidia_probe
from tinyunet_deploy.errors import RuntimeUnavailable
from tinyunet_deploy.host import describe_machine
from tinyunet_deploy.speed.clocks import read_clocks


class Driver:
    """The second of this process's GPUs, which is another one of the machine's."""

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
    """NVIDIA's real Python bindings without their library: only names that they have are set."""
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


def test_gpu_clocks_say_what_holds_them_back(one_gpu: list[str]) -> None:
    found = read_clocks("cuda:1")
    assert (found.gpu_sm_mhz, found.gpu_memory_mhz) == (1410, 1215)
    assert (found.gpu_temperature_c, found.gpu_power_w) == (61, 249.5)
    assert found.gpu_throttle_reasons == ("SwPowerCap", "SwThermalSlowdown")
    assert one_gpu == ["init", b"0000:101:00.0", "shutdown"]


def test_a_gpu_that_is_not_held_back_has_no_reasons(
    one_gpu: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pynvml, "nvmlDeviceGetCurrentClocksEventReasons", lambda _gpu: 0)
    assert read_clocks("cuda:0").gpu_throttle_reasons == ()


def test_no_bindings_or_no_driver_is_no_gpu_clocks(monkeypatch: pytest.MonkeyPatch) -> None:
    def none_here() -> None:
        raise RuntimeUnavailable("libcuda.so.1", "no NVIDIA driver is installed here")

    monkeypatch.setattr(nvidia_probe, "driver", none_here)
    assert read_clocks("cuda:0").gpu_throttle_reasons is None
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert read_clocks("cuda:0").gpu_sm_mhz is None


def test_clocks_of_the_processors_of_this_process() -> None:
    found = read_clocks("cpu")
    assert len(found.cpu_mhz) in (0, describe_machine()["processors"])
    assert all(mhz > 0 for mhz in found.cpu_mhz)
    assert found.gpu_sm_mhz is None
