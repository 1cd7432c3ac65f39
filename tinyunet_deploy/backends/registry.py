"""Open an artifact on a backend of the table, or on the caller's own."""

from __future__ import annotations

import functools
import logging
from dataclasses import replace
from pathlib import Path

from tinyunet_deploy.artifacts.foreign import read_model
from tinyunet_deploy.artifacts.onnx_guard import check_onnx_file
from tinyunet_deploy.artifacts.onnx_work import is_bounded
from tinyunet_deploy.artifacts.packaged import DEFAULT_ONNX, checkpoint_of
from tinyunet_deploy.artifacts.sidecar import Artifact, Decision, Kind, kind_of
from tinyunet_deploy.artifacts.speed_facts import SpeedFacts
from tinyunet_deploy.backends.base import Backend
from tinyunet_deploy.backends.device_name import device_type, full_name
from tinyunet_deploy.backends.speed_choice import by_measured_speed, faster_twin, say_if_slow
from tinyunet_deploy.backends.table import (
    BACKENDS,
    BackendChoice,
    BackendRow,
    default_device,
    find_row,
    rows_for,
    why_not,
)
from tinyunet_deploy.contract import Contract
from tinyunet_deploy.errors import RefusedError, RuntimeUnavailable, TinyUNetError

log = logging.getLogger(__name__)

__all__ = ["BACKENDS", "default_model", "load", "open_backend", "read_tried", "why_not"]


def open_backend(
    model: Path | None = None,
    backend: BackendChoice | None = None,
    device: str | None = None,
    *,
    trust_engine: bool = False,
    size: tuple[int, int] | None = None,
    any_batch: bool = False,
) -> Backend:
    """Load an artifact on a backend.

    Args:
        model: the artifact; None takes the default model of the package. For an ONNX file of the
            package, a backend that runs only checkpoints takes the checkpoint beside it.
        backend: the name of a backend, or a row or class of the caller's own; None takes the first
            that runs this kind of artifact on this device and is installed. One on which the
            exporter measured no gain over the wider precision comes last; if only such a one is
            left, the file ``NAME-cpu.onnx`` of the same export is taken where it is faster.
        device: ``cpu``, ``cuda`` or ``cuda:N``; None takes the first GPU for a file that needs one,
            else the CPU.
        trust_engine: load a file that has no sidecar. A TensorRT plan is a program: only the user
            can know that it is not hostile. An ONNX file is first tried in a separate process.
        size: height and width of the images, pixels. A checkpoint takes any size that its network
            takes; other artifacts take only their own. None takes the artifact's own size.
        any_batch: accept batches larger than the sidecar's ``verified_batch``, for verifying them.

    Raises:
        ArtifactError: the artifact is missing, changed or cannot be loaded.
        RefusedError: the backend does not run this kind of artifact, or the artifact does not take
            images of this size.
        RuntimeUnavailable: its runtime is not installed, or the device is not available.
    """
    row = None if backend is None else find_row(backend)
    model = _for_backend(DEFAULT_ONNX if model is None else model, row)
    kind = kind_of(model)
    artifact = read_model(model, trust_engine=trust_engine)
    if kind == "onnx":
        contract = check_onnx_file(artifact.data, model)
    device = default_device(kind, row) if device is None else full_name(device)
    if row is None:
        row = _choose(kind, device, model, artifact.sidecar.speed)
        twin = faster_twin(artifact, row.name) if device == "cpu" else None
        if twin is not None:
            _say_instead(model, twin.path, row.name)
            artifact = twin
    if kind not in row.kinds:
        fitting = ", ".join(other.name for other in rows_for(kind))
        raise RefusedError(model, f"is of kind {kind}, which {row.name} does not run", fitting)
    reason = why_not(row)
    if reason:
        raise RuntimeUnavailable(row.name, reason)
    if kind == "onnx":
        height, width = contract.height, contract.width
        if not artifact.has_sidecar or not is_bounded(artifact.data, height, width):
            _try_once(artifact, row.sandbox)
    if not artifact.has_sidecar:
        _say_what_is_unknown(model, artifact.sidecar.decision())
    if device == "cpu":
        say_if_slow(artifact, row.name)
    return load(artifact, row, device, size=size, any_batch=any_batch)


