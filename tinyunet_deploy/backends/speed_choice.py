"""Use the speed that was measured when a file was exported: to choose a backend, and to say where
a precision is not faster than the next wider one."""

from __future__ import annotations

import functools
import logging
from collections.abc import Sequence
from pathlib import Path

from tinyunet_deploy.artifacts.sidecar import Artifact, read_artifact
from tinyunet_deploy.artifacts.speed_facts import SpeedFacts
from tinyunet_deploy.backends.table import BackendRow
from tinyunet_deploy.errors import ArtifactError
from tinyunet_deploy.host import processor_name

__all__ = ["by_measured_speed", "faster_twin", "say_if_slow"]

log = logging.getLogger(__name__)


def by_measured_speed(rows: Sequence[BackendRow], speed: SpeedFacts | None) -> list[BackendRow]:
    """Return backends in the order in which they are chosen.

    A backend on which the file was measured not to be faster than the wider precision comes last.
    That counts on the processor of the measurement only; elsewhere the order stays.
    """
    if speed is None or not _measured_here(speed):
        return list(rows)
    return sorted(rows, key=lambda row: speed.falls_short(row.name))


def faster_twin(artifact: Artifact, backend: str) -> Artifact | None:
    """Return the file ``NAME-cpu.onnx`` of the same export, if it is worth taking instead.

    It is if the file itself is not faster than the wider precision on this backend, the twin is,
    both were measured on this processor, and the twin has the same parent and the same rule for
    defects. The twin's bytes are checked.
    """
    sidecar, path = artifact.sidecar, artifact.path
    if sidecar.speed is None or not sidecar.speed.falls_short(backend):
        return None
    try:
        twin = read_artifact(path.with_name(f"{path.stem}-cpu{path.suffix}"))
    except ArtifactError:
        return None
    other = twin.sidecar
    same = (other.parent, other.contract, other.precision, other.decision(), other.bits) == (
        sidecar.parent,
        sidecar.contract,
        sidecar.precision,
        sidecar.decision(),
        sidecar.bits,
    )
    pays = other.speed is not None and _measured_here(other.speed) and other.speed.pays(backend)
    return twin if other.unsigned_activations and same and pays else None


def say_if_slow(artifact: Artifact, backend: str) -> None:
    """Warn once in a line if a file was measured not to be faster on a backend."""
    speed = artifact.sidecar.speed
    if speed is not None and speed.falls_short(backend):
        _say(artifact.path, artifact.sidecar.precision, backend, speed)


@functools.cache
def _say(path: Path, precision: str, backend: str, speed: SpeedFacts) -> None:
    where = "this processor" if _measured_here(speed) else f"another processor, {speed.processor}"
    faster = [f"{one} on {one.backend}" for one in speed.runtimes if speed.pays(one.backend)]
    log.warning(
        "%s: %s is not faster than %s on %s: %s when it was exported on %s%s",
        path,
        precision,
        speed.wider,
        backend,
        speed.on(backend),
        where,
        f"; {', '.join(faster)}" if faster else "",
    )


def _measured_here(speed: SpeedFacts) -> bool:
    return speed.processor == processor_name()
