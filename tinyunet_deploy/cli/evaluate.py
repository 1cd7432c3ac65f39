"""``tinyunet evaluate``: measure how well a model finds the defects of a labelled data set."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from tinyunet_deploy.cli.folding import FoldedLines
from tinyunet_deploy.cli.options import (
    bits_option,
    classes_option,
    debug_option,
    format_option,
    model_options,
    operating_options,
    size_options,
)
from tinyunet_deploy.cli.progress import Progress

if TYPE_CHECKING:
    from rich.table import Table

    from tinyunet_deploy.quality.evaluation import Evaluation
    from tinyunet_deploy.quality.metrics import Ratios


@click.command()
@click.argument("data", type=click.Path(path_type=Path))
@model_options
@classes_option
@click.option(
    "--split",
    type=click.Choice(["train", "val", "test", "all"]),
    help="Images to use. Default: test, or all if the data set has no splits.",
)
@operating_options
@size_options
@bits_option
@click.option(
    "--misses",
    type=click.Path(path_type=Path, file_okay=False),
    help="Write a picture of each missed defect into this folder.",
)
@click.option(
    "--overlays",
    type=click.Path(path_type=Path, file_okay=False),
    help="Write a picture of each image into this folder: its defects, verdict and truth.",
)
@format_option
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Also write the result, with the counts of every image, to this JSON file.",
)
@debug_option
@click.pass_context
def evaluate(
    context: click.Context,
    data: Path,
    model: Path | None,
    backend: str | None,
    device: str | None,
    trust_engine: bool,
    batch_size: int,
    workers: int | None,
    classes: tuple[int, ...] | None,
    split: Literal["train", "val", "test", "all"] | None,
    threshold: float | None,
    min_area: int | None,
    tile: bool,
    max_pixels: int | None,
    bits: int | None,
    misses: Path | None,
    overlays: Path | None,
    style: str,
    output: Path | None,
) -> None:
    """Measure a model on the labelled images in DATA.

    Exit code 3 if images were skipped because they cannot be used.
    """
    from tinyunet_deploy.backends.registry import open_backend
    from tinyunet_deploy.files import write_atomic
    from tinyunet_deploy.host import processor_count
    from tinyunet_deploy.quality import evaluation
    from tinyunet_deploy.quality.dataset_scoring import read_evaluated
    from tinyunet_deploy.quality.evaluation_report import evaluation_json

    dataset = read_evaluated(data, classes=classes, split=split)
    if output is not None:
        output.parent.mkdir(parents=True, exist_ok=True)
    with (
        Progress("loading the model", len(dataset.items)) as progress,
        open_backend(model, backend, device, trust_engine=trust_engine) as loaded,
    ):
        decision = loaded.artifact.sidecar.decision(threshold, min_area)
        progress.describe("evaluating")
        result = evaluation.evaluate(
            dataset,
            loaded,
            threshold=decision.threshold,
            min_area=decision.min_area,
            batch_size=batch_size,
            workers=workers or processor_count(),
            tile=tile,
            max_pixels=max_pixels,
            bits=bits,
            misses=misses,
            overlays=overlays,
            progress=progress.advance,
        )
    text = evaluation_json(result)
    if output is not None:
        write_atomic(output, text.encode(), durable=True)
    if style == "json":
        click.echo(text, nl=False)
    else:
        _print_tables(result)
    if result.trained_on:
        click.echo(
            f"note: the model was trained on {result.trained_on} of these {len(result.images)} "
            "images, so these figures do not test it",
            err=True,
        )
    if result.tuned_on:
        click.echo(
            f"note: the model's threshold and min_area were chosen on {result.tuned_on} of these "
            f"{len(result.images)} images, so these figures do not test them",
            err=True,
        )
    if output is not None:
        click.echo(f"result: {click.format_filename(output)}", err=True)
    if misses is not None:
        click.echo(f"misses: {click.format_filename(misses)}", err=True)
    if overlays is not None:
        click.echo(f"overlays: {click.format_filename(overlays)}", err=True)
    if result.skipped:
        lines = FoldedLines("--format json lists them all")
        for error in result.skipped.values():
            lines.add("skipped", error, error.reason)
        lines.finish()
        context.exit(3)


def _print_tables(result: Evaluation) -> None:
    from rich.console import Console

    from tinyunet_deploy.quality.plateau_report import plateau_lines
    from tinyunet_deploy.quality.score_quality import GRADED

    console = Console()
    console.print(
        f"{result.model} ({result.precision}), {result.backend} on {result.device}, "
        f"{len(result.images)} images of {result.dataset.root}\n",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )
    console.print(_figures(result))
    console.print(_reference(result))
    if result.true_defects or result.false_defects:
        console.print(_defects(result))
    if result.by_type:
        console.print(_types(result))
    quality = result.score_quality
    error = quality.parts.expected_calibration_error
    lines = plateau_lines(result.plateau)
    lines.append(
        f"scores: {quality.graded_parts} of {quality.images} parts between {GRADED[0]} and "
        f"{GRADED[1]}, calibration error {error:.3f}"
    )
    for line in lines:
        console.print(line, highlight=False, soft_wrap=True)
    total = result.all
    for event, count, trials, bound in (
        ("defective parts let through", total.escapes, total.defective, total.escape_rate_upper_95),
        (
            "good parts rejected",
            total.overkills,
            total.images - total.defective,
            total.overkill_rate_upper_95,
        ),
    ):
        if trials:
            console.print(
                f"{count} of {trials} {event}: at most {bound:.1%} at 95 % confidence",
                highlight=False,
            )


def _rows(result: Evaluation) -> dict[str, Ratios]:
    """Return a row for each class, and for several classes also their mean and all images."""
    rows: dict[str, Ratios] = {str(k): summary for k, summary in result.classes.items()}
    if len(rows) > 1:
        rows["mean"] = result.mean
    if len(rows) != 1:
        rows["all"] = result.all
    return rows


def _figures(result: Evaluation) -> Table:
    """Build the table of the figures at the operating threshold."""
    from tinyunet_deploy.quality.metrics import MetricSummary

    table = _table(
        "images",
        "iou\ndefective",
        "iou\nglobal",
        "dice",
        "dice of\nnothing",
        "escapes",
        "overkills",
        "AUROC",
        title=f"at threshold {result.threshold:g} and min_area {result.min_area} px",
    )
    for name, row in _rows(result).items():
        images = ""
        escapes, overkills = _cell(row.escape_rate), _cell(row.overkill_rate)
        if isinstance(row, MetricSummary):
            images = str(row.images)
            escapes = f"{row.escapes}/{row.defective}"
            overkills = f"{row.overkills}/{row.images - row.defective}"
        table.add_row(
            name,
            images,
            _cell(row.iou_defective),
            _cell(row.iou_global),
            _cell(row.dice),
            _cell(row.dice_nothing),
            escapes,
            overkills,
            _cell(row.auroc),
        )
    return table


def _reference(result: Evaluation) -> Table:
    """Build the table of NVIDIA's figure at its thresholds."""
    from tinyunet_deploy.quality.metrics import REFERENCE_THRESHOLDS

    table = _table(
        *(f"{threshold:g}" for threshold in REFERENCE_THRESHOLDS),
        "dice of\nnothing",
        title='dice at each threshold, published as "IoU" for U-Net Industrial',
    )
    for name, row in _rows(result).items():
        dice = [row.dice_reference[threshold] for threshold in REFERENCE_THRESHOLDS]
        table.add_row(name, *map(_cell, [*dice, row.dice_nothing]))
    return table