def read_tried(model: Path, *, trust_engine: bool = False, runtime: str | None = None) -> Artifact:
    """Read an artifact; try it first if it has no sidecar and the user trusts it.

    Use it where a file is handed on to another program, such as TensorRT's builder, or where its
    facts are needed before it is opened.

    Args:
        trust_engine: as for :func:`open_backend`.
        runtime: name of the backend that tries an ONNX file; None takes the first installed one.
            A plan is loaded in this process, as only TensorRT can read the size of its images.

    Raises:
        ArtifactError: as for :func:`open_backend`.
        RuntimeUnavailable: no runtime is installed that can try it.
    """
    artifact = read_model(model, trust_engine=trust_engine)
    if artifact.has_sidecar:
        return artifact
    kind = artifact.sidecar.kind
    if kind == "plan":
        with open_backend(model, trust_engine=True) as loaded:
            return loaded.artifact
    _try_once(artifact, runtime or _choose(kind, "cpu", model).sandbox)
    _say_what_is_unknown(model, artifact.sidecar.decision())
    return artifact


_tried: set[tuple[str, str]] = set()
"""sha256 of a file, and the backend that this process has already tried it on."""


def _try_once(artifact: Artifact, runtime: str) -> None:
    """Try a model in a separate process, unless this process did so with the very same bytes."""
    from tinyunet_deploy.backends.sandbox import try_model

    if (artifact.sidecar.sha256, runtime) not in _tried:
        try_model(artifact, runtime)
        _tried.add((artifact.sidecar.sha256, runtime))


@functools.cache
def _say_what_is_unknown(model: Path, decision: Decision) -> None:
    """Say once what a model without a sidecar leaves open."""
    log.warning(
        "%s: has no sidecar: its lineage is unknown, and threshold %g and min_area %d px are "
        "defaults, not its own",
        model,
        *decision,
    )


def load(
    artifact: Artifact,
    backend: BackendChoice,
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
    row, device = find_row(backend), full_name(device)
    sidecar = artifact.sidecar
    if size is not None:
        sidecar = replace(sidecar, contract=_resized(artifact, size))
    if any_batch:
        sidecar = replace(sidecar, verified_batch=None)
    if device_type(device) not in row.devices:
        raise RuntimeUnavailable(
            device,
            f"{row.name} does not run there",
            f"use --device {' or '.join('cpu' if d == 'cpu' else 'cuda:0' for d in row.devices)}",
        )
    backend_class = row.load_class()
    try:
        return backend_class(replace(artifact, sidecar=sidecar), device)
    except TinyUNetError:
        raise
    except Exception as error:
        if BACKENDS.get(row.name) is row:
            raise
        raise RuntimeUnavailable(row.name, f"cannot load {artifact.path}: {error!r}") from error


def default_model(backend: BackendRow | None = None) -> Path:
    """Return the package's default model for a backend: its ONNX file, or its checkpoint.

    The checkpoint is for a backend that runs no other kind.
    """
    return _for_backend(DEFAULT_ONNX, backend)


def _for_backend(model: Path, backend: BackendRow | None) -> Path:
    """Return the checkpoint of a model in the package if the backend runs no other kind."""
    checkpoint_only = backend is not None and backend.kinds == ("checkpoint",)
    return (checkpoint_only and checkpoint_of(model)) or model


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
        if artifact.sidecar.network is not None:
            artifact.sidecar.network.check_size(height, width)
        return replace(contract, height=height, width=width)
    except ValueError as error:
        raise RefusedError(artifact.path, f"cannot take images of {height}x{width}: {error}") from (
            error
        )


@functools.cache
def _say_instead(model: Path, twin: Path, backend: str) -> None:
    """Say once that another file of the same export is taken."""
    log.warning(
        "%s: %s is taken instead: the same int8 network, which is faster on %s",
        model,
        twin.name,
        backend,
    )


def _choose(kind: Kind, device: str, model: Path, speed: SpeedFacts | None = None) -> BackendRow:
    """Choose the preferred backend that can be imported, if possible one on which the model was
    measured to be faster than the next wider precision. If none takes the device, choose the
    preferred one all the same: its error names the right device."""
    rows = by_measured_speed(rows_for(kind, device, unasked_only=True), speed)
    if not rows:
        return rows_for(kind, unasked_only=True)[0]
    reasons = []
    for row in rows:
        reason = why_not(row)
        if reason is None:
            try:
                row.load_class()
            except RuntimeUnavailable as error:
                log.warning("%s; another backend is tried", error)
                reason = str(error)
            else:
                return row
        reasons.append(reason)
    raise RuntimeUnavailable(
        model, f"no backend on this machine can run the kind {kind}", "; ".join(reasons)
    )
