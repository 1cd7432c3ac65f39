"""Detect the NVIDIA driver, the GPUs, TensorRT, and the TensorRT that ONNX Runtime links.

Without a driver TensorRT does not raise an error: it returns null objects, and the next call on
one kills the process. Check for the driver with this module first.
"""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
import mmap
import re
from pathlib import Path
from types import ModuleType
from typing import Any, Final, NamedTuple

from tinyunet_deploy.backends.install_hint import install_hint
from tinyunet_deploy.errors import RuntimeUnavailable

FLAVOURS: Final = ("tensorrt", "tensorrt_rtx")
"""Modules with TensorRT's interface, the preferred one first."""

_CAPABILITY_MAJOR, _CAPABILITY_MINOR = 75, 76
"""CUdevice_attribute numbers, which are stable across driver versions."""


class GPU(NamedTuple):
    """One GPU, as a plan's sidecar names it."""

    name: str
    compute_capability: str
    """Compute capability, such as ``8.6``."""


class TensorRT(NamedTuple):
    """An imported TensorRT module."""

    flavour: str
    """One of :data:`FLAVOURS`."""
    version: str
    """The module's version, such as ``11.4.0.106``."""
    module: Any


class GPUClocks(NamedTuple):
    """Clocks of a GPU at one moment, and the reasons why they are throttled."""

    sm_mhz: int
    memory_mhz: int
    temperature_c: int
    power_w: float
    throttle_reasons: tuple[str, ...]
    """NVML's names without their prefix, such as ``SwPowerCap``; empty if not throttled."""
    energy_j: float | None = None
    """Energy since the driver was loaded, joules; None if the GPU does not count it."""


def driver() -> ctypes.CDLL:
    """Return the driver's library, initialised.

    Raises:
        RuntimeUnavailable: no driver is installed, or it finds no GPU.
    """
    try:
        library = ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        raise RuntimeUnavailable(
            "libcuda.so.1",
            "no NVIDIA driver is installed",
            "install the driver; in a container start it with --gpus all",
        ) from error
    status = library.cuInit(0)
    if status:
        name = ctypes.c_char_p()
        library.cuGetErrorName(status, ctypes.byref(name))
        reason = (name.value or b"unknown").decode()
        raise RuntimeUnavailable("libcuda.so.1", f"the NVIDIA driver does not start: {reason}")
    return library


def gpus() -> list[GPU]:
    """Return the GPUs that this process may use, by index.

    Raises:
        RuntimeUnavailable: no driver is installed, or it finds no GPU.
    """
    library = driver()
    count = ctypes.c_int()
    library.cuDeviceGetCount(ctypes.byref(count))
    visible = []
    for index in range(count.value):
        device, major, minor = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
        name = ctypes.create_string_buffer(256)
        library.cuDeviceGet(ctypes.byref(device), index)
        library.cuDeviceGetName(name, len(name), device)
        library.cuDeviceGetAttribute(ctypes.byref(major), _CAPABILITY_MAJOR, device)
        library.cuDeviceGetAttribute(ctypes.byref(minor), _CAPABILITY_MINOR, device)
        visible.append(GPU(name.value.decode(), f"{major.value}.{minor.value}"))
    return visible


def gpu(index: int) -> GPU:
    """Return the GPU of this index.

    Raises:
        RuntimeUnavailable: no driver is installed, or this process sees no such GPU.
    """
    visible = gpus()
    if index >= len(visible):
        raise RuntimeUnavailable(f"cuda:{index}", f"is not one of the {len(visible)} visible GPUs")
    return visible[index]


def clocks(index: int) -> GPUClocks | None:
    """Return the clocks of a GPU by its CUDA index; None without nvidia-ml-py, a driver or the GPU.

    NVML numbers all GPUs of the machine, CUDA only those of this process, so the GPU is looked up
    by its PCI bus address.
    """
    try:
        import pynvml
    except ImportError:
        return None
    try:
        address = _bus_address(index)
        pynvml.nvmlInit()
        try:
            gpu = pynvml.nvmlDeviceGetHandleByPciBusId(address)
            mask = pynvml.nvmlDeviceGetCurrentClocksEventReasons(gpu)
            return GPUClocks(
                pynvml.nvmlDeviceGetClockInfo(gpu, pynvml.NVML_CLOCK_SM),
                pynvml.nvmlDeviceGetClockInfo(gpu, pynvml.NVML_CLOCK_MEM),
                pynvml.nvmlDeviceGetTemperature(gpu, pynvml.NVML_TEMPERATURE_GPU),
                pynvml.nvmlDeviceGetPowerUsage(gpu) / 1e3,
                _reasons(pynvml, mask),
                _energy_j(pynvml, gpu),
            )
        finally:
            pynvml.nvmlShutdown()
    except (RuntimeUnavailable, pynvml.NVMLError):
        return None


