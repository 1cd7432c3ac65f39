"""``python -m benchmarks.acceptance DAGM2007``: the acceptance tests of the documentation.

``tiny`` is judged on the real images of Class1, and ``slim`` on a synthetic line of 2,000 parts of
which 100 are defective. Each test is given every evidence that can be had: a run of the belt on
this machine, a report of other images of the line, repeated photographs, and the training images.

Everything is made under ``--work``, and the same command goes on with what is left. What a model
was measured with lies in a folder that is named by its sha256; remove it to measure again.
"""

from __future__ import annotations

import math
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import click

from benchmarks.options import HELP, REPOSITORY, output_option, write_result
from tinyunet_deploy.artifacts.packaged import PACKAGED
from tinyunet_deploy.artifacts.sidecar import read_sidecar
from tinyunet_deploy.cli import run, tinyunet
from tinyunet_deploy.data.decoding import read_image
from tinyunet_deploy.data.encoding import write_png
from tinyunet_deploy.data.layouts import read_dataset
from tinyunet_deploy.errors import RefusedError
from tinyunet_deploy.quality.acceptance.output import RESULT
from tinyunet_deploy.quality.acceptance.requirements import read_requirements
from tinyunet_deploy.quality.acceptance.result_file import read_result
from tinyunet_deploy.quality.confidence import trials_to_show
from tinyunet_deploy.quality.repeatability.simulation import simulated_photograph
from tinyunet_deploy.quality.repeatability.study import Simulation

__all__ = ["AcceptanceTest", "SyntheticLine", "accept_all", "kept_verdicts", "make_line"]

_PHOTOGRAPHS: Final = 3
"""Number of synthetic photographs of each part."""


@dataclass(frozen=True)
class SyntheticLine:
    """Sizes of the synthetic line, whose images and photographs come from the generator."""

    parts: int = 2000
    defective: float = 0.05
    inspected: int = 400
    """Images of another seed, of which the line's report is made."""
    photographed: int = 200
    """Parts that are photographed again, half of them defective."""
    size: int = 512
    """Width and height, pixels."""


@dataclass(frozen=True)
class AcceptanceTest:
    """A model, the parts that judge it, and its belt."""

    model: Path
    data: Path
    of_the_line: Path
    """Folder of images as the line makes them."""
    repeats: Path | None
    """Repeated photographs; None simulates them, which shows nothing."""
    trained_on: tuple[Path, ...]
    parts_per_minute: float
    deadline_ms: float


