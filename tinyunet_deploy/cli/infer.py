"""``tinyunet infer``, which is also ``tinyunet-infer``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tinyunet_deploy.cli.options import (
    ShardType,
    debug_option,
    format_option,
    model_options,
    operating_options,
    picture_options,
    tile_option,
)

if TYPE_CHECKING:
    from tinyunet_deploy.backends.base import Backend
    from tinyunet_deploy.inspection.shards import Shard


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("images", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True))
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder for masks/, report.jsonl and defects.csv.",
)
@model_options
@click.option(
    "--server",
    metavar="URL",
    help="Run in an inference server: http://HOST:8000/NAME or grpc://HOST:8001/NAME.",
)
@operating_options
@tile_option
@click.option(
    "--mm-per-px",
    type=click.FloatRange(0.0, min_open=True),
    help="Side of a pixel on the part, millimetres: areas of defects in mm², too.",
)
@click.option("--contours", is_flag=True, help="Put the outlines of defects into the report.")
@picture_options
@click.option(
    "--self-test", is_flag=True, help="First check the model's answers on its golden images."
)
@click.option(
    "--shard",
    type=ShardType(),
    help="Inspect one of N parts; start all N, anywhere, with the same OUTPUT.",
)
@click.option(
    "--ray",
    metavar="ADDRESS",
    help="Let the nodes of a Ray cluster do it: HOST:6379, or auto for the one of this machine.",
)
@format_option
@debug_option
def infer(
    images: tuple[Path, ...],
    output: Path,
    model: Path | None,
    backend: str | None,
    device: str | None,
    trust_engine: bool,
    batch_size: int,
    workers: int | None,
    server: str | None,
    threshold: float | None,
    min_area: int | None,
    tile: bool,
    mm_per_px: float | None,
    contours: bool,
    overlays: bool,
    scores: bool,
    self_test: bool,
    shard: Shard | None,
    ray: str | None,
    style: str,
) -> int:
    """Find defects in IMAGES, files and folders.

    Writes a mask for each image, mirroring the input tree, and one report. An image that cannot be
    used is skipped and reported (exit 3). The same command run again goes on where it stopped.
    """
    import contextlib
    import dataclasses
    import functools
    import json
    import time
    from collections.abc import Callable

    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

    from tinyunet_deploy.backends.registry import open_backend
    from tinyunet_deploy.errors import RefusedError, TinyUNetError
    from tinyunet_deploy.host import processor_count
    from tinyunet_deploy.inspection.pipeline import Outputs
    from tinyunet_deploy.inspection.pipeline import infer as infer_images
    from tinyunet_deploy.inspection.run_report import DEFECTS, REPORT, SHARDS, Line, Summary
    from tinyunet_deploy.quality.self_test import self_test as check_answers

    if server and (model or backend or device or trust_engine or self_test):
        raise click.UsageError("--server says itself what it runs, and where")
    if ray and (server or shard):
        raise click.UsageError("--ray goes without --server and --shard")

    console = Console(stderr=True)
    with contextlib.ExitStack() as stack:
        run: Callable[..., Summary]
        if ray:
            from tinyunet_deploy.inspection.ray_cluster import Loader, infer_on_ray

            # Ray tells of lost workers on stdout, which is for results.
            stack.enter_context(contextlib.redirect_stdout(sys.stderr))
            loader = Loader(
                model, backend, device, trust_engine, check_answers if self_test else None
            )
            run = functools.partial(
                infer_on_ray, ray, images, output, loader, threshold=threshold, min_area=min_area
            )
            where = f"Ray at {ray}"
        else:
            if server:
                from tinyunet_deploy.backends.server import ServerBackend

                loaded: Backend = ServerBackend(server)
            else:
                loaded = open_backend(model, backend, device, trust_engine=trust_engine)
            stack.enter_context(loaded)
            if self_test:
                check_answers(loaded)
            sidecar = loaded.artifact.sidecar
            run = functools.partial(
                infer_images,
                images,
                output,
                loaded,
                threshold=sidecar.threshold if threshold is None else threshold,
                min_area=sidecar.min_area if min_area is None else min_area,
                shard=shard,
            )
            where = loaded.name
        with Progress(
            TextColumn("inferring"),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.completed} images"),
            TextColumn("{task.fields[rate]:.1f} images/s  {task.fields[ng]} NG"),
            console=console,
            disable=not sys.stderr.isatty(),
        ) as progress:
            bar = progress.add_task("", total=None, rate=0.0, ng=0)
            started = time.monotonic()
            done = ng = 0

            def each(line: Line) -> None:
                nonlocal done, ng
                done += 1
                ng += line.get("verdict") == "NG"
                rate = done / (time.monotonic() - started)
                progress.update(bar, completed=done, rate=rate, ng=ng)
                if line["status"] == "skipped":
                    click.echo(f"skipped: {TinyUNetError(line['path'], line['what'])}", err=True)

            summary = run(
                batch_size=batch_size,
                workers=workers or processor_count(),
                tile=tile,
                outputs=Outputs(overlays, scores, contours, mm_per_px),
                each=each,
            )
            seconds = time.monotonic() - started
    if style == "json":
        click.echo(json.dumps({"schema_version": 1, **dataclasses.asdict(summary)}))
    else:
        click.echo(
            f"{summary.images} images: {summary.ok - summary.ng} OK, {summary.ng} NG, "
            f"{summary.skipped} skipped"
        )
        names = {"masks": "masks", "report": REPORT, "defects": DEFECTS}
        places = {what: click.format_filename(output / name) for what, name in names.items()}
        if shard and (output / SHARDS).exists():
            places["report"] = places["defects"] = f"when all {shard.count} shards are done"
        click.echo("  ".join(f"{what}: {place}" for what, place in places.items()))
    click.echo(f"{done} images in {seconds:.1f} s on {where}", err=True)
    if not summary.ok and not shard:
        raise RefusedError(output / REPORT, "no image was usable", "each has its reason there")
    return 3 if summary.skipped else 0
