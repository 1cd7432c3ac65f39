"""``tinyunet tune``: choose threshold and min_area on labelled images."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from tinyunet_deploy.cli.folding import FoldedLines
from tinyunet_deploy.cli.options import (
    Threshold,
    bits_option,
    classes_option,
    debug_option,
    format_option,
    model_options,
    size_options,
)
from tinyunet_deploy.cli.progress import Progress

if TYPE_CHECKING:
    from tinyunet_deploy.quality.tuning import Tuning


class CostRatio(click.ParamType):  # type: ignore[type-arg]  # not subscriptable before click 8.4
    """``20:1``: an escape costs as much as 20 overkills; becomes 20.0."""

    name = "cost"

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        return "ESCAPE:OVERKILL"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        if isinstance(value, float):
            return value
        match = re.fullmatch(r"([0-9]+\.?[0-9]*):([0-9]+\.?[0-9]*)", str(value))
        escape, overkill = (float(match[1]), float(match[2])) if match else (0.0, 0.0)
        if not (escape > 0 and overkill > 0):
            self.fail(f"{value!r} is not a ratio such as 20:1", param, ctx)
        return escape / overkill


@click.command()
@click.argument("data", type=click.Path(path_type=Path))
@model_options
@classes_option
@click.option(
    "--split",
    type=click.Choice(["train", "val", "test", "all"]),
    help="Images to use. Default: val, else train, or all if the data set has no splits.",
)
@size_options
@bits_option
@click.option(
    "--cost",
    type=CostRatio(),
    default="20:1",
    show_default=True,
    help="Cost of a defective part let through, relative to a good part rejected.",
)
@click.option(
    "--max-escape-rate",
    type=click.FloatRange(0.0, 1.0, min_open=True, max_open=True),
    help="Instead of --cost: fewest rejects with at most this share of defects missed.",
)
@click.option(
    "--threshold",
    type=Threshold(),
    help="Keep this threshold and choose min_area alone.",
)
@click.option(
    "--confidence",
    type=click.FloatRange(0.5, 1.0, max_open=True),
    default=0.95,
    show_default=True,
    help="Confidence of the bounds on both rates.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder for the tuned copy of the model, tune.json, tune.svg and plateau.svg.",
)
@click.option("--in-place", is_flag=True, help="Write the choice into the model's own sidecar.")
@format_option
@debug_option
@click.pass_context
def tune(
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
    tile: bool,
    max_pixels: int | None,
    bits: int | None,
    cost: float,
    max_escape_rate: float | None,
    threshold: float | None,
    confidence: float,
    output: Path | None,
    in_place: bool,
    style: str,
) -> None:
    """Choose threshold and min_area on labelled images.

    The images in DATA become validation images: figures on the same images afterwards are not a
    test, and tinyunet evaluate says so. Nothing is written without -o or --in-place. Exit code 6
    if no choice keeps --max-escape-rate, 3 if images were skipped.
    """
    from tinyunet_deploy.backends.registry import open_backend
    from tinyunet_deploy.data.layouts import read_dataset
    from tinyunet_deploy.files import write_atomic
    from tinyunet_deploy.host import processor_count
    from tinyunet_deploy.inspection.drawing import require_matplotlib
    from tinyunet_deploy.quality import tuning
    from tinyunet_deploy.quality.dataset_scoring import tuning_images
    from tinyunet_deploy.quality.plateau_picture import PLATEAU, draw_plateaus
    from tinyunet_deploy.quality.tuning_report import CURVE, RESULT, draw_curve, tuning_json

    if output is not None:
        require_matplotlib()
    dataset = read_dataset(data, classes=classes, split=None if split == "all" else split)
    if split is None:
        dataset = tuning_images(dataset)
    with (
        Progress("loading the model", len(dataset.items)) as progress,
        open_backend(model, backend, device, trust_engine=trust_engine) as loaded,
    ):
        path = loaded.artifact.path
        if output is not None:
            tuning.check_output(output, path)
            output.mkdir(parents=True, exist_ok=True)
        progress.describe("scoring")
        result = tuning.tune(
            dataset,
            loaded,
            tuning.Rule(cost, max_escape_rate, confidence, threshold),
            batch_size=batch_size,
            workers=workers or processor_count(),
            tile=tile,
            max_pixels=max_pixels,
            bits=bits,
            progress=progress.advance,
        )
    text = tuning_json(result)
    if in_place:
        tuning.write_tuned(result, path)
    if output is not None:
        tuning.write_tuned(result, output / path.name)
        write_atomic(output / RESULT, text.encode())
        write_atomic(output / CURVE, draw_curve(result))
        write_atomic(output / PLATEAU, draw_plateaus([result.plateau]))
    if style == "json":
        click.echo(text, nl=False)
    else:
        _print_tables(result)
    if result.trained_on:
        click.echo(
            f"note: the model was trained on {result.trained_on} of these {len(result.images)} "
            "images and scores them better than new ones; images of a val part are a better choice",
            err=True,
        )
    written = [place for place in (in_place and path, output and output / path.name) if place]
    for place in written:
        click.echo(f"tuned: {click.format_filename(place)}", err=True)
    if output is not None:
        places = [click.format_filename(output / name) for name in (RESULT, CURVE, PLATEAU)]
        click.echo("result: {}  pictures: {}, {}".format(*places), err=True)
    if not written:
        click.echo("nothing written: give -o FOLDER or --in-place", err=True)
    lines = FoldedLines("--format json lists them all")
    for error in result.skipped.values():
        lines.add("skipped", error, error.reason)
    lines.finish()
    if result.skipped:
        context.exit(3)


def _print_tables(result: Tuning) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    from tinyunet_deploy.quality.plateau_report import plateau_lines

    sweep = result.sweep
    table = Table(
        title=f"{sweep.defective} defective and {sweep.good} good parts; {result.rule}",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 0, 0, 1),
    )
    confidence = f"at {result.rule.confidence:.4g}"
    for column in (
        *("", "threshold", "min area", "escapes", f"rate at\nmost, {confidence}"),
        *("overkills", f"rate at\nmost, {confidence}"),
    ):
        table.add_column(column, justify="right", no_wrap=True)
    named = [("before", result.before), ("chosen", result.chosen)]
    curve = [("", p) for p in sweep.best_for_each_escape_count() if p != result.chosen]
    for name, point in named + curve:
        bounds = result.bounds(point)
        table.add_row(
            name,
            f"{point.threshold:g}",
            str(point.min_area),
            f"{point.escapes}/{sweep.defective}",
            _share(bounds["escape_rate_upper"]),
            f"{point.overkills}/{sweep.good}",
            _share(bounds["overkill_rate_upper"]),
            end_section=name == "chosen",
        )
    console = Console()
    console.print(table)
    for line in plateau_lines(result.plateau):
        console.print(line, highlight=False, soft_wrap=True)


def _share(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.1%}"
