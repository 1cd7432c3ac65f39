"""Which backends there are, which one takes an artifact, and opening it there."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
from dataclasses import replace
from pathlib import Path
from typing import Final, NamedTuple

from tinyunet_deploy.artifacts.onnx_guard import check_onnx_file
from tinyunet_deploy.artifacts.sidecar import (
    DEFAULT_CHECKPOINT,
    DEFAULT_ONNX,
    Artifact,
    Kind,
    kind_of,
    read_artifact,
    sidecar_path,
    trusted,
)
from tinyunet_deploy.backends import nvidia_probe
from tinyunet_deploy.backends.base import Backend
from tinyunet_deploy.contract import Contract
from tinyunet_deploy.errors import RefusedError, RuntimeUnavailable

__all__ = ["BACKENDS", "GPU_ONLY", "load", "open_backend", "why_not"]


class _Entry(NamedTuple):
    where: str
    runs: tuple[Kind, ...]
    packages: tuple[str, ...]
    """Distributions, any one of which brings the runtime."""
    module: str
    extra: str


BACKENDS: Final = {
    "openvino": _Entry(
        "tinyunet_deploy.backends.openvino:OpenVINOBackend",
        ("onnx",),
        ("openvino",),
        "openvino",
        "cpu",
    ),
    "onnxruntime": _Entry(
        "tinyunet_deploy.backends.onnxruntime:ONNXRuntimeBackend",
        ("onnx",),
        ("onnxruntime", "onnxruntime-gpu"),
        "onnxruntime",
        "cpu",
    ),
    "torch": _Entry(
        "tinyunet_deploy.backends.torch:TorchBackend",
        ("checkpoint",),
        ("torch",),
        "torch",
        "train",
    ),
    "tensorrt": _Entry(
        "tinyunet_deploy.backends.tensorrt:TensorRTBackend",
        ("plan",),
        ("tensorrt", "tensorrt-rtx-cu13", "tensorrt-rtx-cu12"),
        "tensorrt",
        "gpu",
    ),
    "onnxruntime-tensorrt": _Entry(
        "tinyunet_deploy.backends.onnxruntime:ONNXRuntimeTensorRTBackend",
        ("onnx",),
        ("onnxruntime-gpu",),
        "onnxruntime",
        "gpu",
    ),
}
"""Name -> backend, the preferred one for a kind of artifact first."""
GPU_ONLY: Final = frozenset({"tensorrt", "onnxruntime-tensorrt"})
"""Names of the backends that need a GPU."""


def why_not(name: str) -> str | None:
    """Why a backend cannot run on this machine, and what to do; None if it can.

    Nothing is imported.
    """
    if name == "tensorrt":
        return nvidia_probe.why_no_tensorrt()
    if name == "onnxruntime-tensorrt":
        return nvidia_probe.why_no_onnxruntime_tensorrt()
    entry = BACKENDS[name]
    if importlib.util.find_spec(entry.module) is None:
        return f"{entry.module} is not installed: pip install 'tinyunet-deploy[{entry.extra}]'"
    if name == "onnxruntime" and len(_installed(entry.packages)) == 2:
        return (
            "onnxruntime and onnxruntime-gpu overwrite each other: "
            "pip uninstall both, then install one"
        )
    if name == "torch" and importlib.util.find_spec("safetensors") is None:
        return "safetensors is not installed: pip install 'tinyunet-deploy[train]'"
    return None


def open_backend(
    model: Path | None = None,
    backend: str | None = None,
    device: str | None = None,
    *,
    trust_engine: bool = False,
    size: tuple[int, int] | None = None,
    any_batch: bool = False,
) -> Backend:
    """Load an artifact on a backend.

    Args:
        model: the artifact; None takes the model that comes with the package.
        backend: a key of :data:`BACKENDS`; None takes the first that runs this kind of artifact,
            this device and is installed.
        device: ``cpu`` or ``cuda:N``; None is the first GPU for what needs one, else the CPU.
        trust_engine: load a file that has no sidecar. A TensorRT plan is a program: only the user
            can know that it is not hostile. An ONNX file is first tried in a process of its own.
        size: height and width of the images, pixels. A checkpoint takes any that its network
            takes; other artifacts only their own. None is the artifact's own size.
        any_batch: accept batches larger than the sidecar's ``verified_batch``, for verifying them.

    Raises:
        ArtifactError: the artifact is missing, changed or cannot be loaded.
        RefusedError: the backend does not run this kind of artifact, or the artifact does not take
            images of this size.
        RuntimeUnavailable: no runtime for it is installed, or the device is not here.
    """
    if model is None:
        model = DEFAULT_CHECKPOINT if backend == "torch" else DEFAULT_ONNX
    kind = kind_of(model)
    foreign = trust_engine and kind in ("plan", "onnx") and not sidecar_path(model).exists()
    artifact = trusted(model) if foreign else read_artifact(model)
    if kind == "onnx":
        contract = check_onnx_file(artifact.data, model)
        if foreign:
            artifact = replace(artifact, sidecar=replace(artifact.sidecar, contract=contract))
    if device is None:
        device = "cuda:0" if kind == "plan" or backend in GPU_ONLY else "cpu"
    if backend is None:
        backend = _choose(kind, device, model)
    entry = BACKENDS[backend]
    if kind not in entry.runs:
        fitting = ", ".join(name for name, other in BACKENDS.items() if kind in other.runs)
        raise RefusedError(model, f"is of the kind {kind}, which {backend} does not run", fitting)
    reason = why_not(backend)
    if reason:
        raise RuntimeUnavailable(backend, reason)
    if foreign and kind == "onnx":
        from tinyunet_deploy.backends.sandbox import try_model

        try_model(artifact, "openvino" if backend == "openvino" else "onnxruntime")
    return load(artifact, backend, device, size=size, any_batch=any_batch)


def load(
    artifact: Artifact,
    backend: str,
    device: str,
    *,
    size: tuple[int, int] | None = None,
    any_batch: bool = False,
) -> Backend:
    """Load an artifact whose bytes have been read and checked, as :func:`open_backend` does.

    Args:
        artifact: the file and its sidecar.
        backend, device, size, any_batch: as for :func:`open_backend`.

    Raises:
        ArtifactError: the runtime cannot load it.
        RefusedError: the artifact does not take images of this size.
        RuntimeUnavailable: the runtime or the device is not available.
    """
    sidecar = artifact.sidecar
    if size is not None:
        sidecar = replace(sidecar, contract=_resized(artifact, size))
    if any_batch:
        sidecar = replace(sidecar, verified_batch=None)
    artifact = replace(artifact, sidecar=sidecar)
    module, _, name = BACKENDS[backend].where.partition(":")
    try:
        backend_class: type[Backend] = getattr(importlib.import_module(module), name)
    except (ImportError, OSError) as error:
        raise RuntimeUnavailable(
            backend, f"is installed but cannot be imported: {error}"
        ) from error
    return backend_class(artifact, device)


def _resized(artifact: Artifact, size: tuple[int, int]) -> Contract:
    """Return the contract of an artifact for images of another size."""
    contract, (height, width) = artifact.sidecar.contract, size
    if artifact.sidecar.kind != "checkpoint" and size != (contract.height, contract.width):
        raise RefusedError(
            artifact.path,
            f"takes images of {contract.height}x{contract.width}, not {height}x{width} (HxW)",
            "export the checkpoint for this size",
        )
    try:
        return replace(contract, height=height, width=width)
    except ValueError as error:
        raise RefusedError(artifact.path, f"cannot take images of {height}x{width}: {error}") from (
            error
        )


def _choose(kind: Kind, device: str, model: Path) -> str:
    reasons = []
    for name, entry in BACKENDS.items():
        if kind not in entry.runs or (name == "openvino" and device != "cpu"):
            continue
        reason = why_not(name)
        if reason is None:
            return name
        reasons.append(reason)
    raise RuntimeUnavailable(model, f"no backend here runs the kind {kind}", "; ".join(reasons))


def _installed(packages: tuple[str, ...]) -> list[str]:
    found = []
    for package in packages:
        try:
            importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
        found.append(package)
    return found
