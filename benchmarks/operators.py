"""``python -m benchmarks.operators``: what each operator of a model takes, by OpenVINO's counters.

One image at a time on all processors. With its counters on the runtime is a little slower.
"""

from __future__ import annotations

import dataclasses
import json
import shlex
import statistics
import sys
import time
from pathlib import Path

import click
import numpy as np

from tinyunet_deploy.artifacts.sidecar import read_artifact
from tinyunet_deploy.backends.openvino import OpenVINOBackend
from tinyunet_deploy.cli import run
from tinyunet_deploy.contract import Batch
from tinyunet_deploy.data import synthetic
from tinyunet_deploy.files import write_atomic
from tinyunet_deploy.host import describe_machine

RESULTS = Path(__file__).parent / "results"


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument(
    "models",
    nargs=-1,
    required=True,
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
)
@click.option("--calls", default=100, show_default=True, type=click.IntRange(min=1))
@click.option(
    "-o",
    "--output",
    default=RESULTS / "operators.json",
    type=click.Path(path_type=Path, dir_okay=False),
    help="benchmarks/results/operators.json if not given.",
)
def operators(models: tuple[Path, ...], calls: int, output: Path) -> None:
    """Time the operators of MODELS, ONNX files, on OpenVINO."""
    results = []
    for model in models:
        with OpenVINOBackend(read_artifact(model)) as backend:
            image = _image(backend.contract.height, backend.contract.width)
            for _ in range(10):
                backend.run(image)
            call_ms = statistics.median(_call_ms(backend, image) for _ in range(calls))
            found = backend.operators(image, calls)
            results.append(
                {
                    "model": model.name,
                    "model_sha256": backend.artifact.sidecar.sha256,
                    "precision": backend.artifact.sidecar.precision,
                    "backend": backend.name,
                    "versions": backend.versions,
                    "threads": backend.threads,
                    "call_ms": call_ms,
                    "operators": [dataclasses.asdict(each) for each in found],
                }
            )
        together = sum(each.ms for each in found)
        click.echo(f"{model.name}: {call_ms:.2f} ms a call, {together:.2f} ms in its operators")
        for each in sorted(found, key=lambda each: -each.ms)[:10]:
            click.echo(f"  {each.ms:7.2f} ms  {each.kind:16} {each.kernel:32} {each.name}")
    words = ["python", "-m", "benchmarks.operators", *(model.name for model in models)]
    fields = {
        "schema_version": 1,
        "kind": "operators",
        "command": shlex.join([*words, "--calls", str(calls)]),
        "machine": describe_machine(),
        "formula": f"medians of {calls} calls on one image; call_ms without the runtime's "
        "counters, the operators' ms by them",
        "results": results,
    }
    output.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(output, json.dumps(fields, indent=1).encode() + b"\n", durable=True)
    click.echo(output)


def _image(height: int, width: int) -> Batch:
    made = synthetic.sample(1, 1, defective=True, size=max(height, width)).image
    return np.ascontiguousarray(made[None, None, :height, :width])


def _call_ms(backend: OpenVINOBackend, image: Batch) -> float:
    began = time.perf_counter()
    backend.run(image)
    return (time.perf_counter() - began) * 1e3


if __name__ == "__main__":
    sys.exit(run(operators))
