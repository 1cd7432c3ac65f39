"""``python -m benchmarks.pipeline``: what files cost on top of the bare backend.

The same images go through the same backend twice in turn: as arrays that are already in memory,
and as PNG files through ``infer``, masks and report written. The figure is the second rate over
the first.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

import click
import numpy as np

from tinyunet_deploy import synthetic
from tinyunet_deploy.backends import BACKENDS, Backend, open_backend, processor_count
from tinyunet_deploy.cli import run
from tinyunet_deploy.contract import Batch
from tinyunet_deploy.files import write_atomic
from tinyunet_deploy.images import write_png
from tinyunet_deploy.machine import describe_machine
from tinyunet_deploy.pipeline import infer

RESULTS = Path(__file__).parent / "results"


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("-m", "--model", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--backend", type=click.Choice(list(BACKENDS)))
@click.option("--images", "count", default=200, show_default=True, type=click.IntRange(min=1))
@click.option("--rounds", default=3, show_default=True, type=click.IntRange(min=1))
@click.option("-b", "--batch-size", default=4, show_default=True, type=click.IntRange(min=1))
@click.option(
    "-o",
    "--output",
    default=RESULTS / "pipeline.json",
    show_default=True,
    type=click.Path(path_type=Path, dir_okay=False),
)
def pipeline(
    model: Path | None, backend: str | None, count: int, rounds: int, batch_size: int, output: Path
) -> None:
    """Measure the rate of `infer` on PNG files against that of the backend on arrays."""
    with open_backend(model, backend) as loaded, tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "images"
        folder.mkdir()
        images = [
            synthetic.sample(1 + index % 10, index, defective=index % 4 == 0).image
            for index in range(count)
        ]
        for index, image in enumerate(images):
            write_png(folder / f"{index:04}.png", image)
        batch = np.stack(images)[:, None]
        loaded.run(batch[:batch_size])
        in_memory, from_files = [], []
        for number in range(rounds):
            in_memory.append(count / _seconds_in_memory(loaded, batch, batch_size))
            out = Path(scratch) / f"out{number}"
            started = time.perf_counter()
            infer(
                [folder],
                out,
                loaded,
                threshold=loaded.artifact.sidecar.threshold,
                min_area=loaded.artifact.sidecar.min_area,
                batch_size=batch_size,
                workers=processor_count(),
            )
            from_files.append(count / (time.perf_counter() - started))
            ratio = from_files[-1] / in_memory[-1]
            click.echo(
                f"in memory {in_memory[-1]:6.2f} images/s   files {from_files[-1]:6.2f} images/s   "
                f"ratio {ratio:.3f}",
                err=True,
            )
        ratios = [files / arrays for files, arrays in zip(from_files, in_memory, strict=True)]
        result = {
            "schema_version": 1,
            "command": "python -m benchmarks.pipeline",
            "formula": "ratio = images/s of infer on PNG files / images/s of the backend on arrays",
            "machine": describe_machine(),
            "model_sha256": loaded.artifact.sidecar.sha256,
            "precision": loaded.artifact.sidecar.precision,
            "backend": loaded.name,
            "versions": loaded.versions,
            "images": count,
            "image_px": [loaded.contract.height, loaded.contract.width],
            "batch_size": batch_size,
            "workers": processor_count(),
            "in_memory_images_per_s": in_memory,
            "from_files_images_per_s": from_files,
            "ratio": ratios,
            "ratio_median": statistics.median(ratios),
        }
    write_atomic(output, json.dumps(result, indent=2).encode() + b"\n", durable=True)
    click.echo(f"median ratio {result['ratio_median']:.3f}  ({output})")


def _seconds_in_memory(backend: Backend, batch: Batch, batch_size: int) -> float:
    started = time.perf_counter()
    for start in range(0, len(batch), batch_size):
        backend.run(batch[start : start + batch_size])
    return time.perf_counter() - started


if __name__ == "__main__":
    sys.exit(run(pipeline))
