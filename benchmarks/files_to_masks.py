"""``python -m benchmarks.files_to_masks``: the cost of files beyond that of the bare backend.

The same images go through the same backend twice in turn: as arrays that are already in memory, and
as PNG files, written as OpenCV does by default, through ``infer``, with masks and report written.
The figure is the second rate divided by the first. Several models take turns within a round.

Then a backend that costs nothing goes over many links to these files, on one processor and on all
in turn (:mod:`benchmarks.free_backend`): the cost of files alone, and how it scales.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import click
import cv2

from benchmarks.free_backend import measure
from benchmarks.options import HELP, output_option, progress_lines, rounds_option, write_result
from benchmarks.synthetic_images import draw_images
from tinyunet_deploy.artifacts.sidecar import DEFAULT_ONNX
from tinyunet_deploy.backends.base import Backend
from tinyunet_deploy.backends.registry import open_backend
from tinyunet_deploy.backends.table import backend_names
from tinyunet_deploy.cli import run
from tinyunet_deploy.contract import Batch, Image
from tinyunet_deploy.errors import DataError
from tinyunet_deploy.host import describe_machine, processor_count
from tinyunet_deploy.inspection.infer import infer
from tinyunet_deploy.inspection.report_line import ReportLine


@click.command(context_settings=HELP)
@click.option(
    "-m",
    "--model",
    "models",
    multiple=True,
    default=(DEFAULT_ONNX,),
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="An artifact; can be repeated. Default: the package's model.",
)
@click.option("--backend", type=click.Choice(backend_names()))
@click.option(
    "--device", help="cpu or cuda:0. Default: cuda:0 for models that need a GPU, else cpu."
)
@click.option("--images", "count", default=200, show_default=True, type=click.IntRange(min=1))
@click.option(
    "--free-images",
    default=8000,
    show_default=True,
    type=click.IntRange(min=0),
    help="Files for a backend that costs nothing; 0 leaves it out.",
)
@rounds_option
@click.option("-b", "--batch-size", default=4, show_default=True, type=click.IntRange(min=1))
@output_option("pipeline.json")
def files_to_masks(
    models: tuple[Path, ...],
    backend: str | None,
    device: str | None,
    count: int,
    free_images: int,
    rounds: int,
    batch_size: int,
    output: Path,
) -> None:
    """Measure the rate of `infer` on PNG files against that of the backend on arrays."""
    words = ["python", "-m", "benchmarks.files_to_masks"]
    words += [word for model in models for word in ("--model", model.name)]
    words += ["--backend", backend] if backend else []
    words += ["--device", device] if device else []
    words += ["--images", str(count)]
    words += ["--free-images", str(free_images)] if free_images != 8000 else []
    words += ["--rounds", str(rounds), "--batch-size", str(batch_size)]
    with contextlib.ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        backends = [stack.enter_context(open_backend(model, backend, device)) for model in models]
        images = draw_images(count, *_common_size(backends), defective_every=4)
        folder = scratch / "images"
        folder.mkdir()
        for index, image in enumerate(images[:, 0]):
            _write_as_opencv(folder / f"{index:04}.png", image)
        for loaded in backends:
            loaded.run(images[:batch_size])
        measured: list[list[dict[str, Any]]] = [[] for _ in backends]
        progress = stack.enter_context(progress_lines(rounds * len(backends)))
        for number in range(rounds):
            for place, loaded in enumerate(backends):
                out = scratch / f"{number}-{place}"
                figures = _measure(loaded, images, folder, out, batch_size)
                measured[place].append(figures)
                progress.advance()
                click.echo(_line(loaded, figures), err=True)
        free: dict[str, Any] = {}
        if free_images:
            click.echo("a backend that costs nothing, on 1 processor and on all in turn", err=True)
            numbers = sorted({1, processor_count()})
            files = sorted(folder.iterdir())
            free["free_backend"] = measure(files, scratch, free_images, numbers, rounds)
        results = [
            _describe(loaded, of_model) for loaded, of_model in zip(backends, measured, strict=True)
        ]
    fields = {
        "kind": "pipeline",
        "command": shlex.join(words),
        "formula": "ratio = images/s of infer on PNG files / images/s of the backend on arrays; "
        "resident_mib = memory of this process, the arrays included, before infer, after a tenth "
        "of the images and after all",
        "machine": describe_machine(),
        "images": count,
        "image_px": list(images.shape[2:]),
        "batch_size": batch_size,
        "workers": processor_count(),
        "results": results,
        **free,
    }
    write_result(output, fields)
    for result in results:
        click.echo(f"{result['model']:24} median ratio {result['ratio_median']:.3f}")
    for alone in free.values():
        cost, ratio = alone["ms_of_one_processor_per_file"], alone["ratio"]
        click.echo(
            f"files alone: {cost:.2f} ms of one processor each, {ratio:.2f} times on all; "
            f"{alone['apart_ratio']:.2f} times by runs that share nothing"
        )
    click.echo(output)


def _common_size(backends: list[Backend]) -> tuple[int, int]:
    sizes = {(backend.contract.height, backend.contract.width) for backend in backends}
    if len(sizes) > 1:
        raise click.UsageError(f"models of the sizes {sorted(sizes)} share no images")
    return sizes.pop()


def _write_as_opencv(path: Path, image: Image) -> None:
    """Write a PNG file as camera software does; files that the library writes are faster to
    read."""
    path.write_bytes(cv2.imencode(".png", image)[1].tobytes())


def _measure(
    backend: Backend, images: Batch, folder: Path, output: Path, batch_size: int
) -> dict[str, Any]:
    """Return the two rates of one round, their ratio and the memory."""
    in_memory = len(images) / _seconds_in_memory(backend, images, batch_size)
    seconds, resident = _from_files(backend, folder, output, len(images), batch_size)
    from_files = len(images) / seconds
    return {
        "in_memory_images_per_s": in_memory,
        "from_files_images_per_s": from_files,
        "ratio": from_files / in_memory,
        "resident_mib": resident,
    }


def _seconds_in_memory(backend: Backend, images: Batch, batch_size: int) -> float:
    batches = (images[start : start + batch_size] for start in range(0, len(images), batch_size))
    started = time.perf_counter()
    for _ in backend.run_many(batches):
        pass
    return time.perf_counter() - started


def _from_files(
    backend: Backend, folder: Path, output: Path, count: int, batch_size: int
) -> tuple[float, dict[str, float]]:
    """Return the seconds, and the process's memory at the start, after a tenth and at the end."""
    resident = {"start": _resident_mib()}
    reported = 0

    def after_each_image(_: ReportLine) -> None:
        nonlocal reported
        reported += 1
        if reported == -(-count // 10):
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
        on_line=after_each_image,
    )
    seconds = time.perf_counter() - started
    resident["end"] = _resident_mib()
    if summary.inspected != count:
        raise DataError(output, f"has masks of {summary.inspected} of {count} images")
    return seconds, resident


def _resident_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGESIZE") / 2**20


def _line(backend: Backend, figures: dict[str, Any]) -> str:
    memory = " -> ".join(f"{mib:.0f}" for mib in figures["resident_mib"].values())
    return (
        f"{backend.artifact.path.name:24} "
        f"in memory {figures['in_memory_images_per_s']:6.2f} images/s   "
        f"files {figures['from_files_images_per_s']:6.2f} images/s   "
        f"ratio {figures['ratio']:.3f}   {memory} MiB"
    )


def _describe(backend: Backend, rounds: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "model": backend.artifact.path.name,
        "model_sha256": backend.artifact.sidecar.sha256,
        "precision": backend.artifact.sidecar.precision,
        "backend": backend.name,
        "device": backend.device,
        "versions": backend.versions,
        "rounds": rounds,
        "ratio_median": statistics.median(figures["ratio"] for figures in rounds),
    }


if __name__ == "__main__":
    sys.exit(run(files_to_masks))
