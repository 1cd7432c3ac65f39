"""``python -m benchmarks``: time a matrix, compare two runs of it, write the report."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import click

from benchmarks.options import HELP
from tinyunet_deploy.cli import run
from tinyunet_deploy.cli.options import debug_option
from tinyunet_deploy.cli.progress import Progress

_MATRIX = Path(__file__).with_name("matrix.toml")


@click.group(context_settings=HELP)
def benchmarks() -> None:
    """Measure everything against its peers in one run, and write a report."""


@benchmarks.command(context_settings=HELP)
@click.argument(
    "toml",
    default=_MATRIX,
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
)
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder of the run; an interrupted run is resumed.",
)
@debug_option
def matrix(toml: Path, output: Path) -> None:
    """Time every cell of the matrix in a TOML file, in rounds. Default: benchmarks/matrix.toml.

    The same command resumes an interrupted run. Exit code 4 if OUTPUT contains a run of another
    matrix, artifact, version or machine; exit code 6 if a cell's answers differ from the reference.
    """
    from benchmarks.matrix_definition import read_matrix
    from benchmarks.matrix_result import read_run
    from benchmarks.matrix_run import run_matrix
    from tinyunet_deploy.errors import GateFailed
    from tinyunet_deploy.speed.ratio import Ratio

    words = ["python", "-m", "benchmarks", "matrix"]
    words += [] if toml == _MATRIX else [str(toml)]
    with Progress("matrix", unit="cells") as progress:

        def say(line: str) -> None:
            click.echo(line, err=True)
            progress.describe(line)

        path = run_matrix(
            read_matrix(toml),
            output,
            command=shlex.join([*words, "-o", str(output)]),
            progress=say,
            on_total=progress.expect,
            on_cell=progress.advance,
        )
    result = read_run(path)
    click.echo(f"against {result['matrix']['reference']}, interval of 99 %")
    for cell in sorted(result["cells"], key=lambda cell: cell["median_ms_per_image"]):
        ratio = Ratio(**cell["times_as_fast"])
        click.echo(
            f"{cell['name']:48} {cell['median_ms_per_image']:9.2f} ms/image "
            f"{ratio.value:7.2f} x  [{ratio.low:.2f}, {ratio.high:.2f}]"
        )
    for skipped in result["skipped"]:
        click.echo(f"skipped: {skipped['name']}: {skipped['reason']}")
    click.echo(f"noise floor {result['noise']['floor']:.3f}  ({path})")
    for cell in result["cells"]:
        answers = cell["answers"]
        if answers and answers["holds"] is False:
            raise GateFailed(
                cell["name"],
                f"agrees with the reference by {answers['agreement']:.4f}, "
                f"but must do so by {answers['limit']}",
            )


@benchmarks.command(context_settings=HELP)
@click.argument("run1", type=click.Path(path_type=Path, exists=True))
@click.argument("run2", type=click.Path(path_type=Path, exists=True))
@debug_option
def compare(run1: Path, run2: Path) -> None:
    """Show where RUN2 is faster or slower than RUN1, and where the difference is only noise.

    Each cell is measured against the reference of its own run. Nothing inside the noise floor of
    the A/A pairs is called a difference. Exit 6 when a cell is slower.
    """
    from benchmarks.run_comparison import compare_runs
    from tinyunet_deploy.errors import GateFailed
    from tinyunet_deploy.speed.ratio import STATISTICS

    comparison = compare_runs(run1, run2)
    floor = comparison.floor
    click.echo(f"noise floor {floor:.3f}: 1/{floor:.3f} to {floor:.3f}")
    for cell, ratio, call in comparison.differences:
        click.echo(
            f"{cell:48} {ratio.value:6.3f} x as fast  [{ratio.low:.3f}, {ratio.high:.3f}]  {call}"
        )
    for name in comparison.only_in_one:
        click.echo(f"{name:48} only in one of the runs")
    click.echo(STATISTICS)
    slower = [change for change in comparison.differences if change.call == "slower"]
    if slower:
        raise GateFailed(slower[0].cell, f"is slower, {slower[0].ratio.value:.3f} x as fast")


@benchmarks.command(context_settings=HELP)
@click.argument("results", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True))
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="report.html, or report.md for a pull request.",
)
@click.option(
    "--data",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Data set that was evaluated; the page shows its worst images.",
)
@click.option(
    "--parts",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Output of `tinyunet infer --overlays` or folder of `tinyunet evaluate --overlays`; "
    "the page shows three of its parts.",
)
@debug_option
def report(results: tuple[Path, ...], output: Path, data: Path | None, parts: Path | None) -> None:
    """Make one page from RESULTS: JSON files, or folders of them.

    It takes the results of `tinyunet benchmark`, evaluate, parity, line-sim and tune, of
    `python -m benchmarks matrix` and `python -m benchmarks.files_to_masks`, operators and gpu,
    and the sidecars of TensorRT plans. A section without results says which command makes them.
    """
    from benchmarks.report.page import write_report
    from benchmarks.report.results import read_results

    words = ["python", "-m", "benchmarks", "report", *map(str, results), "-o", str(output)]
    words += ["--data", str(data)] if data else []
    words += ["--parts", str(parts)] if parts else []
    write_report(read_results(results), output, data=data, parts=parts, command=shlex.join(words))
    click.echo(output)


if __name__ == "__main__":
    sys.exit(run(benchmarks))
