"""``tinyunet parity``."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tinyunet_deploy.cli.options import (
    classes_option,
    comparison_options,
    debug_option,
    format_option,
    operating_options,
    workers_option,
)

if TYPE_CHECKING:
    from rich.table import Table

    from tinyunet_deploy.quality.parity import Comparison, Parity


@click.command()
@click.argument("data", type=click.Path(path_type=Path, exists=True, file_okay=False))
@comparison_options
@classes_option
@operating_options
@click.option(
    "-b",
    "--batch-size",
    type=click.IntRange(min=1),
    default=4,
    show_default=True,
    help="Images per call, and the batch that is verified.",
)
@workers_option
@click.option("--explain", is_flag=True, help="Find the first stage at which each one parts.")
@click.option(
    "--record",
    is_flag=True,
    help="Write the verified batch into the sidecar of each green model; larger ones are refused.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder for parity.json, parity.xml (JUnit) and pictures of the worst images.",
)
@format_option
@debug_option
def parity(
    data: Path,
    models: tuple[Path, ...],
    reference: Path | None,
    backends: tuple[str, ...],
    devices: tuple[str, ...],
    limits_file: Path | None,
    classes: tuple[int, ...] | None,
    threshold: float | None,
    min_area: int | None,
    batch_size: int,
    workers: int | None,
    explain: bool,
    record: bool,
    output: Path | None,
    style: str,
) -> int:
    """Hold models against the network they came from.

    Artifacts on all backends are compared with the network in PyTorch on the images of DATA.
    DATA is a labelled data set, of which the held-out images are taken, or a folder of images.
    What cannot run here is listed as skipped. Exit 6 when a limit is broken.
    """
    from rich.console import Console
    from rich.progress import Progress

    from tinyunet_deploy.artifacts.sidecar import DEFAULT_ONNX
    from tinyunet_deploy.errors import GateFailed, RuntimeUnavailable
    from tinyunet_deploy.host import processor_count
    from tinyunet_deploy.quality.parity import Scores, compare, find_models, record_batches
    from tinyunet_deploy.quality.parity_limits import LIMITS, read_limits
    from tinyunet_deploy.quality.parity_report import as_json, write_report

    limits = read_limits(limits_file or LIMITS)
    with (
        Scores() as scores,
        Progress(console=Console(stderr=True), disable=not sys.stderr.isatty()) as bar,
    ):
        task = bar.add_task("", total=None)
        result = compare(
            find_models(models or (DEFAULT_ONNX,)),
            data,
            scores,
            limits=limits,
            reference=reference,
            classes=classes,
            backends=backends or None,
            devices=devices,
            threshold=threshold,
            min_area=min_area,
            batch_size=batch_size,
            workers=workers or processor_count(),
            explain=explain,
            progress=lambda what, count: bar.update(task, description=what, advance=count),
        )
        if output is not None:
            output.mkdir(parents=True, exist_ok=True)
            write_report(result, output)
    if style == "json":
        click.echo(as_json(result), nl=False)
    else:
        _print(result)
    for error in result.skipped_images[:10]:
        click.echo(f"skipped: {error}", err=True)
    if len(result.skipped_images) > 10:
        click.echo(f"skipped: {len(result.skipped_images) - 10} more images", err=True)
    if all(found.outcome == "skipped" for found in result.comparisons):
        raise RuntimeUnavailable(data, "nothing could be compared", "each has its reason above")
    if result.broken:
        found, check = result.broken[0]
        raise GateFailed(
            found.model,
            f"{check.limit.figure} on {found.backend} is {check.value:.6g}, {check.limit} wanted",
            f"{len(result.broken)} broken in all; {check.limit.reason}",
        )
    if record:
        for model, batch in record_batches(result).items():
            click.echo(f"{model}: batches up to {batch} are verified and recorded", err=True)
    return 3 if result.skipped_images else 0


def _print(result: Parity) -> None:
    from rich.console import Console

    console = Console()
    if not console.is_terminal:
        console = Console(width=120)
    truth = sum(part.item is not None for part in result.parts)
    console.print(
        f"reference {result.reference.name} on {result.reference_backend}, "
        f"{len(result.parts)} images of {result.folder}"
        f"{'' if truth else ' without truth'}, "
        f"threshold {result.threshold:g}, min_area {result.min_area} px",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )
    console.print(_table(result))
    for found in result.comparisons:
        if found.skipped is not None:
            text = f"skipped: {found.model.name} on {found.backend}: {found.skipped}"
            console.print(text, highlight=False, markup=False, soft_wrap=True)
        for flip in found.flips[:5]:
            text = f"flipped: {found.model.name} on {found.backend}: {flip.name} "
            text += f"{flip.reference} -> {flip.verdict}, {_kind(flip.defective)}"
            console.print(text, highlight=False, markup=False, soft_wrap=True)
    if any(found.explanation for found in result.comparisons):
        console.print(_stages(result))


def _table(result: Parity) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(
        box=box.SIMPLE_HEAD,
        padding=(0, 0, 0, 1),
        caption="steps of 1/255: largest / p99.9; pixels flipped: near / far from the threshold;\n"
        "parts: verdicts flipped on defective / false alarms gained; "
        "batch: largest run, its steps",
        caption_justify="left",
    )
    table.add_column("model", overflow="fold", min_width=12)
    table.add_column("backend", no_wrap=True)
    for name in ("steps", "agreement", "pixels\nflipped", "parts", "iou\nchange", "batch"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for found in result.comparisons:
        where = found.backend + ("" if found.device == "cpu" else f"\n{found.device}")
        table.add_row(found.model.name, where, *_cells(found), _outcome(found))
    return table


def _cells(found: Comparison) -> list[str]:
    if found.skipped is not None:
        return ["-"] * 6
    figures = found.figures
    batch = found.batch
    change = 0.0 - figures["iou_drop"]
    return [
        f"{figures['largest_steps']} / {figures['p999_steps']}",
        f"{math.floor(figures['agreement'] * 1e5) / 1e5:.5f}",
        f"{found.flipped_near} / {found.flipped_far}",
        f"{figures['flips_defective']} / {figures['new_alarms']:+d}",
        "-" if math.isnan(change) else f"{change:+.4f}",
        f"{batch.largest}: {figures['batch_steps']:g}" if batch else "-",
    ]


def _outcome(found: Comparison) -> str:
    colors = {"green": "green", "red": "bold red"}
    return f"[{colors.get(found.outcome, 'yellow')}]{found.outcome}[/]"


def _stages(result: Parity) -> Table:
    from rich import box
    from rich.table import Table

    from tinyunet_deploy.quality.parity import STAGES

    table = Table(
        title="where they part, on the image on which each is worst",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 0, 0, 1),
    )
    for name in ("model", "backend", *STAGES, "parts at"):
        table.add_column(name, overflow="fold")
    for found in result.comparisons:
        explained = found.explanation
        if explained is None:
            continue
        cells = [
            "-" if stage.difference is None else f"{stage.difference:.3g}"
            for stage in explained.stages
        ]
        first = explained.first.stage if explained.first else "nowhere"
        table.add_row(found.model.name, found.backend, *cells, first)
    return table


def _kind(defective: bool) -> str:
    return "a defective part" if defective else "a good part"
