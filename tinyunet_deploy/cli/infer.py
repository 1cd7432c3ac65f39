"""``tinyunet infer``, also called ``tinyunet-infer``: find the defects in images."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tinyunet_deploy import __version__
from tinyunet_deploy.cli import stopping
from tinyunet_deploy.cli.folding import FoldedLines
from tinyunet_deploy.cli.options import (
    ShardType,
    bits_option,
    debug_option,
    format_option,
    model_options,
    operating_options,
    picture_options,
    size_options,
)
from tinyunet_deploy.cli.progress import Progress
from tinyunet_deploy.cli.shadowing import run_shadow, shadow_option

if TYPE_CHECKING:
    from tinyunet_deploy.backends.base import Backend
    from tinyunet_deploy.inspection.outputs import Outputs
    from tinyunet_deploy.inspection.report_line import ReportLine, RunSummary
    from tinyunet_deploy.inspection.shards import Shard
    from tinyunet_deploy.quality.shadow.run import ShadowRun


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
    help="Run on an inference server: http://HOST:8000/NAME or grpc://HOST:8001/NAME.",
)
@operating_options
@size_options
@bits_option
@click.option(
    "--mm-per-px",
    type=click.FloatRange(0.0, min_open=True),
    help="Side of a pixel on the part, millimetres; adds areas in mm² to the report.",
)
@click.option("--contours", is_flag=True, help="Put the outlines of defects into the report.")
@picture_options
@click.option(
    "--self-test", is_flag=True, help="First check the model's answers on its golden images."
)
@click.option(
    "--shard",
    type=ShardType(),
    help="Inspect one of N shares of the images; start all N, anywhere, with the same OUTPUT.",
)
@click.option(
    "--ray",
    metavar="ADDRESS",
    help="Run on the nodes of a Ray cluster: HOST:6379, or auto for the one on this machine.",
)
@shadow_option
@format_option
@click.version_option(__version__, prog_name="tinyunet-infer")
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
    max_pixels: int | None,
    bits: int | None,
    mm_per_px: float | None,
    contours: bool,
    overlays: bool,
    scores: bool,
    self_test: bool,
    shard: Shard | None,
    ray: str | None,
    shadow: Path | None,
    style: str,
) -> int:
    """Find defects in IMAGES (files and folders).

    Writes a mask for each image, mirroring the input tree, and one report. An image that cannot be
    used is skipped and reported (exit 3). The same command resumes an interrupted run.
    """
    import contextlib
    import functools
    from collections.abc import Callable

    from tinyunet_deploy import systems
    from tinyunet_deploy.backends.registry import open_backend
    from tinyunet_deploy.errors import RefusedError, TinyUNetError
    from tinyunet_deploy.host import processor_count
    from tinyunet_deploy.inspection.infer import infer as infer_images
    from tinyunet_deploy.inspection.outputs import Outputs
    from tinyunet_deploy.inspection.run_report import REPORT
    from tinyunet_deploy.quality.self_test import self_test as check_answers

    if server and (model or backend or device or trust_engine or self_test):
        raise click.UsageError(
            "the server chooses the model: use --server without --model, --backend, --device, "
            "--trust-engine and --self-test"
        )
    if ray and (server or shard):
        raise click.UsageError("--ray cannot be combined with --server or --shard")
    if shadow and (ray or shard):
        raise click.UsageError("--shadow cannot be combined with --ray or --shard")

    systems.keep_freed_memory()
    outputs = Outputs(overlays, scores, contours, mm_per_px)
    skipped = FoldedLines("the report has each reason")
    ng = 0
    challenger: ShadowRun | None = None

    def show(line: ReportLine) -> None:
        """Count one image; print it if it was skipped. A signal stops the run at this call."""
        nonlocal ng
        ng += line.get("verdict") == "NG"
        rate = (progress.done + 1) / progress.seconds
        progress.advance(1, f"{rate:.1f} images/s, {ng} NG")
        if line["status"] == "skipped":
            skipped.add("skipped", TinyUNetError(line["path"], line["what"]), line["reason"])
        if challenger is not None:
            challenger.reported(line)
        stopping.safe_place()

    with contextlib.ExitStack() as stack:
        progress = stack.enter_context(Progress("loading the model"))
        run: Callable[..., RunSummary]
        if ray:
            from tinyunet_deploy.inspection.ray_cluster import Loader, infer_on_ray

            # Ray reports lost workers on stdout, which is for results.
            stack.enter_context(contextlib.redirect_stdout(sys.stderr))
            check = check_answers if self_test else None
            loader = Loader(model, backend, device, trust_engine, check)
            run = functools.partial(infer_on_ray, ray, images, output, loader)
            runner = f"Ray at {ray}"
        else:
            if server:
                from tinyunet_deploy.backends.server import ServerBackend

                loaded: Backend = ServerBackend(server)
            else:
                loaded = open_backend(model, backend, device, trust_engine=trust_engine)
            stack.enter_context(loaded)
            if self_test:
                check_answers(loaded)
            decision = loaded.artifact.sidecar.decision(threshold, min_area)
            challenger = stack.enter_context(
                run_shadow(
                    shadow,
                    loaded,
                    decision,
                    output,
                    trust_engine=trust_engine,
                    has_deadline=False,
                )
            )
            observer = None if challenger is None else challenger.observe
            run = functools.partial(
                infer_images, images, output, loaded, shard=shard, observer=observer
            )
            runner = loaded.name
        progress.describe("inferring")
        summary = run(
            threshold=threshold,
            min_area=min_area,
            batch_size=batch_size,
            workers=workers or processor_count(),
            tile=tile,
            max_pixels=max_pixels,
            bits=bits,
            outputs=outputs,
            on_line=show,
            on_total=progress.expect,
        )
        skipped.finish()
    _print_summary(summary, output, outputs, shard, style)
    click.echo(f"{progress.done} images in {progress.seconds:.1f} s on {runner}", err=True)
    if not summary.inspected and not shard:
        raise RefusedError(output / REPORT, "no image was usable", "the report has each reason")
    return 3 if summary.skipped else 0


def _print_summary(
    summary: RunSummary, output: Path, outputs: Outputs, shard: Shard | None, style: str
) -> None:
    import dataclasses
    import json

    from tinyunet_deploy.inspection.report_line import passed_over_text
    from tinyunet_deploy.inspection.run_json import SHARDS
    from tinyunet_deploy.inspection.run_report import DEFECTS, REPORT

    if style == "json":
        click.echo(json.dumps({"schema_version": 2, **dataclasses.asdict(summary)}))
        return
    click.echo(
        f"{summary.images} images: {summary.ok} OK, {summary.ng} NG, "
        f"{summary.skipped} skipped{passed_over_text(summary)}"
    )
    folders = ["masks", *(["overlays"] * outputs.overlays), *(["scores"] * outputs.scores)]
    places = [
        f"{name}: {click.format_filename(output / name)} ({summary.inspected})" for name in folders
    ]
    if shard and (output / SHARDS).exists():
        waiting = f"when all {shard.count} shards are done"
        places += [f"report: {waiting}", f"defects: {waiting}"]
    else:
        for kind, name, what in (("report", REPORT, " images"), ("defects", DEFECTS, "")):
            with (output / name).open("rb") as file:
                count = sum(1 for _ in file) - 1  # the last line is a summary, or the first a head
            places.append(f"{kind}: {click.format_filename(output / name)} ({count}{what})")
    click.echo("  ".join(places))
