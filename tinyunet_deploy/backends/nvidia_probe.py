"""What of NVIDIA's is on this machine: driver, GPU, TensorRT, and which one ONNX Runtime wants.

Nothing of NVIDIA's raises when the driver is missing: TensorRT hands out null objects, and the
next call on one kills the process. So the driver is asked for here, first.
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

from tinyunet_deploy.errors import RuntimeUnavailable

FLAVOURS: Final = ("tensorrt", "tensorrt_rtx")
"""Modules with TensorRT's interface, the preferred one first."""
HINT: Final = "pip install 'tinyunet-deploy[gpu]'"

_CAPABILITY_MAJOR, _CAPABILITY_MINOR = 75, 76
"""CUdevice_attribute numbers; the driver's interface keeps them for ever."""


class GPU(NamedTuple):
    """One GPU, as a plan's sidecar names it."""

    name: str
    compute_capability: str
    """Such as ``8.6``."""


class TensorRT(NamedTuple):
    """One TensorRT that can be imported."""

    flavour: str
    """One of :data:`FLAVOURS`."""
    version: str
    """As the module says it, such as ``11.4.0.106``."""
    module: Any


class GPUClocks(NamedTuple):
    """A GPU's clocks at one moment, and what holds them back."""

    sm_mhz: int
    memory_mhz: int
    temperature_c: int
    power_w: float
    throttle_reasons: tuple[str, ...]
    """Such as ``SwPowerCap``, after NVML's names; empty where nothing does."""


def driver() -> ctypes.CDLL:
    """The driver's library, initialised.

    Raises:
        RuntimeUnavailable: there is none, or it finds no GPU.
    """
    try:
        library = ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        raise RuntimeUnavailable(
            "libcuda.so.1",
            "no NVIDIA driver is installed here",
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
    """The GPUs this process may use, in the order of their index.

    Raises:
        RuntimeUnavailable: there is no driver, or it finds no GPU.
    """
    library = driver()
    count = ctypes.c_int()
    library.cuDeviceGetCount(ctypes.byref(count))
    found = []
    for index in range(count.value):
        device, major, minor = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
        name = ctypes.create_string_buffer(256)
        library.cuDeviceGet(ctypes.byref(device), index)
        library.cuDeviceGetName(name, len(name), device)
        library.cuDeviceGetAttribute(ctypes.byref(major), _CAPABILITY_MAJOR, device)
        library.cuDeviceGetAttribute(ctypes.byref(minor), _CAPABILITY_MINOR, device)
        found.append(GPU(name.value.decode(), f"{major.value}.{minor.value}"))
    return found


def gpu(index: int) -> GPU:
    """One GPU by its index.

    Raises:
        RuntimeUnavailable: it is not here.
    """
    found = gpus()
    if index >= len(found):
        raise RuntimeUnavailable(f"cuda:{index}", f"is not among the {len(found)} GPUs here")
    return found[index]


def clocks(index: int) -> GPUClocks | None:
    """Clocks of a GPU by its index, through nvidia-ml-py; None where that cannot be.

    NVML counts the GPUs of the machine, CUDA those of this process: the bus address says which.
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


def _reasons(pynvml: Any, mask: int) -> tuple[str, ...]:
    prefix = "nvmlClocksEventReason"
    values = {name: getattr(pynvml, name) for name in dir(pynvml) if name.startswith(prefix)}
    return tuple(
        name.removeprefix(prefix)
        for name, value in sorted(values.items(), key=lambda item: item[1])
        if value & mask and name not in (f"{prefix}All", f"{prefix}None")
    )


def gpu_index(device: str) -> int:
    """``cuda`` or ``cuda:N`` -> N.

    Raises:
        RuntimeUnavailable: another device.
    """
    match = re.fullmatch(r"cuda(?::([0-9]+))?", device)
    if match is None:
        raise RuntimeUnavailable(device, "is no NVIDIA GPU", "use --device cuda:0")
    return int(match[1] or 0)


def tensorrt(flavour: str | None = None) -> TensorRT:
    """Import TensorRT. Nothing of it is constructed, so this needs no driver.

    Args:
        flavour: one of :data:`FLAVOURS`; None takes the first that is installed.

    Raises:
        RuntimeUnavailable: not installed, or its libraries are not found.
    """
    wanted = flavour or next((name for name in FLAVOURS if _installed(name)), FLAVOURS[0])
    if not _installed(wanted):
        raise RuntimeUnavailable(wanted, "is not installed", HINT)
    try:
        module: ModuleType = importlib.import_module(wanted)
    except (ImportError, OSError) as error:
        raise RuntimeUnavailable(wanted, f"cannot be imported: {error}", HINT) from error
    return TensorRT(wanted, str(module.__version__), module)


def logger(trt: Any) -> Any:
    """A TensorRT logger that keeps the texts of errors in its list ``errors``, and prints nothing.

    TensorRT's calls answer with null or false; what was wrong goes to the logger only.
    """

    class Logger(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.Severity.INTERNAL_ERROR, trt.ILogger.Severity.ERROR):
                self.errors.append(message.strip())

        def reason(self) -> str:
            """The first error since the last call: those that follow are its consequences."""
            first = self.errors[0] if self.errors else "it gives no reason"
            self.errors.clear()
            return first

    return Logger()


def release(version: str) -> str:
    """``11.4.0.106`` -> ``11.4.0``: plans of one release run on another build of it."""
    return ".".join(version.split(".")[:3])


def why_no_tensorrt() -> str | None:
    """Why a plan cannot run on this machine, and what to do; None if it can."""
    if not any(map(_installed, FLAVOURS)):
        return f"tensorrt is not installed: {HINT}"
    if not _installed("pycuda"):
        return f"pycuda is not installed: {HINT}"
    return _why_no_driver()


def why_no_onnxruntime_tensorrt() -> str | None:
    """Why ONNX Runtime cannot run TensorRT here, and what to do; None if it can, by all we see."""
    if not _installed("onnxruntime"):
        return f"onnxruntime is not installed: {HINT}"
    major = onnxruntime_tensorrt()
    if major is None:
        return f"this onnxruntime has no TensorRT provider: pip uninstall onnxruntime; {HINT}"
    return _why_no_driver()


def onnxruntime_tensorrt() -> int | None:
    """Major version of the TensorRT that the installed ONNX Runtime's provider links.

    Read from the provider's shared object, which is not loaded: without its libraries it could
    not be. None if this ONNX Runtime has no such provider.
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
    except ValueError:  # a module without a spec, put there by hand
        return True


def _why_no_driver() -> str | None:
    try:
        driver()
    except RuntimeUnavailable as error:
        return f"{error.what}" + (f": {error.hint}" if error.hint else "")
    return None
