"""Backends: one loaded artifact that runs.

>>> backend = open_backend(Path("tinyunet.onnx"))               # doctest: +SKIP
>>> backend.run(images).score                                   # doctest: +SKIP
"""

from __future__ import annotations

import abc
import contextlib
import importlib
import importlib.metadata
import importlib.util
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Final, NamedTuple, Self

import numpy as np

from tinyunet_deploy import nvidia
from tinyunet_deploy.artifact import (
    DEFAULT_CHECKPOINT,
    DEFAULT_ONNX,
    Artifact,
    Kind,
    kind_of,
    read_artifact,
    sidecar_path,
    trusted,
)
from tinyunet_deploy.contract import Batch, Contract
from tinyunet_deploy.errors import (
    ArtifactError,
    RefusedError,
    RuntimeUnavailable,
    TinyUNetError,
    lacks_memory,
    unavailable,
)
from tinyunet_deploy.onnx_file import check_onnx_file

__all__ = ["BACKENDS", "Backend", "Run", "open_backend", "why_not"]


class Run(NamedTuple):
    """What one call of a backend gave."""

    score: Batch
    """uint8 [N, 1, H, W]."""
    device_ms: float
    """Time inside the runtime, copies to and from a device left out, milliseconds."""
    copy_in_ms: float = 0.0
    """Copying the images to where the runtime reads them; 0 where it reads them as they are."""
    copy_out_ms: float = 0.0
    """Copying the scores from where the runtime left them."""


