"""Group ``tinyunet data``, with its command ``synthesize``."""

from __future__ import annotations

from pathlib import Path

import click

from tinyunet_deploy.cli.data_check import check
from tinyunet_deploy.cli.data_convert import convert
from tinyunet_deploy.cli.data_init import init
from tinyunet_deploy.cli.options import (
    ClassList,
    debug_option,
)
from tinyunet_deploy.cli.progress import Progress


@click.group()
def data() -> None:
    """Describe, check, convert or synthesize a data set."""


data.add_command(convert)
data.add_command(init)
data.add_command(check)


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
