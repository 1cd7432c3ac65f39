"""The fake GPU is as unforgiving as a real one, or the tests that stand on it prove nothing."""

import ctypes
import importlib.metadata
import sys
import threading
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from tinyunet_deploy.backends import cuda_device as device_module
from tinyunet_deploy.backends import nvidia_probe
from tinyunet_deploy.backends.cuda_device import PyCUDADevice
from tinyunet_deploy.errors import RuntimeUnavailable
from tinyunet_deploy.testing.fake_cuda import FakeDevice


def ones(device: FakeDevice) -> np.ndarray:
    array = device.pinned((1, 1, 4, 4))
    array[:] = 1
    return array


def test_work_happens_at_the_latest_when_it_is_waited_for() -> None:
    device = FakeDevice()
    with device.current():
        stream, memory, host = device.stream(), device.allocate(16), ones(device)
        device.upload(host, memory, stream)
        host[:] = 2  # too early: the copy has not happened
        stream.synchronize()
        assert (device.bytes_at(int(memory)) == 2).all()


def test_a_stream_waits_for_an_event_of_another() -> None:
    device = FakeDevice()
    with device.current():
        first, second, memory = device.stream(), device.stream(), device.allocate(16)
        there, back = ones(device), device.pinned((1, 1, 4, 4))
        uploaded = device.event()
        device.upload(there, memory, first)
        uploaded.record(first)
        second.wait_for_event(uploaded)
        device.download(memory, back, second)
        second.synchronize()
        assert (back == 1).all()


def test_the_context_must_be_current_on_this_thread() -> None:
    device = FakeDevice()
    errors = []

    def allocate() -> None:
        try:
            device.allocate(1)
        except RuntimeUnavailable as error:
            errors.append(error)

    with device.current():
        thread = threading.Thread(target=allocate)
        thread.start()
        thread.join()
    assert "invalid device context" in str(errors[0])


def test_freed_memory_cannot_be_used_and_leaks_are_seen() -> None:
    device = FakeDevice(memory=16)
    with device.current():
        memory, stream, host = device.allocate(16), device.stream(), ones(device)
        with pytest.raises(RuntimeUnavailable, match="out of memory"):
            device.allocate(1)
        device.upload(host, memory, stream)
        del memory
        with pytest.raises(RuntimeUnavailable, match="illegal memory access"):
            stream.synchronize()
    with pytest.raises(RuntimeUnavailable, match="outlive the context"):
        device.close()


def test_a_graph_repeats_what_was_captured() -> None:
    device = FakeDevice()
    with device.current():
        stream, memory, host = device.stream(), device.allocate(16), ones(device)

        def enqueue() -> bool:
            device.upload(host, memory, stream)
            return True

        graph = device.capture(stream, enqueue)
        stream.synchronize()
        assert (device.bytes_at(int(memory)) != 1).all(), "capturing must not run"
        assert graph is not None
        graph.launch()
        stream.synchronize()
        assert (device.bytes_at(int(memory)) == 1).all()
        assert device.capture(stream, lambda: False) is None


class Driver:
    """cuda-python's driver bindings, as far as capturing needs them."""

    CUresult = SimpleNamespace(CUDA_SUCCESS=0)
    CUstreamCaptureMode = SimpleNamespace(CU_STREAM_CAPTURE_MODE_THREAD_LOCAL=1)

    def __init__(self, **statuses: int) -> None:
        self.statuses = statuses
        self.calls: list[str] = []

    def _call(self, name: str) -> int:
        self.calls.append(name)
        return self.statuses.get(name, 0)

    def cuStreamBeginCapture(self, stream: int, mode: int) -> tuple[int]:  # noqa: N802
        return (self._call("begin"),)

    def cuStreamEndCapture(self, stream: int) -> tuple[int, str]:  # noqa: N802
        return self._call("end"), "graph"

    def cuGraphInstantiate(self, graph: str, flags: int) -> tuple[int, str]:  # noqa: N802
        return self._call("instantiate"), "executable"

    def cuGraphLaunch(self, executable: str, stream: int) -> tuple[SimpleNamespace | int]:  # noqa: N802
        failed = self._call("launch")
        return (SimpleNamespace(name="CUDA_ERROR_UNKNOWN") if failed else 0,)

    def cuGraphDestroy(self, graph: str) -> None:  # noqa: N802
        self._call("destroy")

    def cuGraphExecDestroy(self, executable: str) -> None:  # noqa: N802
        self._call("destroy executable")


def test_capturing_through_cuda_python_frees_what_it_makes() -> None:
    driver = Driver()
    graph = device_module._capture(driver, SimpleNamespace(handle=7), lambda: True)
    assert graph is not None
    graph.launch()
    del graph
    assert driver.calls == [
        "begin",
        "end",
        "instantiate",
        "destroy",
        "launch",
        "destroy executable",
    ]


@pytest.mark.parametrize("failing", ["begin", "end", "instantiate"])
def test_a_capture_that_fails_gives_no_graph(failing: str) -> None:
    driver = Driver(**{failing: 1})
    assert device_module._capture(driver, SimpleNamespace(handle=7), lambda: True) is None
    assert ("destroy" in driver.calls) == (failing == "instantiate")


def test_a_capture_is_ended_whatever_happens_in_it() -> None:
    driver = Driver()
    assert device_module._capture(driver, SimpleNamespace(handle=7), lambda: False) is None

    def fail() -> bool:
        raise RuntimeError

    with pytest.raises(RuntimeError):
        device_module._capture(driver, SimpleNamespace(handle=7), fail)
    assert driver.calls == ["begin", "end", "destroy", "begin", "end"]


