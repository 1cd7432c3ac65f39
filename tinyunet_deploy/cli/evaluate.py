"""``tinyunet evaluate``: how well a model finds the defects of a labelled data set."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from tinyunet_deploy.cli.options import ClassList, load_backend, model_options

if TYPE_CHECKING:
    from rich.table import Table

    from tinyunet_deploy.evaluate import Evaluation
    from tinyunet_deploy.metrics import Ratios

_SHOWN = 10
"""Skipped images that are named on stderr; JSON names them all."""


@click.command()
@click.argument("data", type=click.Path(path_type=Path))
@model_options
@click.option("--classes", type=ClassList(), help="Only these classes.")
@click.option(
    "--split",
    type=click.Choice(["train", "test", "all"]),
    help="Images to use; test, or all where the data set has no split, unless given.",
)
@click.option(
    "--threshold",
    type=click.FloatRange(0, 1),
    help="Probability over which a pixel is a defect; the model's own unless given.",
)
@click.option(
    "--min-area",
    type=click.IntRange(min=1),
    help="Pixels that a defect has at least; the model's own unless given.",
)
@click.option(
    "--format", "form", type=click.Choice(["table", "json"]), default="table", show_default=True
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Also write the result, with the counts of every image, to this JSON file.",
)
@click.pass_context
def evaluate(
    context: click.Context,
    data: Path,
    model: Path | None,
    backend: str | None,
    device: str | None,
    batch_size: int,
    workers: int,
    classes: tuple[int, ...] | None,
    split: Literal["train", "test", "all"] | None,
    threshold: float | None,
    min_area: int | None,
    form: Literal["table", "json"],
    output: Path | None,
) -> None:
    """Measure how well a model finds the defects of the labelled images in DATA.

    Exit code 3 when images were skipped because they cannot be used.
    """
    from rich.console import Console
    from rich.progress import Progress

    from tinyunet_deploy import evaluate as evaluation
    from tinyunet_deploy.dagm2007 import read_dataset
    from tinyunet_deploy.files import write_atomic

    dataset = read_dataset(
        data, classes=classes, split=split if split in ("train", "test") else None
    )
    if split is None:
        dataset = evaluation.held_out(dataset)
    if output is not None:
        output.parent.mkdir(parents=True, exist_ok=True)
    loaded = load_backend(model, backend, device)
    sidecar = loaded.artifact.sidecar
    with Progress(console=Console(stderr=True), disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task("evaluating", total=len(dataset.items))
        result = evaluation.evaluate(
            dataset,
            loaded,
            threshold=sidecar.threshold if threshold is None else threshold,
            min_area=sidecar.min_area if min_area is None else min_area,
            batch_size=batch_size,
            workers=workers,
            progress=lambda count: bar.advance(task, count),
        )
    text = result.as_json()
    if output is not None:
        write_atomic(output, text.encode())
    if form == "json":
        click.echo(text, nl=False)
    else:
        _print_tables(result)
    if result.skipped:
        for error in list(result.skipped.values())[:_SHOWN]:
            click.echo(f"skipped: {error}", err=True)
        if len(result.skipped) > _SHOWN:
            click.echo(f"skipped: {len(result.skipped) - _SHOWN} more images", err=True)
        context.exit(3)


def _print_tables(result: Evaluation) -> None:
    from rich.console import Console

    console = Console()
    console.print(
        f"{result.model} ({result.precision}) with {result.backend} on {result.device}, "
        f"threshold {result.threshold:g}, min_area {result.min_area} px",
        highlight=False,
        soft_wrap=True,
    )
    console.print(_figures(result))
    console.print(_reference(result))


def _figures(result: Evaluation) -> Table:
    from rich.table import Table

    table = Table(
        caption="iou: I/U; dice: (2I+1e-5)/(A+B+1e-5), mean over all images; "
        "nothing: dice of predicting nothing",
    )
    table.add_column("class", justify="right")
