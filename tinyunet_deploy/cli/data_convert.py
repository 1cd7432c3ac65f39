"""``tinyunet data convert``: turn the annotations of other tools into images/ and masks/."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from tinyunet_deploy.cli.options import debug_option, format_option
from tinyunet_deploy.cli.progress import Progress

if TYPE_CHECKING:
    from tinyunet_deploy.data.conversion.model import Format
    from tinyunet_deploy.data.conversion.writer import Conversion


@click.command()
@click.argument("source", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder to make for images/ and masks/, below train/, val/ and test/ if SOURCE has them.",
)
@click.option(
    "--from",
    "chosen",
    type=click.Choice(["coco", "yolo", "labelme", "cvat"]),
    help="Format of SOURCE. Default: recognised.",
)
@click.option(
    "--defects",
    metavar="LABELS",
    help="Labels that mean a defect, such as scratch,dent. Default: all.",
)
@click.option(
    "--unlabelled",
    type=click.Choice(["good", "skip"]),
    help="Take images without annotations as good parts, or leave them out. Default: refuse them, "
    "but for YOLO, where such an image is a good part.",
)
@format_option
@debug_option
def convert(
    source: Path,
    output: Path,
    chosen: Format | None,
    defects: str | None,
    unlabelled: Literal["good", "skip"] | None,
    style: str,
) -> None:
    """Convert annotations of COCO, YOLO-seg, LabelMe or CVAT.

    SOURCE is a folder, a zip archive, or one JSON or XML file beside its images. Whatever is not
    understood is refused (exit code 4), and nothing is written then.
    """
    from tinyunet_deploy.data.conversion.writer import convert

    labels = None if defects is None else [label.strip() for label in defects.split(",")]
    with Progress("converting") as progress:
        conversion = convert(
            source,
            output,
            chosen=chosen,
            defects=labels,
            unlabelled=unlabelled,
            total=progress.expect,
            progress=progress.advance,
        )
    if style == "json":
        click.echo(json.dumps(_result(conversion, output), indent=2))
    else:
        _print(conversion, source, output, skipped=unlabelled == "skip")


def _result(conversion: Conversion, output: Path) -> dict[str, object]:
    return {
        "schema_version": 1,
        "folder": str(output),
        "format": conversion.format,
        "splits": [
            {"split": split, "images": counts.images, "defective": counts.defective}
            for split, counts in conversion.splits.items()
        ],
        "types": [
            {"value": value, "label": label, "annotations": conversion.annotations[label]}
            for value, label in conversion.types.items()
        ],
        "annotations_left_out": conversion.left_out,
        "images_unlabelled": conversion.unlabelled,
    }


def _print(conversion: Conversion, source: Path, output: Path, *, skipped: bool) -> None:
    click.echo(f"{click.format_filename(source)} ({conversion.format})")
    for split, counts in conversion.splits.items():
        name = f"{split}: " if split else ""
        click.echo(f"{name}{counts.images} images, {counts.defective} of them defective")
    for value, label in conversion.types.items():
        number = conversion.annotations[label]
        click.echo(f"{label}: {number} annotations, value {value} in the masks")
    for label, number in conversion.left_out.items():
        click.echo(f"{label}: {number} annotations left out, as it is not among --defects")
    if conversion.unlabelled:
        what = "left out" if skipped else "taken as good parts"
        click.echo(f"{conversion.unlabelled} images without annotations {what}")
    shown = click.format_filename(output)
    click.echo(f"wrote {shown}; next: tinyunet data check {shown}")
