"""Compare two runs of the matrix; nothing inside the noise floor is called a difference."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.matrix_definition import AGAIN
from benchmarks.matrix_result import ms_per_image, read_run
from tinyunet_deploy.errors import DataError
from tinyunet_deploy.speed.ratio import LEAST_ROUNDS, Ratio, ratio_of_runs

__all__ = ["Difference", "RunComparison", "compare_runs"]


class Difference(NamedTuple):
    """One cell that both runs have."""

    cell: str
    ratio: Ratio
    """Speed in the second run divided by speed in the first, each relative to its run's
    reference."""
    call: str
    """``faster``, ``slower``, or the reason why neither can be said."""


class RunComparison(NamedTuple):
    """Two runs, cell by cell."""

    floor: float
    """The larger of the two runs' noise floors, a factor of at least 1."""
    differences: tuple[Difference, ...]
    only_in_one: tuple[str, ...]
    """Names of the cells that only one run has."""


def compare_runs(first: Path, second: Path) -> RunComparison:
    """Compare the cells that two runs share.

    A cell is called faster or slower only where the whole interval of its ratio is outside the
    floor and both runs have enough rounds.

    Raises:
        DataError: one is not a run, or the runs differ in machine, images or reference.
    """
    runs = [read_run(first), read_run(second)]
    for what, values in _must_agree(runs).items():
        if values[0] != values[1]:
            raise DataError(
                second,
                f"cannot be compared with {first}: another {what}",
                f"{values[0]} against {values[1]}",
            )
    cells = [{cell["name"]: cell for cell in run["cells"]} for run in runs]
    reference = runs[0]["matrix"]["reference"]
    floor = max(run["noise"]["floor"] for run in runs)
    differences = []
    for name in cells[0]:
        if name in cells[1] and name != reference and not name.endswith(AGAIN):
            figures = [(_figures(run[name]), _figures(run[reference])) for run in cells]
            ratio = ratio_of_runs(figures[0], figures[1])
            differences.append(Difference(name, ratio, _call(ratio, floor, figures)))
    alone = [cell for one, other in (cells, cells[::-1]) for cell in one if cell not in other]
    return RunComparison(floor, tuple(differences), tuple(alone))


def _must_agree(runs: list[dict[str, Any]]) -> dict[str, list[Any]]:
    reference = [
        next(cell for cell in run["cells"] if cell["name"] == run["matrix"]["reference"])
        for run in runs
    ]
    return {
        "machine": [
            [run["machine"][key] for key in ("processor", "processors", "system")] for run in runs
        ],
        "number of images": [run["matrix"]["images"] for run in runs],
        "reference": [[cell["name"], cell["model_sha256"], cell["versions"]] for cell in reference],
    }


def _figures(cell: dict[str, Any]) -> list[float]:
    return ms_per_image(cell["rounds"], cell["batch_size"])


def _call(ratio: Ratio, floor: float, figures: list[tuple[list[float], list[float]]]) -> str:
    if min(len(cell) for cell, _ in figures) < LEAST_ROUNDS:
        return f"fewer than {LEAST_ROUNDS} rounds"
    if not ratio.outside(floor):
        return "inside the noise floor"
    return "faster" if ratio.value > 1 else "slower"