@click.command(context_settings=HELP)
@click.argument("dagm2007", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option(
    "--work",
    default=REPOSITORY / "runs" / "acceptance",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder of everything that is made. Default: runs/acceptance.",
)
@output_option("acceptance.json")
def acceptance(dagm2007: Path, work: Path, output: Path) -> None:
    """Accept tiny on real images and slim on a synthetic line; keep the verdicts.

    DAGM2007 is the folder with the real images that docs/how-to/data.md names. It takes about
    twelve minutes in which the machine should do nothing else.
    """
    line, of_the_line, photographs = make_line(work, SyntheticLine())
    tests = (
        AcceptanceTest(
            model=PACKAGED["tiny"],
            data=dagm2007,
            of_the_line=dagm2007 / "Class1" / "Train",
            repeats=None,
            trained_on=tuple(dagm2007 / f"Class{number}" / "Train" for number in (1, 2, 4)),
            parts_per_minute=480,
            deadline_ms=300,
        ),
        AcceptanceTest(
            model=PACKAGED["slim"],
            data=line,
            of_the_line=of_the_line,
            repeats=photographs,
            trained_on=(),
            parts_per_minute=1200,
            deadline_ms=150,
        ),
    )
    results = accept_all(tests, work)
    write_result(output, kept_verdicts(results))
    click.echo(output)


def make_line(work: Path, line: SyntheticLine) -> tuple[Path, Path, Path]:
    """Write the synthetic line, other images of it, and photographs of some of its parts.

    Returns:
        The data set, the folder of other images, and the folder of repeated photographs.
    """
    data, others = work / "synthetic-line", work / "of-the-line"
    for folder, parts, seed in ((data, line.parts, 0), (others, line.inspected, 1)):
        arguments = ["data", "synthesize", str(folder), "--classes", "1", "--train", "1"]
        arguments += ["--test", str(parts), "--defective", str(line.defective)]
        arguments += ["--size", str(line.size), "--seed", str(seed)]
        _unless_made(folder / "Class1" / "Test" / "Label" / "Labels.txt", arguments)
    photographs = work / "synthetic-photographs"
    if not photographs.exists():
        _photograph(data, photographs, line.photographed)
    return data, others / "Class1" / "Test", photographs


def _photograph(data: Path, folder: Path, parts: int) -> None:
    """Write synthetic photographs of parts, half of them defective, under a temporary name."""
    unfinished = folder.with_name(f"{folder.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    items = [item for item in read_dataset(data).items if item.split == "test"]
    chosen = [item for item in items if item.defective][: parts // 2]
    chosen += [item for item in items if not item.defective][: parts - len(chosen)]
    for repeat in range(_PHOTOGRAPHS):
        photographs = unfinished / f"synthetic,{repeat + 1}"
        photographs.mkdir(parents=True)
        for number, item in enumerate(chosen):
            image = simulated_photograph(read_image(item.image), Simulation(), number, repeat)
            write_png(photographs / f"{item.image.stem}.png", image)
    unfinished.rename(folder)


def accept_all(tests: Sequence[AcceptanceTest], work: Path) -> list[Path]:
    """Gather what is missing of the evidence and run each test that has no result.

    Returns:
        The result file of each test.
    """
    return [_accept(test, work) for test in tests]


def _accept(test: AcceptanceTest, work: Path) -> Path:
    folder = work / f"{test.model.stem}-{read_sidecar(test.model).sha256[:12]}"
    result = folder / "acceptance" / RESULT
    if result.exists():
        return result
    model = ["-m", str(test.model)]
    line, report = folder / "line.json", folder / "out-line"
    parts = trials_to_show(read_requirements().line.max_miss_rate)
    seconds = math.ceil(60 * 1.01 * parts / test.parts_per_minute)
    folder.mkdir(parents=True, exist_ok=True)
    belt = ["--parts-per-minute", f"{test.parts_per_minute:g}"]
    belt += ["--deadline-ms", f"{test.deadline_ms:g}", "--seconds", str(seconds)]
    _unless_made(line, ["line-sim", str(test.of_the_line), *model, *belt, "-o", str(line)])
    _run(["infer", str(test.of_the_line), *model, "-o", str(report)])  # resumes by itself
    repeats = test.repeats
    if repeats is None:
        repeats = folder / "simulated" / "repeatability.json"
        photographs = str(test.data / "Class1" / "Test")
        simulate = ["repeatability", photographs, *model, "--simulate", "5"]
        _unless_made(repeats, [*simulate, "-o", str(repeats.parent)])
    arguments = ["accept", str(test.data), "--classes", "1", "--split", "test", *model]
    arguments += ["--line", str(line), "--baseline", str(report), "--repeats", str(repeats)]
    for trained_on in test.trained_on:
        arguments += ["--trained-on", str(trained_on)]
    _run([*arguments, "--parity-images", "60", "-o", str(result.parent)])
    return result


def _unless_made(output: Path, arguments: Sequence[str]) -> None:
    if not output.exists():
        _run(arguments)


def _run(arguments: Sequence[str]) -> None:
    """Run a verb of tinyunet; a gate that fails is a result, too.

    Raises:
        RefusedError: it failed.
    """
    click.echo(f"tinyunet {' '.join(arguments)}", err=True)
    code = run(tinyunet, list(arguments))
    if code not in (0, 6):
        raise RefusedError(f"tinyunet {arguments[0]}", f"ended with exit code {code}")


def kept_verdicts(results: Sequence[Path]) -> dict[str, Any]:
    """Return the verdicts of several result files, without pictures and parts."""
    return {"kind": "acceptances", "acceptances": [_kept(read_result(path)) for path in results]}


def _kept(result: dict[str, Any]) -> dict[str, Any]:
    evidence = result["evidence"]
    detection = evidence["detection"] or {}
    return {
        **{name: result[name] for name in ("made", "decision", "requirements", "machine")},
        "model": evidence["model"],
        "data": evidence["data"],
        "detection": {
            name: detection.get(name)
            for name in ("defective", "escapes", "good", "overkills", "iou_defective", "auroc")
        },
        "result_sha256": result["result_sha256"],
    }


if __name__ == "__main__":
    sys.exit(run(acceptance))
