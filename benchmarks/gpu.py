"""``python -m benchmarks.gpu``: compare a GPU with published figures, with and without CUDA graphs.

Every model is loaded twice, with and without graphs, and the two take turns; a backend without CUDA
graphs is loaded once. Batches are in memory. A backend that computes a float32 file in another
number type, such as torch-fp16, counts as that precision.
The answers of the two are compared, so that a graph that computes something else cannot win.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import shlex
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import click
import numpy as np

from benchmarks.options import HELP, output_option, progress_lines, rounds_option, write_result
from benchmarks.synthetic_images import draw_images
from tinyunet_deploy.artifacts.sidecar import read_artifact
from tinyunet_deploy.backends import nvidia_probe
from tinyunet_deploy.backends.base import Backend
from tinyunet_deploy.backends.table import find_row
from tinyunet_deploy.cli import run
from tinyunet_deploy.cli.options import BackendName, NumberList
from tinyunet_deploy.contract import Batch
from tinyunet_deploy.errors import GateFailed, RefusedError
from tinyunet_deploy.host import describe_machine

PUBLISHED: Final = {
    "A100 FP16": {1: 248, 8: 761, 16: 823},
    "V100 FP16": {1: 158, 8: 438, 16: 469},
}
"""Images/s at 512x512 by batch, published with NVIDIA's U-Net Industrial for TensorFlow 1."""
_WARM_UP: Final = 10
"""Calls that are not timed."""


@click.command(context_settings=HELP)
@click.option(
    "-m",
    "--model",
    "models",
    multiple=True,
    required=True,
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="An ONNX file, a plan or a checkpoint; can be repeated.",
)
@click.option(
    "--backend",
    type=BackendName(),
    help="Backend that runs the models. Default: tensorrt, onnxruntime or torch, by their kind.",
)
@click.option("--device", default="cuda:0", show_default=True)
@click.option("-b", "--batch-size", "sizes", type=NumberList("batch sizes"), default="1,8,16")
@click.option(
    "--calls",
    default=100,
    show_default=True,
    type=click.IntRange(min=1),
    help="Timed calls of each batch size in one round.",
)
@rounds_option
@output_option("gpu.json")
def gpu(
    models: tuple[Path, ...],
    backend: str | None,
    device: str,
    sizes: tuple[int, ...],
    calls: int,
    rounds: int,
    output: Path,
) -> None:
    """Measure each model with each batch size, with and without CUDA graphs."""
    words = ["python", "-m", "benchmarks.gpu", *(f"--model={path.name}" for path in models)]
    words += [] if backend is None else ["--backend", backend]
    words += ["--device", device, "--batch-size", ",".join(map(str, sizes))]
    words += ["--calls", str(calls), "--rounds", str(rounds)]
    rows = []
    with progress_lines(len(models)) as progress:
        for model in models:
            rows += _measure_model(model, backend, device, sizes, calls, rounds)
            progress.advance()
    index = nvidia_probe.gpu_index(device)
    clocks = nvidia_probe.clocks(index)
    fields = {
        "kind": "gpu",
        "command": shlex.join(words),
        "machine": describe_machine(),
        "gpu": nvidia_probe.gpu(index)._asdict(),
        "clocks_after": clocks._asdict() if clocks else {},
        "formula": f"per round {_WARM_UP} calls uncounted, then {calls} one at a time (device_ms, "
        "call_ms: median; call_ms is from uint8 arrays in memory to uint8 arrays in memory), then "
        "as many as the backend overlaps (images_per_s = images / seconds); the row gives the "
        "median of the rounds",
        "published_images_per_s": PUBLISHED,
        "results": rows,
    }
    write_result(output, fields)
    click.echo(output)


def _measure_model(
    model: Path,
    chosen: str | None,
    device: str,
    sizes: Sequence[int],
    calls: int,
    rounds: int,
) -> list[dict[str, Any]]:
    """Return and print a row for each batch size and choice of graphs."""
    rows = []
    with contextlib.ExitStack() as stack:
        backends = {
            graphs: stack.enter_context(load())
            for graphs, load in _choices(model, chosen, device).items()
        }
        contract = next(iter(backends.values())).contract
        for size in sizes:
            batch = draw_images(size, contract.height, contract.width, defective_every=2)
            _compare_answers(model, backends, batch)
            measured: dict[bool | None, list[dict[str, float]]] = {key: [] for key in backends}
            for _ in range(rounds):
                for graphs, backend in backends.items():
                    measured[graphs].append(_measure(backend, batch, calls))
            for graphs, backend in backends.items():
                row = _row(model, backend, size, graphs, measured[graphs])
                rows.append(row)
                click.echo(
                    f"{model.name:24} {backend.name:12} batch {size:2} graphs {_GRAPHS[graphs]} "
                    f"{row['images_per_s']:8.1f} images/s   device {row['device_ms']:7.3f} ms   "
                    f"call {row['call_ms']:7.3f} ms   p99 {row['call_p99_ms']:7.3f} ms"
                )
    return rows


_GRAPHS: Final = {True: "on ", False: "off", None: "-  "}


def _choices(
    model: Path, backend: str | None, device: str
) -> dict[bool | None, Callable[[], Backend]]:
    """Return how to load a model with graphs and without; one way if its backend has none."""
    artifact = read_artifact(model)
    kind = artifact.sidecar.kind
    by_kind = {"plan": "tensorrt", "onnx": "onnxruntime", "checkpoint": "torch"}
    row = find_row(backend or by_kind[kind])
    if kind not in row.kinds:
        raise RefusedError(model, f"is of kind {kind}, which {row.name} does not run")
    implementation: Any = row.load_class()
    if "graphs" not in inspect.signature(implementation).parameters:
        return {None: functools.partial(implementation, artifact, device)}
    return {
        graphs: functools.partial(implementation, artifact, device, graphs=graphs)
        for graphs in (True, False)
    }


def _compare_answers(model: Path, backends: dict[bool | None, Backend], batch: Batch) -> None:
    first, *others = (backend.run(batch).score.astype(int) for backend in backends.values())
    apart = max((int(np.abs(first - other).max()) for other in others), default=0)
    if apart > 1:
        raise GateFailed(model, f"answers {apart} apart of 255 with and without graphs")


def _measure(backend: Backend, batch: Batch, calls: int) -> dict[str, float]:
    for _ in range(_WARM_UP):
        backend.run(batch)
    device_ms, call_ms = [], []
    for _ in range(calls):
        began = time.perf_counter()
        device_ms.append(backend.run(batch).device_ms)
        call_ms.append((time.perf_counter() - began) * 1e3)
    began = time.perf_counter()
    for _ in backend.run_many(batch for _ in range(calls)):
        pass
    seconds = time.perf_counter() - began
    return {
        "device_ms": statistics.median(device_ms),
        "call_ms": statistics.median(call_ms),
        "call_p99_ms": sorted(call_ms)[max(0, -(-99 * calls // 100) - 1)],
        "images_per_s": calls * len(batch) / seconds,
    }


def _row(
    model: Path, backend: Backend, size: int, graphs: bool | None, rounds: list[dict[str, float]]
) -> dict[str, Any]:
    return {
        "model": model.name,
        "precision": find_row(type(backend)).compute or backend.artifact.sidecar.precision,
        "backend": backend.name,
        "versions": backend.versions,
        "batch_size": size,
        "cuda_graphs": graphs,
        "rounds": rounds,
        **{key: statistics.median(one[key] for one in rounds) for key in rounds[0]},
    }


if __name__ == "__main__":
    sys.exit(run(gpu))
