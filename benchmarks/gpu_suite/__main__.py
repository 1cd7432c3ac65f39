"""``python -m benchmarks.gpu_suite``: measure everything on this GPU, in at most nine minutes."""

from __future__ import annotations

import hashlib
import re
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from benchmarks.gpu_suite.bars import Bar, judge_bars
from benchmarks.gpu_suite.progress import Outcome, RunCommand, run_command, run_steps
from benchmarks.gpu_suite.steps import suite_steps
from benchmarks.options import HELP, REPOSITORY, RESULTS, write_result
from benchmarks.report.page import write_report
from benchmarks.report.results import read_results
from tinyunet_deploy.artifacts.sidecar import DEFAULT_CHECKPOINT
from tinyunet_deploy.backends import nvidia_probe
from tinyunet_deploy.cli import run
from tinyunet_deploy.errors import DataError, RuntimeUnavailable
from tinyunet_deploy.host import describe_machine

__all__ = ["gpu_suite", "run_suite"]


@click.command(context_settings=HELP)
@click.option("--device", default="cuda:0", show_default=True)
@click.option(
    "--minutes",
    default=9.0,
    show_default=True,
    type=click.FloatRange(0.1),
    help="Time for all steps; the same command goes on with what is left.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder of the results. Default: benchmarks/results/GPU, by the GPU's name.",
)
def gpu_suite(device: str, minutes: float, output: Path | None) -> int:
    """Measure tests, plans, speed, files to masks, training and parity on this GPU."""
    return run_suite(device, 60 * minutes, output)


def run_suite(
    device: str,
    limit_s: float,
    output: Path | None = None,
    *,
    runs: Path = REPOSITORY / "runs" / "gpu",
    command: RunCommand = run_command,
) -> int:
    """Run the steps that are left, copy the results, and print what fell short.

    Args:
        limit_s: seconds for all steps together.
        output: folder of the results; None is ``benchmarks/results/GPU``.
        runs: folder of all runs; each GPU and state of the code has its own in it.
        command: function that runs a command.

    Returns:
        0 if all steps are finished, else 5: the same command goes on.

    Raises:
        RuntimeUnavailable: there is no GPU.
    """
    gpu = nvidia_probe.gpu(nvidia_probe.gpu_index(device))
    slug = re.sub(r"[^a-z0-9]+", "-", gpu.name.lower().removeprefix("nvidia ")).strip("-")
    folder = runs / f"{slug}-{_state_of_the_code()}"
    folder.mkdir(parents=True, exist_ok=True)
    results = folder / "results"
    results.mkdir(exist_ok=True)
    why_not = nvidia_probe.why_no_tensorrt()
    if why_not is not None:
        click.echo(f"without TensorRT: {why_not}")
    first, *others = _checkpoints()
    steps = suite_steps([first, *others], folder, device, tensorrt=why_not is None)
    outcomes = run_steps(steps, folder, limit_s=limit_s, say=click.echo, run=command)
    bars = judge_bars(results, first.stem)
    clocks = nvidia_probe.clocks(nvidia_probe.gpu_index(device))
    fields = {
        "kind": "gpu-suite",
        "command": f"python -m benchmarks.gpu_suite --device {device}",
        "machine": describe_machine(),
        "gpu": gpu._asdict(),
        "clocks_after": clocks._asdict() if clocks else {},
        "without_tensorrt": why_not,
        "steps": [outcome._asdict() for outcome in outcomes],
        "bars": [bar._asdict() for bar in bars],
    }
    write_result(results / "suite.json", fields)
    output = output or RESULTS / slug
    _copy(results, output)
    _say(outcomes, bars)
    click.echo(output)
    unfinished = [outcome for outcome in outcomes if outcome.state != "finished"]
    return RuntimeUnavailable.exit_code if unfinished else 0


def _state_of_the_code() -> str:
    """Return eight digits that change with the library, the workbenches and their settings."""
    folders = ("tinyunet_deploy", "training", "export", "benchmarks")
    files = [
        path
        for name in folders
        for path in sorted((REPOSITORY / name).rglob("*"))
        if path.suffix in (".py", ".toml", ".safetensors") and "results" not in path.parts
    ]
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()[:8]


def _checkpoints() -> list[Path]:
    """Return the checkpoints of the package, the default one first."""
    models = sorted(DEFAULT_CHECKPOINT.parent.glob("*.safetensors"))
    return [DEFAULT_CHECKPOINT, *(path for path in models if path != DEFAULT_CHECKPOINT)]


def _copy(results: Path, output: Path) -> None:
    """Copy results and pages, and write the report of them."""
    output.mkdir(parents=True, exist_ok=True)
    shutil.copytree(results, output, dirs_exist_ok=True)
    try:
        known = read_results([output])
    except DataError as error:  # nothing of what the report knows was finished
        click.echo(f"no report: {error}")
        return
    command = f"python -m benchmarks report {output.name} -o {output.name}/report.md"
    write_report(known, output / "report.md", command=command)


def _say(outcomes: Sequence[Outcome], bars: Sequence[Bar]) -> None:
    for outcome in outcomes:
        if outcome.state != "finished":
            click.echo(f"{outcome.state}: {outcome.step}: {outcome.why}")
    for bar in bars:
        word = {True: "met", False: "fell short", None: "not measured"}[bar.met]
        value = "" if bar.measured is None else f", measured {bar.measured:.4g}"
        click.echo(f"{word}: {bar.name}: {bar.wanted}{value}{bar.why and f'. {bar.why}'}")
    if any(outcome.state != "finished" for outcome in outcomes):
        click.echo("make gpu goes on with what is not finished")


if __name__ == "__main__":
    sys.exit(run(gpu_suite))
