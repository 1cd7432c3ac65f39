"""``python -m benchmarks.operators``: how long each operator of a model takes in OpenVINO.

Images are run one at a time on all processors. The counters make the runtime a little slower.
"""

from __future__ import annotations

import dataclasses
import shlex
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import click

from benchmarks.options import HELP, output_option, progress_lines, write_result
from benchmarks.synthetic_images import draw_images
from tinyunet_deploy.artifacts.sidecar import read_artifact
from tinyunet_deploy.backends.openvino import OpenVINOBackend
from tinyunet_deploy.cli import run
from tinyunet_deploy.contract import Batch
from tinyunet_deploy.host import describe_machine

_WARM_UP = 10
"""Calls that are not timed."""
_PRINTED = 10
"""Number of operators per model that are printed, the slowest first; the result has them all."""


@click.command(context_settings=HELP)
@click.argument(
    "models",
    nargs=-1,
    required=True,
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
)
@click.option(
    "--calls",
    default=100,
    show_default=True,
    type=click.IntRange(min=1),
    help="Timed calls of each model.",
)
@output_option("operators.json")
def operators(models: tuple[Path, ...], calls: int, output: Path) -> None:
    """Time the operators of MODELS, ONNX files, on OpenVINO."""
    words = ["python", "-m", "benchmarks.operators", *(model.name for model in models)]
    results = []
    with progress_lines(len(models)) as progress:
        for model in models:
            results.append(_measure(model, calls))
            progress.advance()
    fields = {
        "kind": "operators",
        "command": shlex.join([*words, "--calls", str(calls)]),
        "machine": describe_machine(),
        "formula": f"medians of {calls} calls on one image; call_ms without the runtime's "
        "counters, the operators' ms by them",
        "results": results,
    }
    write_result(output, fields)
    click.echo(output)


def _measure(model: Path, calls: int) -> dict[str, Any]:
    """Time one model and print its slowest operators."""
    with OpenVINOBackend(read_artifact(model)) as backend:
        contract = backend.contract
        image = draw_images(1, contract.height, contract.width, defective_every=1)
        for _ in range(_WARM_UP):
            backend.run(image)
        call_ms = statistics.median(_call_ms(backend, image) for _ in range(calls))
        timed = backend.operators(image, calls)
        together = sum(operator.ms for operator in timed)
        click.echo(f"{model.name}: {call_ms:.2f} ms a call, {together:.2f} ms in its operators")
        for operator in sorted(timed, key=lambda operator: -operator.ms)[:_PRINTED]:
            click.echo(
                f"  {operator.ms:7.2f} ms  {operator.kind:16} {operator.kernel:32} {operator.name}"
            )
        return {
            "model": model.name,
            "model_sha256": backend.artifact.sidecar.sha256,
            "precision": backend.artifact.sidecar.precision,
            "backend": backend.name,
            "versions": backend.versions,
            "threads": backend.threads,
            "call_ms": call_ms,
            "operators": [dataclasses.asdict(operator) for operator in timed],
        }


def _call_ms(backend: OpenVINOBackend, image: Batch) -> float:
    began = time.perf_counter()
    backend.run(image)
    return (time.perf_counter() - began) * 1e3


if __name__ == "__main__":
    sys.exit(run(operators))
