"""Who is timed: our backends, and what a user would run instead, on the same bytes.

Every runner takes raw images, uint8 [N, 1, H, W] in memory, and gives uint8 scores in memory; what
lies between is inside the timing boundary, for us as for the peers. Programs that time themselves
(``benchmark_app``, ``trtexec``) count copies in and out too, and give no scores.

``python -m benchmarks.peers`` is the process of one cell; ``benchmarks.matrix`` starts it.
"""

from __future__ import annotations

import importlib.metadata
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NamedTuple

import click
import numpy as np

from tinyunet_deploy.artifacts.sidecar import Kind
from tinyunet_deploy.backends.registry import BACKENDS, open_backend, why_not
from tinyunet_deploy.cli import run
from tinyunet_deploy.contract import INPUT_NAME, OUTPUT_NAME, Batch
from tinyunet_deploy.errors import RuntimeUnavailable
from tinyunet_deploy.files import write_atomic

Call = Callable[[Batch], Batch]


class Runner(NamedTuple):
    """One way of running an artifact."""

    what: str
    runs: tuple[Kind, ...]
    packages: tuple[str, ...]
    """Distributions whose versions decide what is measured."""


PEERS: Final = {
    "pytorch-eager": Runner("plain PyTorch, float32", ("checkpoint",), ("torch",)),
    "pytorch-channels-last": Runner("PyTorch, channels last", ("checkpoint",), ("torch",)),
    "pytorch-compile": Runner("PyTorch, torch.compile, channels last", ("checkpoint",), ("torch",)),
    "onnxruntime-by-hand": Runner(
        "ONNX Runtime, an InferenceSession with its defaults",
        ("onnx",),
        ("onnxruntime", "onnxruntime-gpu"),
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
    name: Runner(f"tinyunet_deploy, {name}", entry.runs, entry.packages)
    for name, entry in BACKENDS.items()
} | PEERS
"""Name -> runner: our backends, then the peers."""


def why_not_here(runner: str) -> str | None:
    """Why a runner cannot run on this machine; None if it can."""
    if runner in BACKENDS:
        return why_not(runner)
    if runner.startswith("pytorch"):
        return why_not("torch")
    if runner == "onnxruntime-by-hand":
        return why_not("onnxruntime")
    program = runner.removesuffix("-defaults")
    return None if _program(program) else f"{program} is not on the PATH"


def installed_versions(runner: str) -> dict[str, str]:
    """Package -> version of what computes in a runner, as far as it is installed."""
    found = {}
    for package in RUNNERS[runner].packages:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


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
        warm_up: calls before them, of which the first is kept as ``first_ms``.

    Returns:
        ``load_ms``, ``first_ms``, ``samples_ms`` (one a call of ``batch`` images) and ``boundary``
        (what a sample holds); and the scores of all images, None from a program that gives none.

    Raises:
        TinyUNetError: the runner does not take the artifact.
    """
    batches = [images[start : start + batch] for start in range(0, len(images), batch)]
    program = _PROGRAMS.get(runner)
    if program is not None:
        return program(artifact, batches, repetitions), None
    started = time.perf_counter()
    call = (
        _ours(runner, artifact, device) if runner in BACKENDS else _LOAD[runner](artifact, device)
    )
    load_ms = (time.perf_counter() - started) * 1e3
    before = [_ms(call, batches[index % len(batches)]) for index in range(max(warm_up, 1))]
    samples = [_ms(call, batches[index % len(batches)]) for index in range(repetitions)]
    result = {
        "load_ms": load_ms,
        "first_ms": before[0],
        "samples_ms": samples,
        "boundary": "bytes in memory to scores in memory, one call",
    }
    return result, np.concatenate([call(part) for part in batches])


def _ms(call: Call, batch: Batch) -> float:
    started = time.perf_counter()
    call(batch)
    return (time.perf_counter() - started) * 1e3


# --- in this process --------------------------------------------------------------------------


def _ours(backend: str, artifact: Path, device: str) -> Call:
    loaded = open_backend(artifact, backend, device)
    return lambda images: loaded.run(images).score


def _pytorch_eager(artifact: Path, device: str) -> Call:
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


def _pytorch_channels_last(artifact: Path, device: str, *, compiled: bool = False) -> Call:
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


def _pytorch_compile(artifact: Path, device: str) -> Call:
    return _pytorch_channels_last(artifact, device, compiled=True)


def _onnxruntime_by_hand(artifact: Path, device: str) -> Call:
    import onnxruntime

    provider = "CPUExecutionProvider" if device == "cpu" else "CUDAExecutionProvider"
    session = onnxruntime.InferenceSession(artifact, providers=[provider])
    return lambda images: session.run([OUTPUT_NAME], {INPUT_NAME: images})[0]


_LOAD: Final[dict[str, Callable[[Path, str], Call]]] = {
    "pytorch-eager": _pytorch_eager,
    "pytorch-channels-last": _pytorch_channels_last,
    "pytorch-compile": _pytorch_compile,
    "onnxruntime-by-hand": _onnxruntime_by_hand,
}


# --- programs that time themselves ------------------------------------------------------------


def _benchmark_app(artifact: Path, batches: list[Batch], repetitions: int, *more: str) -> str:
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "images"
        folder.mkdir()
        for index, batch in enumerate(batches):
            np.save(folder / f"{index:04}.npy", batch)
        _start(
            "benchmark_app", "-m", str(artifact), "-d", "CPU", "-hint", "latency", "-api", "sync",
            "-b", str(len(batches[0])), "-niter", str(repetitions), "-i", str(folder), *more,
            "-report_type", "no_counters", "-json_stats", "-report_folder", scratch,
        )  # fmt: skip
        return (Path(scratch) / "benchmark_report.json").read_text()


def read_benchmark_app(report: str) -> dict[str, Any]:
    """What ``benchmark_app -json_stats`` measured, in the words of :func:`time_cell`.

    It gives the median of its samples alone.

    Raises:
        RuntimeUnavailable: it measured nothing, and says why.
    """
    found = json.loads(report)["execution_results"]
    if "error" in found:
        raise RuntimeUnavailable("benchmark_app", f"did not measure: {found['error']}")
    return {
        "load_ms": float(found["read model time (ms)"]) + float(found["compile model time (ms)"]),
        "first_ms": float(found["first inference time (ms)"]),
        "samples_ms": [float(found["latency (ms)"])],
        "boundary": f"its own median of {found['total number of iterations']} calls",
    }


def _trtexec(artifact: Path, batches: list[Batch], repetitions: int) -> str:
    with tempfile.TemporaryDirectory() as scratch:
        images, times = Path(scratch) / "images.bin", Path(scratch) / "times.json"
        images.write_bytes(batches[0].tobytes())
        shape = "x".join(map(str, batches[0].shape))
        _start(
            "trtexec", f"--loadEngine={artifact}", f"--shapes={INPUT_NAME}:{shape}",
            f"--loadInputs={INPUT_NAME}:{images}", f"--iterations={repetitions}", "--duration=0",
            f"--exportTimes={times}",
        )  # fmt: skip
        return times.read_text()


def read_trtexec(times: str) -> dict[str, Any]:
    """What ``trtexec --exportTimes`` wrote, in the words of :func:`time_cell`."""
    samples = [entry["latencyMs"] for entry in json.loads(times)]
    return {
        "load_ms": None,
        "first_ms": None,
        "samples_ms": samples,
        "boundary": "its latency: copy in, compute, copy out",
    }


_PROGRAMS: Final[dict[str, Callable[[Path, list[Batch], int], dict[str, Any]]]] = {
    "benchmark_app": lambda *cell: read_benchmark_app(
        _benchmark_app(*cell, "-infer_precision", "f32")
    ),
    "benchmark_app-defaults": lambda *cell: read_benchmark_app(_benchmark_app(*cell)),
    "trtexec": lambda *cell: read_trtexec(_trtexec(*cell)),
}


def _program(name: str) -> str | None:
    beside = Path(sys.executable).with_name(name)
    return str(beside) if beside.is_file() else shutil.which(name)


def _start(name: str, *arguments: str) -> None:
    done = subprocess.run([_program(name) or name, *arguments], capture_output=True, text=True)
    if done.returncode:
        said = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
        wrong = [line for line in said if "error" in line.lower()] or said or ["nothing"]
        raise RuntimeUnavailable(name, f"exit {done.returncode}: {wrong[0].strip()}")


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
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
    """Time ARTIFACT by RUNNER on IMAGES (.npy) and write what was measured to OUTPUT."""
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
