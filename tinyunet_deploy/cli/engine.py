"""``tinyunet engine``: a page about a TensorRT engine, from files made elsewhere."""

from __future__ import annotations

from pathlib import Path

import click

from tinyunet_deploy.cli.options import debug_option

_FILE = click.Path(path_type=Path, exists=True, dir_okay=False)


@click.command()
@click.argument("reports", nargs=-1, type=_FILE, metavar="[REPORT...]")
@click.option("--layers", type=_FILE, help="File of trtexec --exportLayerInfo.")
@click.option("--profile", type=_FILE, help="File of trtexec --exportProfile.")
@click.option("--times", type=_FILE, help="File of trtexec --exportTimes.")
@click.option(
    "-m",
    "--model",
    type=_FILE,
    help="ONNX file that the engine was built from, for the names of its layers.",
)
@click.option(
    "-b",
    "--batch-size",
    type=click.IntRange(min=1),
    help="Images per call. Default: as the layers say.",
)
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="Page to write, .html or .md; or .json for the report itself.",
)
@debug_option
def engine(
    reports: tuple[Path, ...],
    layers: Path | None,
    profile: Path | None,
    times: Path | None,
    model: Path | None,
    batch_size: int | None,
    output: Path,
) -> None:
    """Write a page about what limits a TensorRT engine.

    REPORT is a JSON file that `tinyunet benchmark --engine-report` or this verb wrote; two of them
    are put side by side. Without REPORT, --layers and --profile give files of trtexec.
    """
    from tinyunet_deploy.files import write_atomic
    from tinyunet_deploy.speed.engine.imported import import_report
    from tinyunet_deploy.speed.engine.page import write_page
    from tinyunet_deploy.speed.engine.report_file import read_report, report_json

    if bool(reports) == (layers is not None) or (layers is None) != (profile is None):
        raise click.UsageError("give one or two REPORTs, or --layers and --profile")
    if len(reports) > 2:
        raise click.UsageError(f"expected at most two REPORTs, got {len(reports)}")
    if layers is not None and profile is not None:
        engines = [import_report(layers, profile, times, model, batch_size)]
    else:
        engines = [read_report(path) for path in reports]
    if output.suffix == ".json":
        if len(engines) > 1:
            raise click.UsageError("a .json file takes one report; give .html or .md")
        output.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(output, report_json(engines[0]).encode())
    else:
        write_page(engines, output)
    click.echo(output)