def test_a_graph_that_does_not_launch_is_an_error() -> None:
    graph = device_module._capture(Driver(launch=1), SimpleNamespace(handle=7), lambda: True)
    assert graph is not None
    with pytest.raises(RuntimeUnavailable, match="CUDA_ERROR_UNKNOWN"):
        graph.launch()


def test_the_names_of_cuda_python_exist() -> None:
    driver = pytest.importorskip("cuda.bindings.driver", reason="cuda-bindings is not installed")
    names = [name for name in vars(Driver) if name.startswith(("cu", "CU"))]
    assert [name for name in names if not hasattr(driver, name)] == []
    assert hasattr(driver.CUresult, "CUDA_SUCCESS")
    assert hasattr(driver.CUstreamCaptureMode, "CU_STREAM_CAPTURE_MODE_THREAD_LOCAL")


class CUDA:
    """libcuda.so.1, as far as asking for GPUs needs it."""

    def __init__(self, status: int = 0) -> None:
        self.status = status

    def cuInit(self, flags: int) -> int:  # noqa: N802
        return self.status

    def cuGetErrorName(self, status: int, name: ctypes.c_char_p) -> None:  # noqa: N802
        name._obj.value = b"CUDA_ERROR_NO_DEVICE"  # type: ignore[attr-defined]

    def cuDeviceGetCount(self, count: ctypes.c_int) -> None:  # noqa: N802
        count._obj.value = 2  # type: ignore[attr-defined]

    def cuDeviceGet(self, device: ctypes.c_int, index: int) -> None:  # noqa: N802
        device._obj.value = index  # type: ignore[attr-defined]

    def cuDeviceGetName(self, name: ctypes.Array[ctypes.c_char], size: int, device: object) -> None:  # noqa: N802
        name.value = b"Fake GPU"

    def cuDeviceGetAttribute(self, value: ctypes.c_int, what: int, device: object) -> None:  # noqa: N802
        value._obj.value = {75: 8, 76: 6}[what]  # type: ignore[attr-defined]


def test_gpus_are_read_from_the_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda name: CUDA())
    assert nvidia_probe.gpus() == [nvidia_probe.GPU("Fake GPU", "8.6")] * 2
    with pytest.raises(RuntimeUnavailable, match="cuda:2: is not one of the 2 visible GPUs"):
        nvidia_probe.gpu(2)


def test_a_driver_that_does_not_start_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda name: CUDA(100))
    with pytest.raises(RuntimeUnavailable, match="CUDA_ERROR_NO_DEVICE"):
        nvidia_probe.gpus()


@pytest.mark.parametrize(("device", "index"), [("cuda", 0), ("cuda:0", 0), ("cuda:12", 12)])
def test_devices_by_name(device: str, index: int) -> None:
    assert nvidia_probe.gpu_index(device) == index


@pytest.mark.parametrize("device", ["cpu", "cuda:", "cuda:-1", "gpu:0", "cuda:0 "])
def test_other_devices_are_refused(device: str) -> None:
    with pytest.raises(RuntimeUnavailable, match="is not an NVIDIA GPU"):
        nvidia_probe.gpu_index(device)


class PyCUDA(ModuleType):
    """pycuda.driver, as far as its context is concerned."""

    class Error(Exception):
        pass

    def __init__(self) -> None:
        super().__init__("pycuda.driver")
        self.calls: list[str] = []
        context = SimpleNamespace(push=lambda: self.calls.append("push"))
        self.Context = SimpleNamespace(pop=lambda: self.calls.append("pop"))
        self.Device = lambda index: SimpleNamespace(retain_primary_context=lambda: context)

    def init(self) -> None:
        self.calls.append("init")

    def mem_alloc(self, size: int) -> int:
        self.calls.append("allocate")
        raise self.Error("cuMemAlloc failed: out of memory")


@pytest.fixture
def pycuda(monkeypatch: pytest.MonkeyPatch) -> PyCUDA:
    driver = PyCUDA()
    package = ModuleType("pycuda")
    package.driver = driver  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pycuda", package)
    monkeypatch.setitem(sys.modules, "pycuda.driver", driver)
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "2026.1")
    monkeypatch.setattr(ctypes, "CDLL", lambda name: CUDA())
    return driver


def test_pycuda_shares_the_primary_context_and_pops_it_after_each_use(pycuda: PyCUDA) -> None:
    devices = [PyCUDADevice(0), PyCUDADevice(0)]
    for device in devices:
        with device.current():
            pass
    assert pycuda.calls == ["init", "push", "pop", "push", "pop"]
    assert devices[0].gpu == nvidia_probe.GPU("Fake GPU", "8.6")


def test_pycudas_errors_become_ours_and_the_context_is_popped(pycuda: PyCUDA) -> None:
    device = PyCUDADevice(0)
    with pytest.raises(RuntimeUnavailable, match="Fake GPU: cuMemAlloc failed"), device.current():
        device.allocate(1)
    assert pycuda.calls[-3:] == ["push", "allocate", "pop"]


def test_pycuda_that_is_broken_is_one_line(pycuda: PyCUDA, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pycuda.driver", None)
    monkeypatch.delattr(sys.modules["pycuda"], "driver")
    with pytest.raises(RuntimeUnavailable, match="pycuda: cannot be imported"):
        PyCUDADevice(0)
