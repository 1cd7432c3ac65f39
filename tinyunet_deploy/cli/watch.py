"""``tinyunet watch``: inspect images as a camera drops them into a folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from tinyunet_deploy.cli import stopping
from tinyunet_deploy.cli.options import (
    bits_option,
    debug_option,
    format_option,
    model_options,
    operating_options,
    picture_options,
    size_options,
)
from tinyunet_deploy.cli.shadowing import run_shadow, shadow_option

if TYPE_CHECKING:
    from tinyunet_deploy.inspection.report_line import ReportLine

PROGRESS_EVERY_S: Final = 60.0
"""Time between two lines that say that the watch goes on, seconds."""


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder for masks/ and report.jsonl.",
)
@model_options
@operating_options
@size_options
@bits_option
@picture_options
@click.option(
    "--deadline-ms",
    type=click.FloatRange(min=0, min_open=True),
    help="Mark verdicts that come later than this after the image; exit with 6 if there are any.",
)
@click.option(
    "--settle-ms",
    type=click.FloatRange(min=0),
    default=50.0,
    show_default=True,
    help="Inspect a file once its size, time and content have not changed for this long.",
)
@click.option(
    "--away-s",
    type=click.FloatRange(min=0),
    default=60.0,
    show_default=True,
    help="Wait this long for FOLDER if it disappears, such as a network share.",
)
@shadow_option
@format_option
@debug_option
def watch(
    folder: Path,
    output: Path,
    model: Path | None,
    backend: str | None,
    device: str | None,
    trust_engine: bool,
    batch_size: int,
    workers: int | None,
    threshold: float | None,
    min_area: int | None,
    tile: bool,
    max_pixels: int | None,
    bits: int | None,
    overlays: bool,
    scores: bool,
    deadline_ms: float | None,
    settle_ms: float,
    away_s: float,
    shadow: Path | None,
    style: str,
) -> int:
    """Inspect images as a camera drops them into FOLDER.

    Prints one line per part as soon as its mask is written. Waits until half-written files are
    complete. SIGTERM or Ctrl-C ends the watch with its report complete; the same command resumes
    it.
    """
    import threading

    from tinyunet_deploy.backends.registry import open_backend
    from tinyunet_deploy.cli.progress import Progress
    from tinyunet_deploy.errors import GateFailed
    from tinyunet_deploy.host import processor_count
    from tinyunet_deploy.inspection.outputs import Outputs
    from tinyunet_deploy.inspection.report_line import passed_over_text
    from tinyunet_deploy.inspection.run_report import REPORT
    from tinyunet_deploy.inspection.watch import watch as watch_folder

    stop = threading.Event()
    progress = Progress("watching", unit="parts", bar=False, every_s=PROGRESS_EVERY_S)

    def on_line(line: ReportLine) -> None:
        progress.advance()
        _print_line(line, style)
        if challenger is not None:
            challenger.reported(line)

    with (
        open_backend(model, backend, device, trust_engine=trust_engine) as loaded,
        run_shadow(
            shadow,
            loaded,
            loaded.artifact.sidecar.decision(threshold, min_area),
            output,
            trust_engine=trust_engine,
            has_deadline=True,
        ) as challenger,
    ):
        click.echo(
            f"watching {click.format_filename(folder)} on {loaded.name}; Ctrl-C ends it", err=True
        )
        with stopping.reacting(stop.set, waits=True), progress:
            watched = watch_folder(
                folder,
                output,
                loaded,
                threshold=threshold,
                min_area=min_area,
                tile=tile,
                bits=bits,
                max_pixels=max_pixels,
                batch_size=batch_size,
                workers=workers or processor_count(),
                stop=stop,
                outputs=Outputs(overlays, scores),
                observer=None if challenger is None else challenger.observe,
                deadline_ms=deadline_ms,
                settle_ms=settle_ms,
                away_s=away_s,
                on_line=on_line,
            )
    summary = watched.summary
    click.echo(
        f"{summary.images} images: {summary.ok} OK, {summary.ng} NG, "
        f"{summary.skipped} skipped{passed_over_text(summary)}; "
        f"report: {click.format_filename(output / REPORT)}",
        err=True,
    )
    if watched.late:
        raise GateFailed(
            output / REPORT,
            f"{watched.late} of {watched.timed} verdicts came later than {deadline_ms:g} ms",
            'the report marks them with "late": true',
        )
    return 3 if summary.skipped else 0


def _print_line(line: ReportLine, style: str) -> None:
    import json

    from tinyunet_deploy.errors import TinyUNetError

    if style == "json":
        click.echo(json.dumps(line))
        return
    defects = line.get("defects", [])
    finding = line.get("what") or "no defect"
    if defects:
        plural = "s, the largest" if len(defects) > 1 else ","
        finding = f"{len(defects)} defect{plural} {defects[0]['area_px']} px"
    latency_ms = line["latency_ms"]
    latency = "" if latency_ms is None else f"{latency_ms:.0f} ms"
    late = "LATE" if line.get("late") else ""
    verdict = line.get("verdict", "skipped")
    click.echo(f"{verdict:7} {latency:>8} {late:4}  {TinyUNetError(line['path'], finding)}")
