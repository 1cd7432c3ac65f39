"""``python -m benchmarks.files_to_masks``: the cost of files beside the bare backend.

The same images go through the same backend twice in turn: as arrays that are already in memory, and
as PNG files, written as OpenCV does by default, through ``infer``, masks and report written. The
figure is the second rate over the first. Several models take turns within a round.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import statistics
import sys
import tempfile
import time
from pathlib import Path

import click
import cv2
import numpy as np

from tinyunet_deploy.artifacts.sidecar import DEFAULT_ONNX
from tinyunet_deploy.backends.base import Backend
from tinyunet_deploy.backends.registry import BACKENDS, open_backend
from tinyunet_deploy.cli import run
from tinyunet_deploy.contract import Batch, Image
from tinyunet_deploy.data import synthetic
from tinyunet_deploy.errors import DataError
from tinyunet_deploy.files import write_atomic
from tinyunet_deploy.host import describe_machine, processor_count
from tinyunet_deploy.inspection.pipeline import infer
from tinyunet_deploy.inspection.run_report import Line

RESULTS = Path(__file__).parent / "results"


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "-m",
    "--model",
    "models",
    multiple=True,
    default=(DEFAULT_ONNX,),
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="An artifact; may be given again. The package's model if not given.",
)
@click.option("--backend", type=click.Choice(list(BACKENDS)))
@click.option("--device", help="cpu or cuda:0; the first GPU for what needs one if not given.")
@click.option("--images", "count", default=200, show_default=True, type=click.IntRange(min=1))
@click.option("--rounds", default=3, show_default=True, type=click.IntRange(min=1))
@click.option("-b", "--batch-size", default=4, show_default=True, type=click.IntRange(min=1))
@click.option(
    "-o",
    "--output",
    default=RESULTS / "pipeline.json",
    type=click.Path(path_type=Path, dir_okay=False),
    help="benchmarks/results/pipeline.json if not given.",
)
def pipeline(
    models: tuple[Path, ...],
    backend: str | None,
    device: str | None,
    count: int,
    rounds: int,
    batch_size: int,
    output: Path,
) -> None:
    """Measure the rate of `infer` on PNG files against that of the backend on arrays."""
    words = ["python", "-m", "benchmarks.files_to_masks"]
    words += [word for model in models for word in ("--model", model.name)]
    words += ["--backend", backend] if backend else []
    words += ["--device", device] if device else []
    words += ["--images", str(count), "--rounds", str(rounds), "--batch-size", str(batch_size)]
    with contextlib.ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        loaded = [stack.enter_context(open_backend(model, backend, device)) for model in models]
        sides = {side for each in loaded for side in (each.contract.height, each.contract.width)}
        if len(sides) > 1:
            raise click.UsageError(f"models of the sizes {sorted(sides)} share no images")
        folder = scratch / "images"
        folder.mkdir()
        batch = np.empty((count, 1, max(sides), max(sides)), np.uint8)
        for index, image in enumerate(batch[:, 0]):
            image[:] = synthetic.sample(
                1 + index % 10, index, defective=index % 4 == 0, size=max(sides)
            ).image
            _write_as_opencv(folder / f"{index:04}.png", image)
        results = [
            {
                "model": each.artifact.path.name,
                "model_sha256": each.artifact.sidecar.sha256,
                "precision": each.artifact.sidecar.precision,
                "backend": each.name,
                "device": each.device,
                "versions": each.versions,
                "rounds": [],
            }
            for each in loaded
        ]
        for each in loaded:
            each.run(batch[:batch_size])
        for number in range(rounds):
            for place, (each, result) in enumerate(zip(loaded, results, strict=True)):
                in_memory = count / _seconds_in_memory(each, batch, batch_size)
                out = scratch / f"{number}-{place}"
                seconds, resident = _from_files(each, folder, out, count, batch_size)
                one = {
                    "in_memory_images_per_s": in_memory,
                    "from_files_images_per_s": count / seconds,
                    "ratio": count / seconds / in_memory,
                    "resident_mib": resident,
                }
                result["rounds"].append(one)
                click.echo(
                    f"{result['model']:24} in memory {in_memory:6.2f} images/s   "
                    f"files {count / seconds:6.2f} images/s   ratio {one['ratio']:.3f}   "
                    f"{' -> '.join(f'{mib:.0f}' for mib in resident.values())} MiB",
                    err=True,
                )
    for result in results:
        result["ratio_median"] = statistics.median(one["ratio"] for one in result["rounds"])
    fields = {
        "schema_version": 1,
        "kind": "pipeline",
        "command": shlex.join(words),
        "formula": "ratio = images/s of infer on PNG files / images/s of the backend on arrays; "
        "resident_mib = memory of this process, the arrays included, before infer, after a tenth "
        "of the images and after all",
        "machine": describe_machine(),
        "images": count,
        "image_px": list(batch.shape[2:]),
        "batch_size": batch_size,
        "workers": processor_count(),
        "results": results,
    }
    write_atomic(output, json.dumps(fields, indent=2).encode() + b"\n", durable=True)
    for result in results:
        click.echo(f"{result['model']:24} median ratio {result['ratio_median']:.3f}")
    click.echo(output)


def _write_as_opencv(path: Path, image: Image) -> None:
    """A PNG file as a camera's program writes it; ours are made to be written and read faster."""
    path.write_bytes(cv2.imencode(".png", image)[1].tobytes())


def _seconds_in_memory(backend: Backend, batch: Batch, batch_size: int) -> float:
    pieces = (batch[start : start + batch_size] for start in range(0, len(batch), batch_size))
    started = time.perf_counter()
    for _ in backend.run_many(pieces):
        pass
    return time.perf_counter() - started


def _from_files(
    backend: Backend, folder: Path, output: Path, count: int, batch_size: int
) -> tuple[float, dict[str, float]]:
    """Seconds, and the process's memory at the start, after a tenth and at the end."""
    resident = {"start": _resident_mib()}
    done = 0

    def each(_: Line) -> None:
        nonlocal done
        done += 1
        if done == -(-count // 10):
            resident["after_a_tenth"] = _resident_mib()

    started = time.perf_counter()
    summary = infer(
        [folder],
        output,
        backend,
        threshold=backend.artifact.sidecar.threshold,
        min_area=backend.artifact.sidecar.min_area,
        batch_size=batch_size,
        workers=processor_count(),
        each=each,
    )
    seconds = time.perf_counter() - started
    resident["end"] = _resident_mib()
    if summary.ok != count:
        raise DataError(output, f"holds masks of {summary.ok} of {count} images")
    return seconds, resident


def _resident_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGESIZE") / 2**20


if __name__ == "__main__":
    sys.exit(run(pipeline))
