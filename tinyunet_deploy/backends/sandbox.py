"""Try an ONNX file in a separate process before it is loaded in this one.

A file is tried if its origin is unknown, or if one of its operators might never end, even if it
has a valid sidecar.

The process cannot write files, and its memory and time are limited. A file that crashes or hangs
the runtime ends only that process. Where the system cannot set all of these limits, as Windows and
macOS, such a file is refused: it is never tried without them.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Final

from tinyunet_deploy.artifacts.sidecar import Artifact
from tinyunet_deploy.errors import ArtifactError, RuntimeUnavailable

__all__ = ["try_graph", "try_model"]

MEMORY_MIB: Final = 4096
"""Largest address space of a trial, MiB."""
SECONDS: Final = 60
"""Limit of a trial's wall time, seconds; loading and one 512x512 image take about two."""


def try_model(
    artifact: Artifact, backend: str, *, seconds: float = SECONDS, memory_mib: int = MEMORY_MIB
) -> None:
    """Load a model and run two images on the CPU, in another process.

    Raises:
        ArtifactError: the runtime refuses the model, or the model needs too much time or memory, or
            it crashed the process.
        RuntimeUnavailable: this system cannot limit the process, so nothing was tried.
    """
    path, contract = artifact.path, artifact.sidecar.contract
    arguments = ["sandbox_process", backend, str(contract.height), str(contract.width)]
    arguments += [str(memory_mib), str(int(seconds))]
    _run_limited(path, artifact.data, arguments, seconds, memory_mib)


def try_graph(
    data: bytes,
    path: Path,
    output: str,
    type_name: str,
    shape: tuple[int, ...],
    *,
    seconds: float = SECONDS,
    memory_mib: int = MEMORY_MIB,
) -> tuple[int, ...]:
    """Run a graph that does not keep the contract in ONNX Runtime on the CPU, in another process.

    Args:
        data: a file that ``check_onnx_graph`` has accepted.
        path: of the file, for errors.
        output: name of the output that is read.
        type_name: numpy type of its one input.
        shape: of its one input.

    Returns:
        Shape of the output.

    Raises:
        ArtifactError, RuntimeUnavailable: as for :func:`try_model`.
    """
    arguments = ["sandbox_graph", str(memory_mib), str(int(seconds)), output, type_name]
    arguments += list(map(str, shape))
    answer = _run_limited(path, data, arguments, seconds, memory_mib)
    try:
        return tuple(int(size) for size in json.loads(answer))
    except (TypeError, ValueError):
        raise ArtifactError(path, "was tried and gave no shape of its output") from None


def _run_limited(
    path: Path, data: bytes, arguments: list[str], seconds: float, memory_mib: int
) -> str:
    """Run a module of this package in a process with the model on stdin; return what it prints."""
    library = str(Path(__file__).resolve().parent.parent.parent)
    module, *rest = arguments
    # -P: do not import a numpy.py that lies in the current folder
    command = [sys.executable, "-P", "-m", f"tinyunet_deploy.backends.{module}", *rest]
    try:
        done = subprocess.run(
            command,
            input=data,
            capture_output=True,
            timeout=seconds,
            check=False,
            env={**os.environ, "PYTHONPATH": library},
        )
    except subprocess.TimeoutExpired:
        raise ArtifactError(path, f"was tried and took more than {seconds:g} s") from None
    what = done.stdout.decode("utf-8", "replace").strip()[:500]
    if done.returncode == 0:
        return what
    if done.returncode == RuntimeUnavailable.exit_code:
        raise RuntimeUnavailable(
            path,
            f"must be tried in a process with limits, which this system does not set: {what}",
            "only Linux can try a model of unknown origin",
        )
    if done.returncode == ArtifactError.exit_code:
        raise ArtifactError(path, f"was tried and refused: {what}")
    if done.returncode < 0:
        name = signal.Signals(-done.returncode).name
        raise ArtifactError(path, f"was tried and ended its process with {name}")
    raise ArtifactError(
        path, f"was tried and failed within its limit of {memory_mib} MiB of memory"
    )