class Backend(abc.ABC):
    """One artifact, loaded on one device.

    A backend may be called from any thread, by one at a time.

    Args:
        artifact: the file and its sidecar, its hash checked.
        device: ``cpu`` or ``cuda:N``.

    Raises:
        ArtifactError: the runtime cannot load the file.
        RuntimeUnavailable: the runtime or the device is not here.
    """

    name: ClassVar[str]
    """As in ``--backend``."""
    failures: ClassVar[tuple[type[Exception], ...]] = (MemoryError, RuntimeError)
    """What the runtime raises when memory or the device fails it."""

    def __init__(self, artifact: Artifact, device: str = "cpu") -> None:
        if not re.fullmatch("cpu|cuda:[0-9]+", device):
            raise RuntimeUnavailable(device, "is no device", "cpu or cuda:0")
        self.artifact = artifact
        self.device = device

    @property
    def contract(self) -> Contract:
        """What goes in and out."""
        return self.artifact.sidecar.contract

    @property
    def max_batch(self) -> int | None:
        """Images of the largest batch, None where only memory limits it."""
        limits = (self.contract.max_batch, self.artifact.sidecar.verified_batch)
        return min((limit for limit in limits if limit is not None), default=None)

    @property
    def min_batch(self) -> int:
        """Images of the smallest batch: 1, or what the profile of a plan says."""
        return int(self.artifact.sidecar.origin.get("profile", {}).get("min", 1))

    @property
    def versions(self) -> dict[str, str]:
        """Package name -> version of what computes here."""
        return {self.name: importlib.metadata.version(self.name)}

    @property
    def threads(self) -> int | None:
        """Threads that compute on the CPU; None on a GPU."""
        return processor_count() if self.device == "cpu" else None

    @property
    def synchronization(self) -> str:
        """What ``Run.device_ms`` is the time of, and how its end is known."""
        return "wall clock of the runtime's call, which returns when the scores are there"

    def run(self, image: Batch) -> Run:
        """Score a batch.

        Args:
            image: uint8 [N, 1, H, W] of the contract's H and W, N up to ``max_batch``.

        Raises:
            ValueError: not such an array.
            ArtifactError: the artifact cannot be run, or what it gave is no score of the image.
            OutOfMemory: there is no memory for so many images.
            RuntimeUnavailable: the device failed.
        """
        checked = self._checked(image)
        with self._failures_told():
            run = self._run(checked)
        return self._checked_run(run, checked)

    @contextlib.contextmanager
    def _failures_told(self) -> Iterator[None]:
        """What the runtime raises, as what :meth:`run` says it raises."""
        try:
            yield
        except self.failures as error:
            raise self._failed(error) from error

    def _failed(self, error: Exception) -> TinyUNetError:
        """A failure of the runtime: of the memory or the device, or else of the artifact."""
        lines = (str(error).strip() or "out of memory").splitlines()
        reason = lines[-1 if lines[0].startswith("Exception from") else 0].strip()
        if self.device == "cpu" and not lacks_memory(reason):
            return ArtifactError(self.artifact.path, f"{self.name} cannot run it: {reason}")
        return unavailable(self.device, f"{self.name} failed: {reason}")

    def run_many(self, images: Iterable[Batch]) -> Iterator[Run]:
        """Score batches in their order, which a backend may overlap.

        Batches are taken ahead of the results that are given: up to two where copies to a GPU
        overlap computing, or processors take up the next batch one by one.

        Raises:
            ValueError: as ``run`` does.
        """
        return map(self.run, images)

    def _checked(self, image: Batch) -> Batch:
        shape = (1, self.contract.height, self.contract.width)
        if image.dtype != np.uint8 or image.ndim != 4 or image.shape[1:] != shape:
            raise ValueError(
                f"{image.dtype} {list(image.shape)} given, "
                f"uint8 [N, {', '.join(map(str, shape))}] wanted"
            )
        if not 1 <= len(image) <= (self.max_batch or len(image)):
            raise ValueError(f"batch of {len(image)} given, 1..{self.max_batch or ''} wanted")
        return np.ascontiguousarray(image)

    def _checked_run(self, run: Run, image: Batch) -> Run:
        if run.score.dtype != np.uint8 or run.score.shape != image.shape:
            raise ArtifactError(
                self.artifact.path,
                f"gives {run.score.dtype} {list(run.score.shape)} for "
                f"uint8 {list(image.shape)}, the same was wanted",
            )
        return run

    def _check_input(self, shape: Iterable[object]) -> None:
        """Refuse a graph whose input, [N, 1, H, W], is not the one that the sidecar describes."""
        _, *given = map(str, shape)
        if given != ["1", str(self.contract.height), str(self.contract.width)]:
            raise ArtifactError(
                self.artifact.path,
                f"takes images of [N, {', '.join(given)}], its sidecar says "
                f"{self.contract.height}x{self.contract.width} rows and columns",
            )

    @abc.abstractmethod
    def _run(self, image: Batch) -> Run:
        """Score a batch that keeps the contract."""

    def close(self) -> None:  # noqa: B027  most runtimes free themselves
        """Give memory and device back; the backend is not to be called any more."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


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
        return nvidia.why_no_tensorrt()
    if name == "onnxruntime-tensorrt":
        return nvidia.why_no_onnxruntime_tensorrt()
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
    self_test: bool = False,
) -> Backend:
    """Load an artifact on a backend.

    Args:
        model: the artifact; None takes the model that comes with the package.
        backend: a key of :data:`BACKENDS`; None takes the first that runs this kind of artifact,
            this device and is installed.
        device: ``cpu`` or ``cuda:N``; None is the first GPU for what needs one, else the CPU.
        trust_engine: load a file that has no sidecar. A TensorRT plan is a program: only the user
            can know that it is not hostile. An ONNX file is first tried in a process of its own.
        self_test: score the golden images that lie beside the artifact, and hold the scores
            against those that were recorded when it was made; takes about a second.

    Raises:
        ArtifactError: the artifact is missing, changed or cannot be loaded, or answers otherwise
            than when it was made.
        RefusedError: the backend does not run this kind of artifact.
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
        from tinyunet_deploy.backends.trial import try_model

        try_model(artifact, "openvino" if backend == "openvino" else "onnxruntime")
    loaded = load(artifact, backend, device)
    if self_test:
        from tinyunet_deploy import golden

        try:
            golden.self_test(loaded)
        except BaseException:
            loaded.close()
            raise
    return loaded


def load(artifact: Artifact, backend: str, device: str) -> Backend:
    """Load an artifact that was read already; :func:`open_backend` checks what can be checked.

    Raises:
        ArtifactError: the runtime cannot load it.
        RuntimeUnavailable: the runtime or the device is not here.
    """
    module, _, name = BACKENDS[backend].where.partition(":")
    try:
        backend_class: type[Backend] = getattr(importlib.import_module(module), name)
    except (ImportError, OSError) as error:
        raise RuntimeUnavailable(
            backend, f"is installed but cannot be imported: {error}"
        ) from error
    return backend_class(artifact, device)


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


def processor_count() -> int:
    """Processors this process may use."""
    return len(os.sched_getaffinity(0))