def _defects(result: Evaluation) -> Table:
    """Build the table of hits by size; sizes without a defect are left out."""
    from tinyunet_deploy.inspection.defects import recall_by_size

    table = _table(
        "in the truth",
        "hit",
        "missed",
        "recall",
        title=f"defects by true size; {result.false_defects} false ones",
        first="area px",
    )
    for row in recall_by_size(result.true_defects):
        if row.truth:
            size = f"{row.from_px}.." + ("" if row.below_px is None else str(row.below_px - 1))
            recall = _cell(row.hit / row.truth)
            table.add_row(size, str(row.truth), str(row.hit), str(row.truth - row.hit), recall)
    return table


def _types(result: Evaluation) -> Table:
    """Build the table of defects and parts by defect type, with bounds at 95 % confidence."""
    from rich.markup import escape

    table = _table(
        "in the truth",
        "hit",
        "recall",
        "at least",
        "parts",
        "escapes",
        "at most",
        title="defects by type; bounds at 95 % confidence",
        first="type",
    )
    for row in result.by_type:
        table.add_row(
            escape(row.type),
            str(row.defects),
            str(row.hit),
            _cell(row.recall),
            _cell(row.recall_lower_95),
            str(row.parts),
            str(row.escapes),
            _cell(row.escape_rate_upper_95),
        )
    return table


def _table(*columns: str, title: str, first: str = "class") -> Table:
    from rich import box
    from rich.table import Table

    table = Table(
        title=title,
        title_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 0, 0, 1),
    )
    for column in (first, *columns):
        table.add_column(column, justify="right", no_wrap=True)
    return table


def _cell(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3f}"
