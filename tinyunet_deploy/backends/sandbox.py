"""Trial of an ONNX file in a process of its own, before it is loaded in this one.

A file of unknown origin is tried, and so is one whose operators may run without an end, whoever
wrote its sidecar.

The process may not write a file, and has limits of memory and time; should the file crash or hang
the runtime, it is that process that ends.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Final

from tinyunet_deploy.artifacts.sidecar import Artifact
from tinyunet_deploy.errors import ArtifactError

__all__ = ["try_model"]

MEMORY_MIB: Final = 4096
"""Address space that a trial may take."""
SECONDS: Final = 60
"""Wall and processor time of a trial; loading and one 512x512 image take about two."""


def try_model(
    artifact: Artifact, backend: str, *, seconds: float = SECONDS, memory_mib: int = MEMORY_MIB
) -> None:
    """Load a model and run one image on the CPU, in another process.

    Raises:
        ArtifactError: the runtime refuses it, or it took too much time or memory, or it ended the
            process.
    """
    path, contract = artifact.path, artifact.sidecar.contract
    library = str(Path(__file__).resolve().parent.parent.parent)
    # -P: a file called numpy.py in the current folder is not ours to run
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
    if done.returncode == ArtifactError.exit_code:
        what = done.stdout.decode("utf-8", "replace").strip()[:500]
        raise ArtifactError(path, f"was tried and refused: {what}")
    if done.returncode < 0:
        name = signal.Signals(-done.returncode).name
        raise ArtifactError(path, f"was tried and ended its process by {name}")
    raise ArtifactError(path, f"was tried and failed, within {memory_mib} MiB of memory")
