"""``python -m benchmarks.cuda_options``: compare options of ONNX Runtime's CUDA provider.

Each set of options is loaded beside the default, and the two take turns in one process, so that a
GPU that grows warm slows both. The winner of a precision is the set with the highest mean ratio
over the batch sizes. The default of the backend changes only by a result of this command that was
measured on a GPU and is stored in ``benchmarks/results``.
"""

from __future__ import annotations

import shlex
import statistics
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import click
import numpy as np

from benchmarks.options import HELP, output_option, progress_lines, rounds_option, write_result
from benchmarks.synthetic_images import draw_images
from tinyunet_deploy.artifacts.sidecar import Artifact, read_artifact
from tinyunet_deploy.backends import nvidia_probe
from tinyunet_deploy.backends.base import Backend
from tinyunet_deploy.backends.table import BACKENDS
from tinyunet_deploy.cli import run
from tinyunet_deploy.cli.options import NumberList
from tinyunet_deploy.contract import Batch
from tinyunet_deploy.errors import TinyUNetError
from tinyunet_deploy.host import describe_machine

__all__ = ["OPTION_SETS", "compare_sets", "cuda_options", "winner_of"]

OPTION_SETS: Final[dict[str, dict[str, Any]]] = {
    "nhwc": {"prefer_nhwc": 1},
    "bias": {"fuse_conv_bias": 1},
    "nhwc and bias": {"prefer_nhwc": 1, "fuse_conv_bias": 1},
    "small workspace": {"cudnn_conv_use_max_workspace": 0},
    "heuristic": {"cudnn_conv_algo_search": "HEURISTIC"},
    "tf32": {"use_tf32": 1},
}
"""Name -> options that differ from the backend's. The names are those of ONNX Runtime's page on its
CUDA provider. By default it searches exhaustively, with the largest workspace, in NCHW."""
ROUNDING: Final = frozenset({"tf32"})
"""Sets that round factors to 10 bits: measured, but never the winner."""
LEAST_GAIN: Final = 1.02
"""Ratio to the default below which a set is not the winner: less is noise."""
_WARM_UP: Final = 5
"""Calls that are not timed; the first one chooses kernels, the second captures a graph."""


@click.command(context_settings=HELP)
@click.option(
    "-m",
    "--model",
    required=True,
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="An ONNX file.",
)
@click.option("--device", default="cuda:0", show_default=True)
@click.option("-b", "--batch-size", "sizes", type=NumberList("batch sizes"), default="1,16")
@click.option("--calls", default=15, show_default=True, type=click.IntRange(min=1))
@rounds_option
@output_option("cuda_options.json")
def cuda_options(
    model: Path, device: str, sizes: tuple[int, ...], calls: int, rounds: int, output: Path
) -> None:
    """Compare each set of options with the default, and name the fastest."""
    words = ["python", "-m", "benchmarks.cuda_options", f"--model={model.name}"]
    words += ["--device", device, "--batch-size", ",".join(map(str, sizes))]
    words += ["--calls", str(calls), "--rounds", str(rounds)]
    artifact = read_artifact(model)
    rows = []
    with progress_lines(len(OPTION_SETS)) as progress:
        for row in compare_sets(artifact, device, OPTION_SETS, sizes, calls, rounds):
            rows.append(row)
            ratios = row["ratio_to_default"]
            result = ", ".join(f"batch {size} {ratio:.2f}x" for size, ratio in ratios.items())
            click.echo(f"{row['set']:16} {row['error'] or result}")
            progress.advance()
    index = nvidia_probe.gpu_index(device)
    winner = winner_of(rows)
    fields = {
        "kind": "cuda-options",
        "command": shlex.join(words),
        "machine": describe_machine(),
        "gpu": nvidia_probe.gpu(index)._asdict(),
        "model": model.name,
        "precision": artifact.sidecar.precision,
        "formula": f"per round {calls} calls with the default, then {calls} with the set; "
        "ratio_to_default = seconds of the default / seconds of the set, median of the rounds; "
        f"the winner has the highest geometric mean of the ratios, and at least {LEAST_GAIN}",
        "winner": winner,
        "results": rows,
    }
    write_result(output, fields)
    click.echo(f"fastest in {artifact.sidecar.precision}: {winner}")
    click.echo(output)


def compare_sets(
    artifact: Artifact,
    device: str,
    sets: Mapping[str, Mapping[str, Any]],
    sizes: Sequence[int],
    calls: int,
    rounds: int,
) -> Iterator[dict[str, Any]]:
    """Yield a row for each set: its options, its ratios by batch size, or why it does not run.

    Args:
        artifact: an ONNX file.
        sets: name -> options of the provider.
        calls: timed calls of one round.
    """
    implementation: Any = BACKENDS["onnxruntime"].load_class()
    contract = artifact.sidecar.contract
    batches = {
        size: draw_images(size, contract.height, contract.width, defective_every=2)
        for size in sizes
    }
    with implementation(artifact, device) as default:
        for name, options in sets.items():
            error, apart = "", 0
            ratios: dict[int, float] = {}
            try:
                with implementation(artifact, device, provider_options=options) as other:
                    for size, batch in batches.items():
                        apart = max(apart, _steps_apart(default, other, batch))
                        ratios[size] = _ratio(default, other, batch, calls, rounds)
            except TinyUNetError as refusal:
                error = str(refusal)
            yield {
                "set": name,
                "options": dict(options),
                "error": error,
                "steps_from_default": apart,
                "ratio_to_default": ratios,
            }


def winner_of(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the name of the fastest set that runs and does not round, or ``default``."""
    means = {
        row["set"]: statistics.geometric_mean(row["ratio_to_default"].values())
        for row in rows
        if not row["error"] and row["ratio_to_default"] and row["set"] not in ROUNDING
    }
    best = max(means, key=means.__getitem__, default="default")
    return best if means.get(best, 0.0) >= LEAST_GAIN else "default"


def _steps_apart(first: Backend, second: Backend, batch: Batch) -> int:
    """Return the largest difference of the two's scores, steps of 1/255."""
    one, other = (backend.run(batch).score.astype(int) for backend in (first, second))
    return int(np.abs(one - other).max())


def _ratio(default: Backend, other: Backend, batch: Batch, calls: int, rounds: int) -> float:
    for backend in (default, other):
        for _ in range(_WARM_UP):
            backend.run(batch)
    seconds = [[_seconds(backend, batch, calls) for backend in (default, other)]
               for _ in range(rounds)]  # fmt: skip
    return statistics.median(ours / theirs for ours, theirs in seconds)


def _seconds(backend: Backend, batch: Batch, calls: int) -> float:
    began = time.perf_counter()
    for _ in backend.run_many(batch for _ in range(calls)):
        pass
    return time.perf_counter() - began


if __name__ == "__main__":
    sys.exit(run(cuda_options))
