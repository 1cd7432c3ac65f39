"""``tinyunet data check``: count a data set, list what is odd, and draw a contact sheet."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tinyunet_deploy.cli.options import bits_option, classes_option, debug_option, format_option
from tinyunet_deploy.cli.progress import Progress

if TYPE_CHECKING:
    from tinyunet_deploy.data.check import Check
    from tinyunet_deploy.data.dataset import Dataset

_SHOWN = 10
"""Largest number of oddities of one kind that the table shows; JSON lists all."""
_KINDS = 5
"""Largest number of sizes, and of mask values, that the table shows."""


@click.command()
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@classes_option
@bits_option
@click.option(
    "--sheet",
    type=click.Path(path_type=Path, file_okay=False),
    help="Write a contact sheet of images with their truth into this folder, as HTML and PNG.",
)
@format_option
@debug_option
def check(
    folder: Path, classes: tuple[int, ...] | None, bits: int | None, sheet: Path | None, style: str
) -> None:
    """Count the images of DIR, compare the counts with those of DAGM2007, and list oddities.

    Exit with code 4 if training or evaluation would stop at one of the files.
    """
    from tinyunet_deploy.data.check import check_dataset
    from tinyunet_deploy.data.layouts import read_dataset
    from tinyunet_deploy.errors import DataError
    from tinyunet_deploy.inspection.html_page import require_jinja2

    if sheet is not None:
        require_jinja2()
    dataset = read_dataset(folder, classes=classes)
    with Progress("checking", len(dataset.items)) as progress:
        result = check_dataset(dataset, progress.advance, bits=bits)
    if style == "json":
        click.echo(json.dumps(_fields(dataset, result), indent=2))
    else:
        _print_table(dataset, result)
    if sheet is not None:
        _write_sheet(dataset, result, sheet, bits)
    fatal = [oddity for oddity in result.oddities if oddity.fatal]
    if fatal:
        raise DataError(
            fatal[0].path,
            fatal[0].what + (f", and {len(fatal) - 1} more files are unusable" * (len(fatal) > 1)),
            "repair or remove these files",
        )


def _write_sheet(dataset: Dataset, result: Check, folder: Path, bits: int | None) -> None:
    from tinyunet_deploy.files import write_atomic
    from tinyunet_deploy.inspection.contact_sheet import (
        PAGE,
        PICTURE,
        draw_picture,
        page_of,
        shown_parts,
    )

    parts = shown_parts(dataset, bits)
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / PICTURE, draw_picture(parts))
    write_atomic(folder / PAGE, page_of(dataset, parts, _facts(result)))
    click.echo(f"sheet: {click.format_filename(folder / PAGE)}", err=True)


def _facts(result: Check) -> list[str]:
    """Return sizes, depths and values of masks, one line each."""
    sizes = [(f"{width}x{height}", count) for (height, width), count in result.sizes.most_common()]
    return [
        f"{name}: {_counted(counts)}"
        for name, counts in (
            ("sizes", sizes),
            ("stored bits", result.depths.most_common()),
            ("mask values", result.mask_values.most_common()),
        )
        if counts
    ]


def _counted(counts: list[tuple[str, int]] | list[tuple[int, int]]) -> str:
    shown = "; ".join(f"{value} in {count}" for value, count in counts[:_KINDS])
    rest = len(counts) - _KINDS
    return shown + (f"; {rest} more" if rest > 0 else "")


def _fields(dataset: Dataset, result: Check) -> dict[str, object]:
    from tinyunet_deploy.data.counts import count_splits

    return {
        "schema_version": 1,
        "folder": str(dataset.root),
        "layout": dataset.layout,
        "usable": not any(oddity.fatal for oddity in result.oddities),
        "class_names": {str(number): name for number, name in dataset.class_names.items()},
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
        "sizes": [
            {"height": height, "width": width, "images": count}
            for (height, width), count in result.sizes.most_common()
        ],
        "stored_bits": [
            {"bits": bits, "images": count} for bits, count in result.depths.most_common()
        ],
        "mask_values": [
            {"values": values, "masks": count} for values, count in result.mask_values.most_common()
        ],
        "oddities": [
            {"kind": oddity.kind, "path": str(oddity.path), "what": oddity.what}
            for oddity in result.oddities
        ],
    }


def _print_table(dataset: Dataset, result: Check) -> None:
    from rich.console import Console
    from rich.table import Table

    from tinyunet_deploy.data.counts import count_splits
    from tinyunet_deploy.errors import printable

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
    for number, product in dataset.class_names.items():
        click.echo(f"class {number}: {printable(product)}")
    for fact in _facts(result):
        click.echo(fact)
    shown: Counter[str] = Counter()
    for oddity in result.oddities:
        shown[oddity.kind] += 1
        if shown[oddity.kind] <= _SHOWN:
            click.echo(f"{oddity.kind}: {click.format_filename(oddity.path)} {oddity.what}")
    for kind, count in shown.items():
        if count > _SHOWN:
            click.echo(f"{kind}: {count - _SHOWN} more; --format json lists them all")
    if not result.oddities:
        click.echo("nothing odd")
