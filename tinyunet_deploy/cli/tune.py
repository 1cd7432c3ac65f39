"""``tinyunet tune``: choose threshold and min_area on labelled images."""

from __future__ import annotations

import math
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from tinyunet_deploy.cli.options import (
    classes_option,
    debug_option,
    format_option,
    model_options,
    tile_option,
)

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
            self.fail(f"{value!r} is no ratio such as 20:1", param, ctx)
        return escape / overkill


@click.command()
@click.argument("data", type=click.Path(path_type=Path))
@model_options
@classes_option
@click.option(
    "--split",
    type=click.Choice(["train", "test", "all"]),
    help="Images to use; train, or all where the data set has no split, unless given.",
)
@tile_option
@click.option(
    "--cost",
    type=CostRatio(),
    default="20:1",
    show_default=True,
    help="What a defective part let through costs, against a good one rejected.",
)
@click.option(
    "--max-escape-rate",
    type=click.FloatRange(0.0, 1.0, min_open=True, max_open=True),
    help="Instead of cost: fewest rejects with at most this share let through, surely.",
)
@click.option(
    "--confidence",
    type=click.FloatRange(0.5, 1.0, max_open=True),
    default=0.95,
    show_default=True,
    help="How surely.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder for the tuned copy of the model, tune.json and tune.svg.",
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
    split: Literal["train", "test", "all"] | None,
    tile: bool,
    cost: float,
    max_escape_rate: float | None,
    confidence: float,
    output: Path | None,
    in_place: bool,
    style: str,
) -> None:
    """Choose threshold and min_area on labelled images.

    Those in DATA are validation images: figures of the same images afterwards are no test, and
    tinyunet evaluate says so. Without -o and --in-place nothing is written. Exit code 6 when no
    choice keeps --max-escape-rate, 3 when images were skipped.
    """
    import dataclasses

    from rich.console import Console
    from rich.progress import Progress

    from tinyunet_deploy.backends.registry import open_backend
    from tinyunet_deploy.data.layouts import read_dataset
    from tinyunet_deploy.errors import RefusedError
    from tinyunet_deploy.files import write_atomic
    from tinyunet_deploy.host import processor_count
    from tinyunet_deploy.quality import tuning as workbench

    dataset = read_dataset(data, classes=classes, split=None if split == "all" else split)
    if split is None and any(item.split == "train" for item in dataset.items):
        train = tuple(item for item in dataset.items if item.split == "train")
        dataset = dataclasses.replace(dataset, items=train)
    rule = workbench.Rule(cost, max_escape_rate, confidence)
    with (
        open_backend(model, backend, device, trust_engine=trust_engine) as loaded,
        Progress(console=Console(stderr=True), disable=not sys.stderr.isatty()) as bar,
    ):
        path = loaded.artifact.path
        if output is not None:
            output.mkdir(parents=True, exist_ok=True)
            if output.resolve() == path.parent.resolve():
                raise RefusedError(output, "is the model's own folder", "--in-place writes there")
        task = bar.add_task("scoring", total=len(dataset.items))
        result = workbench.tune(
            dataset,
            loaded,
            rule,
            batch_size=batch_size,
            workers=workers or processor_count(),
            tile=tile,
            progress=lambda count: bar.advance(task, count),
        )
    text = result.as_json()
    if in_place:
        workbench.write_tuned(result, path)
    if output is not None:
        workbench.write_tuned(result, output / path.name)
        write_atomic(output / workbench.RESULT, text.encode())
        curve = workbench.draw_curve(result)
        if curve is None:
            click.echo("no tune.svg: matplotlib is not installed", err=True)
        else:
            write_atomic(output / workbench.CURVE, curve)
    if style == "json":
        click.echo(text, nl=False)
    else:
        _print_tables(result)
    written = [place for place in (in_place and path, output and output / path.name) if place]
    for place in written:
        click.echo(f"tuned: {click.format_filename(place)}", err=True)
    if not written:
        click.echo("nothing written: -o FOLDER or --in-place does", err=True)
    for error in result.skipped.values():
        click.echo(f"skipped: {error}", err=True)
    if result.skipped:
        context.exit(3)


def _print_tables(result: Tuning) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    found = result.sweep
    table = Table(
        title=f"{found.defective} defective and {found.good} good parts; {result.rule}",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 0, 0, 1),
    )
    surely = f"at {result.rule.confidence:.4g}"
    for column in (
        *("", "threshold", "min area", "escapes", f"rate at\nmost, {surely}"),
        *("overkills", f"rate at\nmost, {surely}"),
    ):
        table.add_column(column, justify="right", no_wrap=True)
    named = [("before", result.before), ("chosen", result.chosen)]
    for name, choice in [*named, *(("", point) for point in found.best_for_each_escape_count())]:
        bounds = result.bounds(choice)
        table.add_row(
            name,
            f"{choice.threshold:g}",
            str(choice.min_area),
            f"{choice.escapes}/{found.defective}",
            _share(bounds["escape_rate_upper"]),
            f"{choice.overkills}/{found.good}",
            _share(bounds["overkill_rate_upper"]),
            end_section=name == "chosen",
        )
    Console().print(table)


def _share(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.1%}"
