"""The process in which :mod:`tinyunet_deploy.backends.sandbox` tries a model of unknown origin."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from tinyunet_deploy import systems
from tinyunet_deploy.artifacts.sidecar import Artifact, Sidecar, digest
from tinyunet_deploy.backends.registry import load
from tinyunet_deploy.contract import Contract
from tinyunet_deploy.errors import ArtifactError, RuntimeUnavailable, TinyUNetError


def unknown(path: Path, data: bytes, contract: Contract) -> Artifact:
    """Return an artifact of unknown origin: its sidecar has only the sha256 and the contract."""
    return Artifact(path, data, Sidecar("onnx", "unknown", digest(data), None, contract))


def main(backend: str, height: str, width: str, memory_mib: str, seconds: str) -> int:
    """Try the model on stdin.

    Returns:
        Exit code 0 if it is usable, 4 if it is refused, 5 if this system cannot limit the process,
        so that nothing was tried.
    """
    try:
        systems.limit_this_process(memory_bytes=int(memory_mib) << 20, processor_s=4 * int(seconds))
    except RuntimeUnavailable as error:
        print(error)
        return RuntimeUnavailable.exit_code
    data = sys.stdin.buffer.read()
    contract = Contract(int(height), int(width))
    try:
        run_once(unknown(Path("model.onnx"), data, contract), backend)
    except TinyUNetError as error:
        print(error)
        return ArtifactError.exit_code
    return 0


def run_once(artifact: Artifact, backend: str) -> None:
    """Load a model and run a black image and a noisy one, twice, on the CPU, in this process.

    Raises:
        ArtifactError: the runtime refuses the model, it breaks its contract, or it gives the noisy
            image other scores the second time.
    """
    contract = artifact.sidecar.contract
    with load(artifact, backend, "cpu") as loaded:
        black = np.zeros((1, 1, contract.height, contract.width), np.uint8)
        loaded.run(black)
        noise = np.random.default_rng(0).integers(0, 256, black.shape, np.uint8)
        first, second = (loaded.run(noise).score.astype(np.int16) for _ in range(2))
    difference = int(np.abs(first - second).max())
    if difference > 1:  # a rounding
        raise ArtifactError(
            artifact.path,
            f"gives other scores for the same image a second time, by up to {difference} of 255",
            "export the network without random numbers, in evaluation mode",
        )


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
