"""An ONNX file of unknown origin, tried once in a process of its own before it is loaded here.

The process may not write a file, and has limits of memory and time; should the file crash or hang
the runtime, it is that process that ends.
"""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from pathlib import Path
from typing import Final

import numpy as np

from tinyunet_deploy.artifact import Artifact, Sidecar, digest
from tinyunet_deploy.contract import Contract
from tinyunet_deploy.errors import ArtifactError, TinyUNetError

__all__ = ["try_model"]

MEMORY_MIB: Final = 4096
"""Address space that a trial may take."""
SECONDS: Final = 60
"""Wall and processor time of a trial; loading and one 512x512 image take about two."""


def unknown(path: Path, data: bytes, contract: Contract) -> Artifact:
    """An artifact of which nothing is known but its bytes and what its graph takes."""
    return Artifact(path, data, Sidecar("onnx", "unknown", digest(data), None, contract))


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
    command = [sys.executable, "-P", "-m", "tinyunet_deploy.backends.trial", backend]
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


def main(backend: str, height: str, width: str, memory_mib: str, seconds: str) -> int:
    """The trial itself, of the model on stdin: 0 is usable, 4 refused, any other a failure."""
    memory = int(memory_mib) << 20
    for limit, value in (
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_CPU, 4 * int(seconds)),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(limit, (value, value))
    data = sys.stdin.buffer.read()
    contract = Contract(int(height), int(width))
    try:
        run_once(unknown(Path("model.onnx"), data, contract), backend)
    except TinyUNetError as error:
        print(error)
        return ArtifactError.exit_code
    return 0


def run_once(artifact: Artifact, backend: str) -> None:
    """Load a model and run one image on the CPU, in this process.

    Raises:
        ArtifactError: the runtime refuses it or it does not keep its contract.
    """
    from tinyunet_deploy.backends import load

    contract = artifact.sidecar.contract
    with load(artifact, backend, "cpu") as loaded:
        loaded.run(np.zeros((1, 1, contract.height, contract.width), np.uint8))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
