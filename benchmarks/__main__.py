"""``python -m benchmarks``: the matrix, two runs side by side, the report."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import click

from tinyunet_deploy.cli import run
from tinyunet_deploy.cli.options import debug_option

DEFAULT = Path(__file__).with_name("matrix.toml")
_HELP = {"help_option_names": ["-h", "--help"]}


@click.group(context_settings=_HELP)
def benchmarks() -> None:
    """Measure everything against its peers in one run, and write what people read."""


@benchmarks.command(context_settings=_HELP)
@click.argument(
    "toml",
    default=DEFAULT,
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
)
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder of the run; one that was interrupted is gone on with.",
)
@debug_option
def matrix(toml: Path, output: Path) -> None:
    """Run every cell of a matrix, TOML (benchmarks/matrix.toml if not given), in rounds.

    The same command again goes on where it stopped. Exit 4 when OUTPUT holds a run of another
    matrix, artifact, version or machine; exit 6 when a cell's answers are not those of the
    reference.
    """
    from benchmarks.matrix_definition import read_matrix
    from benchmarks.matrix_result import read_run
    from benchmarks.matrix_run import run_matrix
    from benchmarks.ratio import Ratio
    from tinyunet_deploy.errors import GateFailed

    words = ["python", "-m", "benchmarks", "matrix"]
    words += [] if toml == DEFAULT else [str(toml)]
    path = run_matrix(
        read_matrix(toml),
        output,
        command=shlex.join([*words, "-o", str(output)]),
        progress=lambda x: click.echo(x, err=True),
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
                f"{answers['limit']} wanted",
            )


@benchmarks.command(context_settings=_HELP)
@click.argument("run1", type=click.Path(path_type=Path, exists=True))
@click.argument("run2", type=click.Path(path_type=Path, exists=True))
@debug_option
def compare(run1: Path, run2: Path) -> None:
    """Say where RUN2 is faster or slower than RUN1, if that can be said.

    Each cell is taken relative to the reference of its own run. What is inside the noise floor of
    the A/A runs is not called a difference. Exit 6 when a cell is slower.
    """
    from benchmarks.ratio import STATISTICS
    from benchmarks.run_comparison import compare_runs
    from tinyunet_deploy.errors import GateFailed

    found = compare_runs(run1, run2)
    click.echo(f"noise floor {found.floor:.3f}: 1/{found.floor:.3f} to {found.floor:.3f}")
    for cell, ratio, call in found.differences:
        click.echo(
            f"{cell:48} {ratio.value:6.3f} x as fast  [{ratio.low:.3f}, {ratio.high:.3f}]  {call}"
        )
    for name in found.only_in_one:
        click.echo(f"{name:48} only in one of the runs")
    click.echo(STATISTICS)
    slower = [each for each in found.differences if each.call == "slower"]
    if slower:
        raise GateFailed(slower[0].cell, f"is slower, {slower[0].ratio.value:.3f} x as fast")


@benchmarks.command(context_settings=_HELP)
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
    help="Data set that was evaluated: its worst images are put into the page.",
)
@debug_option
def report(results: tuple[Path, ...], output: Path, data: Path | None) -> None:
    """Make one page of RESULTS, JSON files and folders of them.

    Takes what `tinyunet benchmark`, evaluate, parity and line-sim write with -o, the runs of
    `python -m benchmarks matrix`, `python -m benchmarks.files_to_masks`, and the sidecars of
    TensorRT plans. A part without results says which command makes them.
    """
    from benchmarks.report.page import write_report
    from benchmarks.report.results import read_results

    words = ["python", "-m", "benchmarks", "report", *map(str, results), "-o", str(output)]
    words += ["--data", str(data)] if data else []
    write_report(read_results(results), output, data=data, command=shlex.join(words))
    click.echo(output)


if __name__ == "__main__":
    sys.exit(run(benchmarks))
