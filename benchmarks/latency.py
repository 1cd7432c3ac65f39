"""``python -m benchmarks.latency MODEL@BACKEND ...``: one image at a time, the contenders in turn.

A first look: medians of one run, whose ratios can be trusted where its milliseconds cannot.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from pathlib import Path

import click

from tinyunet_deploy import synthetic
from tinyunet_deploy.backends import open_backend
from tinyunet_deploy.cli import run
from tinyunet_deploy.files import write_atomic
from tinyunet_deploy.machine import describe_machine

RESULTS = Path(__file__).parent / "results"
PAUSE_S = 0.1
"""Between two calls: threads of a runtime spin for a while after it has answered."""


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("contenders", nargs=-1, required=True, metavar="MODEL@BACKEND...")
@click.option("-n", "--rounds", default=20, show_default=True, type=click.IntRange(min=1))
@click.option(
    "-o",
    "--output",
    default=RESULTS / "latency.json",
    show_default=True,
    type=click.Path(path_type=Path, dir_okay=False),
)
def latency(contenders: tuple[str, ...], rounds: int, output: Path) -> None:
    """Time each MODEL on its BACKEND on one synthetic image, after one call that is not counted."""
    backends = []
    for contender in contenders:
        model, _, name = contender.rpartition("@")
        backends.append(open_backend(Path(model), name))
    contract = backends[0].contract
    image = synthetic.sample(1, 5, defective=True, size=contract.height).image[None, None]
    samples: list[list[float]] = [[] for _ in backends]
    for backend in backends:
        backend.run(image)
    for _ in range(rounds):
        for backend, times in zip(backends, samples, strict=True):
            time.sleep(PAUSE_S)
            times.append(backend.run(image).device_ms)
    medians = [statistics.median(times) for times in samples]
    rows = [
        {
            "model": backend.artifact.path.name,
            "model_sha256": backend.artifact.sidecar.sha256,
            "precision": backend.artifact.sidecar.precision,
            "backend": backend.name,
            "versions": backend.versions,
            "median_ms": median,
            "times_as_fast_as_the_first": medians[0] / median,
            "samples_ms": times,
        }
        for backend, times, median in zip(backends, samples, medians, strict=True)
    ]
    for row in rows:
        click.echo(
            f"{row['model']:24} {row['backend']:12} {row['median_ms']:7.1f} ms   "
            f"{row['times_as_fast_as_the_first']:.2f} x"
        )
    result = {
        "schema_version": 1,
        "command": "python -m benchmarks.latency MODEL@BACKEND ...",
        "formula": "median over n of the time in the runtime, one image a call, in turn",
        "n": rounds,
        "image_px": [contract.height, contract.width],
        "machine": describe_machine(),
        "results": rows,
    }
    write_atomic(output, json.dumps(result, indent=2).encode() + b"\n", durable=True)


if __name__ == "__main__":
    sys.exit(run(latency))
