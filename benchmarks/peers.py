"""Runners to time: our backends and the alternatives that a user has, on the same images.

Every runner takes raw images, uint8 [N, 1, H, W] in memory, and returns uint8 scores in memory;
everything in between is timed, for our backends as for the peers. Programs that time themselves are
in :mod:`benchmarks.peer_programs`.

``python -m benchmarks.peers`` times one cell; :mod:`benchmarks.matrix_run` starts it.
"""

from __future__ import annotations

import importlib.metadata
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NamedTuple

import click
import numpy as np

from benchmarks.options import HELP
from benchmarks.peer_programs import PROGRAMS, why_no_program
from tinyunet_deploy.artifacts.sidecar import Kind
from tinyunet_deploy.backends.registry import open_backend
from tinyunet_deploy.backends.table import BACKENDS, why_not
from tinyunet_deploy.cli import run
from tinyunet_deploy.contract import INPUT_NAME, OUTPUT_NAME, Batch
from tinyunet_deploy.files import write_atomic

__all__ = [
    "PEERS",
    "RUNNERS",
    "Runner",
    "installed_versions",
    "open_runner",
    "time_cell",
    "why_not_here",
]

_Call = Callable[[Batch], Batch]
"""Raw images -> scores, both uint8 [N, 1, H, W]."""


class Runner(NamedTuple):
    """One way of running an artifact."""

    what: str
    """Description for the reader of a result."""
    runs: tuple[Kind, ...]
    packages: tuple[str, ...]
    """Distributions whose versions affect the measurement."""
    needs: str | None = None
    """Name of our backend whose runtime it uses; None for a program."""


PEERS: Final = {
    "pytorch-eager": Runner("plain PyTorch, float32", ("checkpoint",), ("torch",), "torch"),
    "pytorch-channels-last": Runner("PyTorch, channels last", ("checkpoint",), ("torch",), "torch"),
    "pytorch-compile": Runner(
        "PyTorch, torch.compile, channels last", ("checkpoint",), ("torch",), "torch"
    ),
    "onnxruntime-by-hand": Runner(
        "ONNX Runtime, an InferenceSession with its defaults",
        ("onnx",),
        ("onnxruntime", "onnxruntime-gpu"),
        "onnxruntime",
    ),
    "benchmark_app": Runner(
        "OpenVINO's benchmark_app, latency hint, in the file's precision", ("onnx",), ("openvino",)
    ),
    "benchmark_app-defaults": Runner(
        "OpenVINO's benchmark_app, latency hint; bfloat16 where the CPU has it",
        ("onnx",),
        ("openvino",),
    ),
    "trtexec": Runner("NVIDIA's trtexec on the plan", ("plan",), ("tensorrt",)),
}
RUNNERS: Final = {
    name: Runner(f"tinyunet_deploy, {name}", row.kinds, row.distributions, name)
    for name, row in BACKENDS.items()
} | PEERS
"""Name -> runner: our backends, then the peers."""


def why_not_here(runner: str) -> str | None:
    """Return the reason why a runner cannot run on this machine; None if it can."""
    needs = RUNNERS[runner].needs
    return why_no_program(runner) if needs is None else why_not(needs)


def installed_versions(runner: str) -> dict[str, str]:
    """Return package -> version of the installed packages that compute in a runner."""
    versions = {}
    for package in RUNNERS[runner].packages:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def time_cell(
    runner: str,
    artifact: Path,
    images: Batch,
    *,
    batch: int,
    repetitions: int,
    warm_up: int,
    device: str = "cpu",
) -> tuple[dict[str, Any], Batch | None]:
    """Load an artifact and time it.

    Args:
        runner: a key of :data:`RUNNERS`.
        images: uint8 [N, 1, H, W], N a multiple of ``batch``; they take turns.
        repetitions: timed calls.
        warm_up: calls before the timed ones; the time of the first is kept as ``first_ms``.

    Returns:
        ``load_ms``, ``first_ms``, ``samples_ms`` (one per call of ``batch`` images) and
        ``boundary`` (the work that a sample covers); and the scores of all images, None from a
        program that returns no scores.

    Raises:
        TinyUNetError: the runner does not take the artifact.
    """
    batches = [images[start : start + batch] for start in range(0, len(images), batch)]
    if runner in PROGRAMS:
        return PROGRAMS[runner](artifact, batches, repetitions), None
    started = time.perf_counter()
    call = open_runner(runner, artifact, device)
    load_ms = (time.perf_counter() - started) * 1e3
    before = [_ms(call, batches[index % len(batches)]) for index in range(max(warm_up, 1))]
    samples = [_ms(call, batches[index % len(batches)]) for index in range(repetitions)]
    measured = {
        "load_ms": load_ms,
        "first_ms": before[0],
        "samples_ms": samples,
        "boundary": "bytes in memory to scores in memory, one call",
    }
    return measured, np.concatenate([call(part) for part in batches])


