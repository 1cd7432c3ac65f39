"""``tinyunet verify``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import click

from tinyunet_deploy.cli.options import debug_option, format_option


class _Finding(NamedTuple):
    file: str
    check: str
    outcome: str
    """``ok``, ``refused``, ``skipped``, or ``missing``."""
    detail: str


@click.command()
@click.argument("models", nargs=-1, type=click.Path(path_type=Path, dir_okay=False))
@click.option(
    "--search",
    "folders",
    multiple=True,
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Also look here for what a model was made from; may be given again.",
)
@click.option("--device", default="cpu", show_default=True, help="cpu or cuda:0.")
@click.option("--strict", is_flag=True, help="Refuse what is missing: parents, golden images.")
@format_option
@debug_option
def verify(
    models: tuple[Path, ...],
    folders: tuple[Path, ...],
    device: str,
    strict: bool,
    style: str,
) -> int:
    """Check the hashes, origin and answers of MODELS.

    Walks from a plan to the ONNX file to the checkpoint, as far as they are here, and runs the
    self-test on every backend that takes the file. Without MODELS: the one that comes with the
    package. Exit 4 when something does not match.
    """
    import json

    from rich import box
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from tinyunet_deploy.artifacts.sidecar import DEFAULT_ONNX

    findings = [
        finding
        for model in models or (DEFAULT_ONNX,)
        for finding in _examine(model, folders, device)
    ]
    if style == "json":
        rows = [finding._asdict() for finding in findings]
        click.echo(json.dumps({"schema_version": 1, "findings": rows}, indent=2))
    else:
        table = Table(box=box.SIMPLE_HEAD, padding=(0, 0, 0, 1))
        for column in _Finding._fields:
            table.add_column(column, overflow="fold")
        for finding in findings:
            table.add_row(*map(escape, finding))
        Console().print(table)
    refused = [f for f in findings if f.outcome == "refused" or (strict and f.outcome == "missing")]
    for finding in refused:
        click.echo(f"error: {finding.detail}", err=True)
    return 4 if refused else 0


def _examine(model: Path, folders: Sequence[Path], device: str) -> Iterator[_Finding]:
    from tinyunet_deploy.artifacts.sidecar import kind_of, lineage, read_artifact
    from tinyunet_deploy.backends.registry import open_backend
    from tinyunet_deploy.backends.table import rows_for
    from tinyunet_deploy.errors import RefusedError, TinyUNetError
    from tinyunet_deploy.quality.self_test import self_test

    try:
        artifact = read_artifact(model)
        links = lineage(model, folders)
    except RefusedError as error:
        yield _Finding(model.name, "sha256", "refused", str(error))
        return
    for link in links:
        if link.path is None:
            detail = f"{model}: was made from {link.sha256[:12]}..., which is not here"
            yield _Finding(f"{link.sha256[:12]}...", "lineage", "missing", detail)
            continue
        try:
            sidecar = read_artifact(link.path).sidecar
        except RefusedError as error:
            yield _Finding(link.path.name, "sha256", "refused", str(error))
        else:
            detail = f"{sidecar.kind} {sidecar.precision} {link.sha256[:12]}..."
            yield _Finding(link.path.name, "sha256", "ok", detail)
    if artifact.sidecar.golden is None:
        detail = f"{model}: has no golden images"
        yield _Finding(model.name, "self-test", "missing", detail)
        return
    for row in rows_for(kind_of(model)):
        try:
            with open_backend(model, row, device) as backend:
                found = self_test(backend)
        except RefusedError as error:
            yield _Finding(model.name, row.name, "refused", str(error))
        except TinyUNetError as error:
            yield _Finding(model.name, row.name, "skipped", str(error))
        else:
            detail = (
                f"at most {found.largest_steps} steps from the golden scores, "
                f"{found.mean_steps:.2g} on average, in {found.seconds:.2f} s"
            )
            yield _Finding(model.name, row.name, "ok", detail)
