"""Try an ONNX file in a separate process before it is loaded in this one.

A file is tried if its origin is unknown, or if one of its operators might never end, even if it
has a valid sidecar.

The process cannot write files, and its memory and time are limited. A file that crashes or hangs
the runtime ends only that process. Where the system cannot set all of these limits, as Windows and
macOS, such a file is refused: it is never tried without them.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Final

from tinyunet_deploy.artifacts.sidecar import Artifact
from tinyunet_deploy.errors import ArtifactError, RuntimeUnavailable

__all__ = ["try_model"]

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
    library = str(Path(__file__).resolve().parent.parent.parent)
    # -P: do not import a numpy.py that lies in the current folder
    command = [sys.executable, "-P", "-m", "tinyunet_deploy.backends.sandbox_process", backend]
    command += [str(contract.height), str(contract.width), str(memory_mib), str(int(seconds))]
    try:
        done = subprocess.run(
            command,
            input=artifact.data,
            capture_output=True,
            timeout=seconds,
            check=False,
            env={**os.environ, "PYTHONPATH": library},
        )
    except subprocess.TimeoutExpired:
        raise ArtifactError(path, f"was tried and took more than {seconds:g} s") from None
    if done.returncode == 0:
        return
    what = done.stdout.decode("utf-8", "replace").strip()[:500]
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
