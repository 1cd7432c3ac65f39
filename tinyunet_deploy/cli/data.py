"""Group ``tinyunet data``, with its commands ``check`` and ``synthesize``."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tinyunet_deploy.cli.data_convert import convert
from tinyunet_deploy.cli.data_init import init
from tinyunet_deploy.cli.options import (
    ClassList,
    bits_option,
    classes_option,
    debug_option,
    format_option,
)
from tinyunet_deploy.cli.progress import Progress

if TYPE_CHECKING:
    from tinyunet_deploy.data.check import Oddity
    from tinyunet_deploy.data.dataset import Dataset

_SHOWN = 10
"""Largest number of oddities of one kind that the table shows; JSON lists all."""


@click.group()
def data() -> None:
    """Describe, check or convert a data set, or write a synthetic one."""


data.add_command(convert)
data.add_command(init)


@data.command()
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@classes_option
@bits_option
@format_option
@debug_option
def check(folder: Path, classes: tuple[int, ...] | None, bits: int | None, style: str) -> None:
    """Count the images of DIR, compare the counts with those of DAGM2007, and list oddities.

    Exit with code 4 if training or evaluation would stop at one of the files.
    """
    from tinyunet_deploy.data.check import find_oddities
    from tinyunet_deploy.data.layouts import read_dataset
    from tinyunet_deploy.errors import DataError

    dataset = read_dataset(folder, classes=classes)
    with Progress("checking", len(dataset.items)) as progress:
        oddities = find_oddities(dataset, progress.advance, bits=bits)
    if style == "json":
        click.echo(json.dumps(_result(dataset, oddities), indent=2))
    else:
        _print_table(dataset, oddities)
    fatal = [oddity for oddity in oddities if oddity.fatal]
    if fatal:
        raise DataError(
            fatal[0].path,
            fatal[0].what + (f", and {len(fatal) - 1} more files are unusable" * (len(fatal) > 1)),
            "repair or remove these files",
        )


@data.command()
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--classes", type=ClassList(), default="1-10", show_default=True)
@click.option(
    "--train", default=80, show_default=True, help="Images of each class in the Train split."
)
@click.option(
    "--test", default=40, show_default=True, help="Images of each class in the Test split."
)
@click.option("--defective", default=0.25, show_default=True, help="Share of defective images.")
@click.option("--size", default=512, show_default=True, help="Width and height in pixels.")
@click.option("--seed", default=0, show_default=True, help="Seed of the random images.")
@debug_option
def synthesize(
    folder: Path,
    classes: tuple[int, ...],
    train: int,
    test: int,
    defective: float,
    size: int,
    seed: int,
) -> None:
    """Write synthetic images of ten classes to DIR in the layout of DAGM2007."""
    from tinyunet_deploy.data.synthetic import write_dataset

    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise click.UsageError(f"{folder} exists and is not an empty folder; name a new one")
    try:
        with Progress("writing", len(classes) * (train + test)) as progress:
            written = write_dataset(
                folder,
                classes=classes,
                train=train,
                test=test,
                defective=defective,
                size=size,
                seed=seed,
                progress=progress.advance,
            )
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    click.echo(f"wrote {written} images to {folder}; next: tinyunet data check {folder}")


def _result(dataset: Dataset, oddities: list[Oddity]) -> dict[str, object]:
    from tinyunet_deploy.data.counts import count_splits

    return {
        "schema_version": 1,
        "folder": str(dataset.root),
        "layout": dataset.layout,
        "usable": not any(oddity.fatal for oddity in oddities),
        "counts": [
            {
                "class": row.class_id,
                "split": row.split,
                "images": row.images,
                "defective": row.defective,
                "published_images": row.published and row.published[0],
                "published_defective": row.published and row.published[1],
            }
            for row in count_splits(dataset)
        ],
        "oddities": [
            {"kind": oddity.kind, "path": str(oddity.path), "what": oddity.what}
            for oddity in oddities
        ],
    }


def _print_table(dataset: Dataset, oddities: list[Oddity]) -> None:
    from rich.console import Console
    from rich.table import Table

    from tinyunet_deploy.data.counts import count_splits

    table = Table()
    table.add_column("class", justify="right")
    table.add_column("split")
    for name in ("images", "published", "defective", "published"):
        table.add_column(name, justify="right")
    table.add_column("")
    for row in count_splits(dataset):
        published = row.published or ("-", "-")
        cells = (
            row.class_id or "-",
            row.split or "-",
            row.images,
            published[0],
            row.defective,
            published[1],
        )
        table.add_row(*map(str, cells), row.against_published)
    click.echo(f"{click.format_filename(dataset.root)} ({dataset.layout} layout)")
    Console().print(table)
    shown: Counter[str] = Counter()
    for oddity in oddities:
        shown[oddity.kind] += 1
        if shown[oddity.kind] <= _SHOWN:
            click.echo(f"{oddity.kind}: {click.format_filename(oddity.path)} {oddity.what}")
    for kind, count in shown.items():
        if count > _SHOWN:
            click.echo(f"{kind}: {count - _SHOWN} more; --format json lists them all")
    if not oddities:
        click.echo("nothing odd")
