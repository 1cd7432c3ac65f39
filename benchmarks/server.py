"""``python -m benchmarks.server``: the cost of an inference server beyond the local backend's.

The same PNG files go through ``infer`` twice in turn: with ONNX Runtime in this process, and in a
Triton on this machine that runs the same file in ONNX Runtime. The figure is the second rate
divided by the first.
"""

from __future__ import annotations

import contextlib
import statistics
import sys
import tempfile
import time
from pathlib import Path

import click

from benchmarks.local_triton import serve
from benchmarks.options import HELP, output_option, progress_lines, rounds_option, write_result
from benchmarks.synthetic_images import draw_images
from tinyunet_deploy.artifacts.sidecar import DEFAULT_ONNX
from tinyunet_deploy.backends.base import Backend
from tinyunet_deploy.backends.registry import open_backend
from tinyunet_deploy.backends.server import ServerBackend
from tinyunet_deploy.cli import run
from tinyunet_deploy.data.encoding import write_png
from tinyunet_deploy.host import describe_machine, processor_count
from tinyunet_deploy.inspection.infer import infer


@click.command(context_settings=HELP)
@click.option(
    "-m",
    "--model",
    default=DEFAULT_ONNX,
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="An ONNX file. Default: the package's model.",
)
@click.option("--images", "count", default=200, show_default=True, type=click.IntRange(min=1))
@rounds_option
@click.option("-b", "--batch-size", default=8, show_default=True, type=click.IntRange(min=1))
@output_option("server.json")
def server(model: Path, count: int, rounds: int, batch_size: int, output: Path) -> None:
    """Measure the rate of `infer --server` against that of `infer` on the same runtime."""
    with contextlib.ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        served = stack.enter_context(serve(model, scratch))
        local = stack.enter_context(open_backend(model, "onnxruntime"))
        remote = stack.enter_context(ServerBackend(served.http))
        height, width = local.contract.height, local.contract.width
        folder = scratch / "images"
        folder.mkdir()
        images = draw_images(count, height, width, defective_every=4)
        for index, image in enumerate(images[:, 0]):
            write_png(folder / f"{index:04}.png", image)
        rates: dict[str, list[float]] = {"local": [], "server": []}
        progress = stack.enter_context(progress_lines(2 * rounds))
        for number in range(rounds):
            for name, backend in (("local", local), ("server", remote)):
                seconds = _seconds(folder, scratch / f"{name}{number}", backend, batch_size)
                rates[name].append(count / seconds)
                progress.advance()
                click.echo(f"{name:6} {rates[name][-1]:6.2f} images/s", err=True)
        ratios = [far / near for near, far in zip(*rates.values(), strict=True)]
        fields = {
            "command": "python -m benchmarks.server",
            "formula": "ratio = images/s of infer --server / images/s of infer",
            "machine": describe_machine(),
            "model_sha256": local.artifact.sidecar.sha256,
            "precision": local.artifact.sidecar.precision,
            "versions": {**local.versions, **remote.versions},
            "transport": "http",
            "server_backend": "python, calling onnxruntime",
            "images": count,
            "image_px": [height, width],
            "batch_size": batch_size,
            "local_images_per_s": rates["local"],
            "server_images_per_s": rates["server"],
            "ratio": ratios,
            "ratio_median": statistics.median(ratios),
        }
    write_result(output, fields)
    click.echo(f"median ratio {statistics.median(ratios):.3f}  ({output})")


def _seconds(folder: Path, output: Path, backend: Backend, batch_size: int) -> float:
    sidecar = backend.artifact.sidecar
    started = time.perf_counter()
    infer(
        [folder],
        output,
        backend,
        threshold=sidecar.threshold,
        min_area=sidecar.min_area,
        batch_size=batch_size,
        workers=processor_count(),
    )
    return time.perf_counter() - started


if __name__ == "__main__":
    sys.exit(run(server))
