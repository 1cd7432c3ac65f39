"""``python -m benchmarks.streams MODEL.onnx...``: images side by side, or all processors on one.

``infer`` wants many images a second, ``watch`` and ``line-sim`` want the next verdict early. The
backends choose by the batch they get: OpenVINO gives each image of a batch its share of the
processors, and a single image all of them; ONNX Runtime gives a batch to all processors at once.
This command times that choice and the alternatives in turn.
"""

from __future__ import annotations

import contextlib
import shlex
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import click
import onnxruntime
import openvino

from benchmarks.options import HELP, output_option, write_result
from benchmarks.synthetic_images import draw_images
from tinyunet_deploy.artifacts.sidecar import Artifact, read_artifact
from tinyunet_deploy.backends.registry import load
from tinyunet_deploy.cli import run
from tinyunet_deploy.contract import INPUT_NAME, Batch
from tinyunet_deploy.host import describe_machine, processor_count
from tinyunet_deploy.speed.ratio import STATISTICS, ratio_in_run
from tinyunet_deploy.speed.turns import ROUNDS, time_in_turns

__all__ = ["streams"]

_BATCH: Final = 4
"""Images in a batch of ``infer`` by default."""
_BATCHES: Final = 2
"""Batches of one timed call of the throughput."""
_CHOSEN: Final = "as chosen"
_AGAIN: Final = "as chosen, again"
"""The same again; the ratio of the two is the noise floor."""

_Call = Callable[[], object]


@click.command(context_settings=HELP)
@click.argument(
    "models", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True, dir_okay=False)
)
@click.option("--rounds", default=ROUNDS, show_default=True, type=click.IntRange(min=2))
@output_option("streams.json")
def streams(models: tuple[Path, ...], rounds: int, output: Path) -> None:
    """Time the backends' choice of streams for MODELS, and the alternatives, in turn."""
    rows = [row for model in models for row in _rows(read_artifact(model), rounds)]
    words = ["python", "-m", "benchmarks.streams", *(model.name for model in models)]
    write_result(
        output,
        {
            "kind": "streams",
            "command": shlex.join([*words, "--rounds", str(rounds)]),
            "machine": describe_machine(),
            "statistics": STATISTICS,
            "batch": _BATCH,
            "rows": rows,
        },
    )


def _rows(artifact: Artifact, rounds: int) -> Iterator[dict[str, Any]]:
    contract = artifact.sidecar.contract
    images = draw_images(_BATCH, contract.height, contract.width, defective_every=2)
    uses = {"throughput": [images] * _BATCHES, "latency": [images[:1]]}
    alternatives = {"openvino": _openvino, "onnxruntime": _onnxruntime}
    for use, batches in uses.items():
        for backend_name, others in alternatives.items():
            with contextlib.ExitStack() as stack:
                backend = stack.enter_context(load(artifact, backend_name, "cpu"))
                chosen = _chosen(backend.run_many, batches)
                calls = {_CHOSEN: chosen, _AGAIN: chosen, **others(artifact, batches, stack)}
                times = time_in_turns(calls, rounds, calls_each=1 if use == "throughput" else 3)
            for name, series in times.items():
                ratio = ratio_in_run(series, times[_CHOSEN])
                click.echo(
                    f"{artifact.path.name} {backend_name:12} {use:10} {name:28} "
                    f"{ratio.value:.3f} times the time ({ratio.low:.3f} to {ratio.high:.3f})"
                )
                yield {
                    "model": artifact.path.name,
                    "precision": artifact.sidecar.precision,
                    "backend": backend_name,
                    "use": use,
                    "choice": name,
                    "time_ratio": ratio.as_dict(),
                }


def _chosen(run_many: Callable[[list[Batch]], Iterator[object]], batches: list[Batch]) -> _Call:
    return lambda: list(run_many(batches))


def _openvino(
    artifact: Artifact, batches: list[Batch], stack: contextlib.ExitStack
) -> dict[str, _Call]:
    """Return the images in a queue over a fixed number of streams."""
    core = openvino.Core()
    model = core.read_model(artifact.data, b"")
    model.reshape([1, 1, *batches[0].shape[2:]])
    images = [image[None] for batch in batches for image in batch]

    def queue(count: int) -> _Call:
        options = {
            "NUM_STREAMS": count,
            "INFERENCE_PRECISION_HINT": "f32",
            "INFERENCE_NUM_THREADS": processor_count(),
        }
        requests = openvino.AsyncInferQueue(core.compile_model(model, "CPU", options), count)
        requests.set_callback(lambda request, _: request.get_output_tensor(0).data.copy())

        def call() -> None:
            for image in images:
                requests.start_async({INPUT_NAME: image})
            requests.wait_all()

        return call

    counts = sorted({1, processor_count(), 2 * processor_count()})
    return {f"{count} streams": queue(count) for count in counts}


def _onnxruntime(
    artifact: Artifact, batches: list[Batch], stack: contextlib.ExitStack
) -> dict[str, _Call]:
    """Return the images one by one on a processor each."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        artifact.data, options, providers=["CPUExecutionProvider"]
    )
    pool = stack.enter_context(ThreadPoolExecutor(processor_count()))
    images = [image[None] for batch in batches for image in batch]

    def score(image: Batch) -> object:
        return session.run(None, {INPUT_NAME: image})

    return {"images side by side": lambda: list(pool.map(score, images))}


if __name__ == "__main__":
    sys.exit(run(streams))
