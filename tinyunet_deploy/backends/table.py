"""Table of backends: a row for each, and how to find one.

Other packages add rows through the entry-point group :data:`GROUP`. Importing this module
imports no runtime and no array library, so that the command line can name the backends at once.
"""

from __future__ import annotations

import importlib.metadata
from typing import TYPE_CHECKING, Final

from tinyunet_deploy.backends.device_name import device_type
from tinyunet_deploy.backends.row import (
    COMPUTES,
    BackendChoice,
    BackendRow,
    Compute,
    missing_package,
)
from tinyunet_deploy.errors import RefusedError

if TYPE_CHECKING:
    from tinyunet_deploy.artifacts.sidecar import Kind

__all__ = [
    "BACKENDS",
    "COMPUTES",
    "GROUP",
    "BackendChoice",
    "BackendRow",
    "Compute",
    "backend_names",
    "backend_rows",
    "default_device",
    "find_row",
    "rows_for",
    "why_not",
]

_INSTRUCTIONS: Final[dict[Compute, frozenset[str]]] = {
    "bf16": frozenset({"avx512_bf16", "amx_bf16"}),
    "fp16": frozenset({"avx512_fp16", "amx_fp16", "asimdhp"}),
}
"""Number type -> names in ``/proc/cpuinfo`` of the instruction sets that compute in it; one is
enough."""

GROUP: Final = "tinyunet_deploy.backends"
"""Entry-point group in which another package names its rows: ``NAME = "module:ROW"``."""


def _no_instructions(row: BackendRow) -> str | None:
    """Return why the processor does not compute in a row's number type.

    Where the system does not say what the processor can do, the runtime is asked when it loads."""
    from tinyunet_deploy.host import processor_flags

    flags = processor_flags()
    if row.compute is None or flags is None or flags & _INSTRUCTIONS[row.compute]:
        return missing_package(row)
    names = " or ".join(sorted(_INSTRUCTIONS[row.compute]))
    return f"this processor does not compute in {row.compute}: it has no {names}"


def _two_onnxruntimes(row: BackendRow) -> str | None:
    if all(map(_has_distribution, row.distributions)):
        return (
            f"{' and '.join(row.distributions)} overwrite each other: "
            "pip uninstall both, then install one"
        )
    return missing_package(row)


def _no_tensorrt(_: BackendRow) -> str | None:
    from tinyunet_deploy.backends import nvidia_probe

    return nvidia_probe.why_no_tensorrt()


def _no_gpu(row: BackendRow) -> str | None:
    from tinyunet_deploy.backends import nvidia_probe

    return missing_package(row) or nvidia_probe.why_no_driver()


def _no_onnxruntime_tensorrt(_: BackendRow) -> str | None:
    from tinyunet_deploy.backends import nvidia_probe

    return nvidia_probe.why_no_onnxruntime_tensorrt()


_ROWS: Final = (
    BackendRow(
        name="openvino",
        implementation="tinyunet_deploy.backends.openvino:OpenVINOBackend",
        modules=("openvino",),
        distributions=("openvino",),
        extra="cpu",
        preference=10,
        unasked=True,
        sandbox="openvino",
        title="OpenVINO",
        marker="o",
        dashes="-",
    ),
    BackendRow(
        name="onnxruntime",
        implementation="tinyunet_deploy.backends.onnxruntime:ONNXRuntimeBackend",
        devices=("cpu", "cuda"),
        modules=("onnxruntime",),
        distributions=("onnxruntime", "onnxruntime-gpu"),
        extra="cpu",
        preference=20,
        unasked=True,
        title="ONNX Runtime",
        marker="s",
        dashes="--",
        obstacle=_two_onnxruntimes,
    ),
    BackendRow(
        name="torch",
        implementation="tinyunet_deploy.backends.torch:TorchBackend",
        kinds=("checkpoint",),
        devices=("cpu", "cuda"),
        modules=("torch", "safetensors"),
        distributions=("torch",),
        extra="train",
        preference=30,
        unasked=True,
        title="PyTorch",
        marker="^",
        dashes=":",
    ),
    BackendRow(
        name="tensorrt",
        implementation="tinyunet_deploy.backends.tensorrt:TensorRTBackend",
        kinds=("plan",),
        devices=("cuda",),
        modules=("tensorrt",),
        distributions=("tensorrt", "tensorrt-rtx-cu13", "tensorrt-rtx-cu12"),
        extra="gpu",
        preference=40,
        unasked=True,
        title="TensorRT",
        marker="D",
        dashes="-",
        obstacle=_no_tensorrt,
    ),
    BackendRow(
        name="onnxruntime-tensorrt",
        implementation="tinyunet_deploy.backends.onnxruntime:ONNXRuntimeTensorRTBackend",
        devices=("cuda",),
        modules=("onnxruntime",),
        distributions=("onnxruntime-gpu",),
        extra="gpu",
        preference=50,
        unasked=False,  # its first call builds an engine, which takes minutes
        title="TensorRT in ONNX Runtime",
        marker="P",
        obstacle=_no_onnxruntime_tensorrt,
    ),
    BackendRow(
        name="openvino-bf16",
        implementation="tinyunet_deploy.backends.openvino:OpenVINOBf16Backend",
        modules=("openvino",),
        distributions=("openvino",),
        extra="cpu",
        preference=60,
        unasked=False,  # it rounds the network's numbers, which the user has to want
        sandbox="openvino",
        title="OpenVINO in bfloat16",
        dashes="--",
        compute="bf16",
        runtime="openvino",
        obstacle=_no_instructions,
    ),
    BackendRow(
        name="openvino-fp16",
        implementation="tinyunet_deploy.backends.openvino:OpenVINOFp16Backend",
        modules=("openvino",),
        distributions=("openvino",),
        extra="cpu",
        preference=70,
        unasked=False,  # as bfloat16
        sandbox="openvino",
        title="OpenVINO in half precision",
        marker="v",
        dashes="--",
        compute="fp16",
        runtime="openvino",
        obstacle=_no_instructions,
    ),
    BackendRow(
        name="torch-fp16",
        implementation="tinyunet_deploy.backends.torch:TorchFp16Backend",
        kinds=("checkpoint",),
        devices=("cuda",),
        modules=("torch", "safetensors"),
        distributions=("torch",),
        extra="train",
        preference=80,
        unasked=False,  # as bfloat16
        title="PyTorch in half precision",
        marker="<",
        dashes=":",
        compute="fp16",
        runtime="torch",
        obstacle=_no_gpu,
    ),
    BackendRow(
        name="torch-bf16",
        implementation="tinyunet_deploy.backends.torch:TorchBf16Backend",
        kinds=("checkpoint",),
        devices=("cuda",),
        modules=("torch", "safetensors"),
        distributions=("torch",),
        extra="train",
        preference=90,
        unasked=False,  # as bfloat16
        title="PyTorch in bfloat16",
        marker=">",
        dashes=":",
        compute="bf16",
        runtime="torch",
        obstacle=_no_gpu,
    ),
)

