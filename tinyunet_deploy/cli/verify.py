"""``tinyunet verify``: check the hashes, lineage and answers of artifacts."""

from __future__ import annotations

from pathlib import Path

import click

from tinyunet_deploy.cli.options import (
    ModelPath,
    debug_option,
    format_option,
    search_option,
    trust_option,
)
from tinyunet_deploy.cli.progress import Progress


@click.command()
@click.argument("models", nargs=-1, type=ModelPath(dir_okay=False))
@search_option
@click.option(
    "--device",
    help="cpu, cuda or cuda:1. Default: cuda:0 for a TensorRT plan, else cpu.",
)
@click.option(
    "--strict",
    is_flag=True,
    help="Also refuse missing parents, missing golden images and what could not be checked.",
)
@trust_option
@format_option
@debug_option
def verify(
    models: tuple[Path, ...],
    folders: tuple[Path, ...],
    device: str | None,
    strict: bool,
    trust_engine: bool,
    style: str,
) -> int:
    """Check the hashes, lineage and answers of MODELS.

    Walks from a plan to its ONNX file and its checkpoint, where available, and runs the self-test
    on every backend that takes the file. Without MODELS, checks the model of the package. Exit
    code 4 if something does not match; 3 if a model has no sidecar, so that --trust-engine could
    only show that it runs.
    """
    import json

    from rich import box
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from tinyunet_deploy.artifacts.sidecar import DEFAULT_ONNX
    from tinyunet_deploy.quality.artifact_check import ArtifactCheck, check_artifact

    chosen = models or (DEFAULT_ONNX,)
    checks: list[ArtifactCheck] = []
    with Progress("checking", len(chosen), "models") as progress:
        for model in chosen:
            progress.describe(f"checking {model.name}")
            checks += check_artifact(model, folders, device, trust_engine=trust_engine)
            progress.advance()
    if style == "json":
        rows = [check._asdict() for check in checks]
        click.echo(json.dumps({"schema_version": 1, "findings": rows}, indent=2))
    else:
        table = Table(box=box.SIMPLE_HEAD, padding=(0, 0, 0, 1))
        for column in ArtifactCheck._fields:
            table.add_column(column, overflow="fold")
        for check in checks:
            table.add_row(*map(escape, check))
        Console().print(table)
    wrong = {"refused", "missing", "unchecked"} if strict else {"refused"}
    refused = [check for check in checks if check.outcome in wrong]
    for check in refused:
        click.echo(f"error: {check.detail}", err=True)
    if refused:
        return 4
    return 3 if any(check.outcome == "unchecked" for check in checks) else 0