def _bus_address(index: int) -> bytes:
    library = driver()
    device, address = ctypes.c_int(), ctypes.create_string_buffer(32)
    library.cuDeviceGet(ctypes.byref(device), index)
    library.cuDeviceGetPCIBusId(address, len(address), device)
    return address.value


def _energy_j(pynvml: Any, gpu: Any) -> float | None:
    try:
        return float(pynvml.nvmlDeviceGetTotalEnergyConsumption(gpu)) / 1e3
    except pynvml.NVMLError:  # GPUs before Volta do not count it
        return None


def _reasons(pynvml: Any, mask: int) -> tuple[str, ...]:
    prefix = "nvmlClocksEventReason"
    values = {name: getattr(pynvml, name) for name in dir(pynvml) if name.startswith(prefix)}
    return tuple(
        name.removeprefix(prefix)
        for name, value in sorted(values.items(), key=lambda item: item[1])
        if value & mask and name not in (f"{prefix}All", f"{prefix}None")
    )


def gpu_index(device: str) -> int:
    """Return N for a device ``cuda:N``, and 0 for ``cuda``.

    Raises:
        RuntimeUnavailable: the device has another form.
    """
    match = re.fullmatch(r"cuda(?::([0-9]+))?", device)
    if match is None:
        raise RuntimeUnavailable(device, "is not an NVIDIA GPU", "use --device cuda:0")
    return int(match[1] or 0)


def tensorrt(flavour: str | None = None) -> TensorRT:
    """Import TensorRT; no object of it is constructed, so no driver is needed.

    Args:
        flavour: one of :data:`FLAVOURS`; None takes the first that is installed.

    Raises:
        RuntimeUnavailable: not installed, or its libraries are not found.
    """
    wanted = flavour or next((name for name in FLAVOURS if _installed(name)), FLAVOURS[0])
    if not _installed(wanted):
        raise RuntimeUnavailable(wanted, "is not installed", install_hint(wanted, "gpu"))
    try:
        module: ModuleType = importlib.import_module(wanted)
    except (ImportError, OSError) as error:
        raise RuntimeUnavailable(
            wanted, f"cannot be imported: {error}", install_hint(wanted, "gpu")
        ) from error
    return TensorRT(wanted, str(module.__version__), module)


def logger(trt: Any) -> Any:
    """Return a TensorRT logger that collects error texts in its list ``errors`` and prints nothing.

    A failed TensorRT call returns null or false; its reason goes to the logger only.
    """

    class Logger(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.Severity.INTERNAL_ERROR, trt.ILogger.Severity.ERROR):
                self.errors.append(message.strip())

        def reason(self) -> str:
            """Return the first error since the last call; later errors are its consequences."""
            first = self.errors[0] if self.errors else "it gives no reason"
            self.errors.clear()
            return first

    return Logger()


def release(version: str) -> str:
    """Return the release of a version, ``11.4.0`` of ``11.4.0.106``.

    A plan runs on every build of the release that built it.
    """
    return ".".join(version.split(".")[:3])


def why_no_tensorrt() -> str | None:
    """Return why a plan cannot run on this machine, and what to do; None if it can."""
    if not any(map(_installed, FLAVOURS)):
        return f"tensorrt is not installed: {install_hint('tensorrt', 'gpu')}"
    if not _installed("pycuda"):
        return f"pycuda is not installed: {install_hint('pycuda', 'gpu')}"
    return why_no_driver()


def why_no_onnxruntime_tensorrt() -> str | None:
    """Return why ONNX Runtime cannot run TensorRT on this machine, and what to do.

    None means that the package, its TensorRT provider and the driver are present.
    """
    if not _installed("onnxruntime"):
        return f"onnxruntime is not installed: {install_hint('onnxruntime', 'gpu')}"
    major = onnxruntime_tensorrt()
    if major is None:
        return f"this onnxruntime has no TensorRT provider: {install_hint('onnxruntime', 'gpu')}"
    return why_no_driver()


def onnxruntime_tensorrt() -> int | None:
    """Return the major version of the TensorRT that the installed ONNX Runtime links.

    It is read from the bytes of the provider's shared object, which cannot be loaded where
    TensorRT's libraries are missing. None if this ONNX Runtime has no TensorRT provider.
    """
    spec = importlib.util.find_spec("onnxruntime")
    if spec is None or spec.origin is None:
        return None
    provider = Path(spec.origin).parent / "capi" / "libonnxruntime_providers_tensorrt.so"
    if not provider.is_file():
        return None
    with provider.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        match = re.search(rb"libnvinfer\.so\.([0-9]+)\0", data)
        return int(match[1]) if match else None


def _installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ValueError:  # a module without a spec, such as a fake
        return True


def why_no_driver() -> str | None:
    """Return why this machine has no NVIDIA driver that works, and what to do; None if it has."""
    try:
        driver()
    except RuntimeUnavailable as error:
        return f"{error.what}" + (f": {error.hint}" if error.hint else "")
    return None
