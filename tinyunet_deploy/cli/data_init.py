"""``tinyunet data init``: propose the description of a data set."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from tinyunet_deploy.cli.options import debug_option


@click.command()
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--dry-run", is_flag=True, help="Print the description instead of writing it.")
@click.option("--force", is_flag=True, help="Replace a description that DIR has.")
@debug_option
def init(folder: Path, dry_run: bool, force: bool) -> None:
    """Look at DIR and write dataset.toml, which says how its images and masks are read.

    What was seen and decided is printed, and stands in the file as comments.
    """
    from tinyunet_deploy.data.description import DESCRIPTION
    from tinyunet_deploy.data.proposal import propose
    from tinyunet_deploy.errors import DataError
    from tinyunet_deploy.files import write_atomic

    path = folder / DESCRIPTION
    if path.exists() and not (dry_run or force):
        raise DataError(path, "exists already", "--force replaces it, --dry-run only prints")
    text = propose(folder).text()
    if not dry_run:
        write_atomic(path, text.encode(), durable=True)
    click.echo(text, nl=False)
    if not dry_run:
        shown = click.format_filename(path)
        click.echo(f"wrote {shown}; next: tinyunet data check {shlex.quote(str(folder))}", err=True)