def open_runner(runner: str, artifact: Path, device: str = "cpu") -> Callable[[Batch], Batch]:
    """Load an artifact, and return a function from images to scores, uint8 [N, 1, H, W].

    Args:
        runner: a key of :data:`RUNNERS` that is not a program.

    Raises:
        TinyUNetError: the runner does not take the artifact.
    """
    load = _ours(runner) if runner in BACKENDS else _PEERS_IN_PROCESS[runner]
    return load(artifact, device)


def _ms(call: _Call, batch: Batch) -> float:
    started = time.perf_counter()
    call(batch)
    return (time.perf_counter() - started) * 1e3


# --- in this process --------------------------------------------------------------------------


def _ours(backend: str) -> Callable[[Path, str], _Call]:
    def load(artifact: Path, device: str) -> _Call:
        loaded = open_backend(artifact, backend, device)
        return lambda images: loaded.run(images).score

    return load


def _pytorch_eager(artifact: Path, device: str) -> _Call:
    import torch

    from tinyunet_deploy.artifacts.checkpoint import load_checkpoint

    network, _ = load_checkpoint(artifact)
    network.eval().to(device)

    def call(images: Batch) -> Batch:
        with torch.no_grad():
            x = torch.from_numpy(images).to(device).float() / 127.5 - 1.0
            probability = torch.sigmoid(network(x))
        return (probability * 255.0).round().byte().cpu().numpy()

    return call


def _pytorch_channels_last(artifact: Path, device: str, *, compiled: bool = False) -> _Call:
    import torch

    from tinyunet_deploy.artifacts.checkpoint import load_checkpoint

    network, _ = load_checkpoint(artifact)
    network = network.eval().to(
        device,
        memory_format=torch.channels_last,  # type: ignore[call-overload]  # torch's stubs lack it
    )
    forward = torch.compile(network) if compiled else network

    def call(images: Batch) -> Batch:
        with torch.inference_mode():
            x = torch.from_numpy(images).to(device).float() / 127.5 - 1.0
            x = x.contiguous(memory_format=torch.channels_last)
            probability = torch.sigmoid(forward(x))
        return (probability * 255.0).round().byte().cpu().numpy()

    return call


def _pytorch_compile(artifact: Path, device: str) -> _Call:
    return _pytorch_channels_last(artifact, device, compiled=True)


def _onnxruntime_by_hand(artifact: Path, device: str) -> _Call:
    import onnxruntime

    provider = "CPUExecutionProvider" if device == "cpu" else "CUDAExecutionProvider"
    session = onnxruntime.InferenceSession(artifact, providers=[provider])
    return lambda images: session.run([OUTPUT_NAME], {INPUT_NAME: images})[0]


_PEERS_IN_PROCESS: Final[dict[str, Callable[[Path, str], _Call]]] = {
    "pytorch-eager": _pytorch_eager,
    "pytorch-channels-last": _pytorch_channels_last,
    "pytorch-compile": _pytorch_compile,
    "onnxruntime-by-hand": _onnxruntime_by_hand,
}
"""Peer -> a function that loads an artifact on a device."""


# --- the process of one cell ------------------------------------------------------------------


@click.command(context_settings=HELP)
@click.argument("runner", type=click.Choice(list(RUNNERS)))
@click.argument("artifact", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.argument("images", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.argument("output", type=click.Path(path_type=Path, dir_okay=False))
@click.option("-b", "--batch-size", default=1, type=click.IntRange(min=1))
@click.option("--repetitions", default=20, type=click.IntRange(min=1))
@click.option("--warm-up", default=3, type=click.IntRange(min=1))
@click.option("--device", default="cpu")
def cell(
    runner: str,
    artifact: Path,
    images: Path,
    output: Path,
    batch_size: int,
    repetitions: int,
    warm_up: int,
    device: str,
) -> None:
    """Time ARTIFACT by RUNNER on IMAGES (.npy), and write the figures to OUTPUT, JSON.

    Scores are written beside it as .npy.
    """
    measured, scores = time_cell(
        runner,
        artifact,
        np.load(images),
        batch=batch_size,
        repetitions=repetitions,
        warm_up=warm_up,
        device=device,
    )
    if scores is not None:
        np.save(output.with_suffix(".npy"), scores)
    write_atomic(output, json.dumps(measured).encode())


if __name__ == "__main__":
    sys.exit(run(cell))