BACKENDS: Final = {row.name: row for row in _ROWS}
"""Name -> row of the backends of this package, the preferred one first."""


def backend_names() -> list[str]:
    """Return the names of all backends, other packages' last, without importing those packages."""
    return list(dict.fromkeys([*BACKENDS, *(entry.name for entry in _entry_points())]))


def backend_rows() -> list[BackendRow]:
    """Return the rows of all backends, the preferred one first.

    A row of another package that cannot be loaded is included; the reason is its obstacle.
    """
    rows = [*BACKENDS.values(), *map(_row_of, _entry_points())]
    return sorted(rows, key=lambda row: row.preference)


def find_row(backend: BackendChoice) -> BackendRow:
    """Return the row of a backend; a class without one gets a row of default values.

    Raises:
        RefusedError: no backend has this name.
    """
    if isinstance(backend, BackendRow):
        return backend
    if not isinstance(backend, str):
        return BackendRow(backend.name, backend)
    if backend in BACKENDS:
        return BACKENDS[backend]
    for entry in _entry_points():
        if entry.name == backend:
            return _row_of(entry)
    raise RefusedError(backend, "is not a backend", f"known: {', '.join(backend_names())}")


def rows_for(
    kind: Kind, device: str | None = None, *, unasked_only: bool = False
) -> list[BackendRow]:
    """Return the backends that run a kind of artifact, installed or not, the preferred one first.

    Args:
        device: return only backends that run on this device, ``cpu`` or ``cuda:N``.
        unasked_only: return only backends that may run when the user names none.

    Raises:
        RuntimeUnavailable: ``device`` is not the name of a device.
    """
    wanted = None if device is None else device_type(device)
    return [
        row
        for row in backend_rows()
        if kind in row.kinds
        and (wanted is None or wanted in row.devices)
        and (row.unasked or not unasked_only)
    ]


def why_not(backend: BackendChoice) -> str | None:
    """Return why a backend cannot run on this machine and what to do; None if it can.

    No runtime is imported.
    """
    row = find_row(backend)
    try:
        return row.obstacle(row)
    except Exception as error:  # another package's code may raise anything
        return f"the check of {row.name} fails: {error!r}"


def default_device(kind: Kind, backend: BackendChoice | None = None) -> str:
    """Return the device on which an artifact is opened if the user names none.

    Args:
        kind: kind of the artifact.
        backend: backend that the user named; None for the kind's preferred one.
    """
    row = find_row(backend) if backend is not None else rows_for(kind, unasked_only=True)[0]
    return "cpu" if row.devices[0] == "cpu" else "cuda:0"


def _entry_points() -> list[importlib.metadata.EntryPoint]:
    """Return the entry points of other packages, without names that are already in the table."""
    entries: dict[str, importlib.metadata.EntryPoint] = {}
    for entry in importlib.metadata.entry_points(group=GROUP):
        if entry.name not in BACKENDS:
            entries.setdefault(entry.name, entry)
    return list(entries.values())


def _row_of(entry: importlib.metadata.EntryPoint) -> BackendRow:
    """Load the row of an entry point; if that fails, return a row that says why."""
    try:
        row = entry.load()
        if not isinstance(row, BackendRow):
            row = BackendRow(row.name, row)
        if row.name != entry.name:
            raise ValueError(f"its row is called {row.name!r}")
    except (Exception, SystemExit) as error:
        reason = f"its entry point {entry.value} cannot be loaded: {error!r}"
        return BackendRow(
            entry.name,
            entry.value,
            kinds=("checkpoint", "onnx", "plan"),
            devices=("cpu", "cuda"),
            obstacle=lambda _: reason,
        )
    return row


def _has_distribution(name: str) -> bool:
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True
