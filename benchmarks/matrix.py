"""The benchmark matrix: artifacts x runners x batch sizes, in rounds, resumable.

Every cell of every round is a process of its own, so no runtime's threads or memory disturb another
and the luck of one process start is in the spread. In each round the order of cells is drawn anew,
so drift of the machine hits all alike. The first of the ``twice`` pair against the second is the
A/A run: what this machine calls a difference where there is none.

A TOML file says what is measured::

    rounds = 7                                        # each a process per cell
    repetitions = 20                                  # timed calls of a process
    warm_up = 3                                       # calls before them
    images = 16                                       # synthetic, the same for all
    reference = "tinyunet.safetensors@pytorch-eager/1"  # what ratios are against
    twice = "tinyunet.onnx@openvino/1"                # the cell that is timed as two

    [[cells]]                                         # all combinations of three lists
    artifacts = ["tinyunet_deploy/models/tinyunet.onnx"]
    runners = ["openvino", "onnxruntime"]
    batches = [1, 4]
    device = "cpu"                                    # or cuda:0; cpu unless given
"""

from __future__ import annotations

import dataclasses
import json
import statistics
import subprocess
import sys
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

import tinyunet_deploy
from benchmarks import peers
from benchmarks.peers import RUNNERS, installed_versions, why_not_here
from benchmarks.ratio import STATISTICS, Ratio, ratio_in_run
from tinyunet_deploy.artifacts.sidecar import digest, kind_of, read_artifact
from tinyunet_deploy.contract import Batch, defect_mask
from tinyunet_deploy.data import synthetic
from tinyunet_deploy.errors import DataError, RuntimeUnavailable
from tinyunet_deploy.files import json_value, read_regular, write_atomic
from tinyunet_deploy.host import describe_machine
from tinyunet_deploy.quality.parity_limits import read_limits

SCHEMA_VERSION: Final = 1
KIND: Final = "matrix"
AGAIN: Final = " again"
"""Ends the name of the second of the A/A pair."""
LONGEST_CELL_S: Final = 3600.0


@dataclass(frozen=True)
class Cell:
    """One artifact, one runner, one batch size."""

    artifact: Path
    runner: str
    batch: int
    device: str = "cpu"
    again: bool = False
    """The second of the A/A pair."""

    @property
    def name(self) -> str:
        """``MODEL@RUNNER/BATCH``, and the device where it is not the CPU."""
        device = "" if self.device == "cpu" else f" on {self.device}"
        again = AGAIN if self.again else ""
        return f"{self.artifact.name}@{self.runner}/{self.batch}{device}{again}"


@dataclass(frozen=True)
class Matrix:
    """What is measured."""

    rounds: int
    repetitions: int
    warm_up: int
    images: int
    reference: str
    """Name of the cell that all ratios are against."""
    twice: str
    """Name of the cell of the A/A pair."""
    cells: tuple[Cell, ...]

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON; an artifact by its name."""
        fields = dataclasses.asdict(self)
        return fields | {"cells": [cell.name for cell in self.cells]}


def read_matrix(path: Path) -> Matrix:
    """The matrix of a TOML file, read strictly. Artifacts lie relative to the current folder.

    Raises:
        DataError: no TOML, an unknown or missing key, a value out of range, a runner that does not
            take an artifact, a cell that is there twice, or a reference that is no cell.
    """
    try:
        return _matrix(tomllib.loads(read_regular(path).decode("utf-8")))
    except OSError as error:
        raise DataError(path, f"cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise DataError(path, f"is no valid matrix: {error}") from error


def _matrix(fields: dict[str, Any]) -> Matrix:
    names = [each.name for each in dataclasses.fields(Matrix)]
    _check_keys(fields, names, names, "")
    for key in ("rounds", "repetitions", "warm_up", "images"):
        if type(fields[key]) is not int or fields[key] < 1:
            raise ValueError(f"{key} is {fields[key]!r}, not a whole number from 1 up")
    tables = fields.pop("cells")
    if not isinstance(tables, list) or not tables:
        raise ValueError("holds no [[cells]]")
    cells = [cell for table in tables for cell in _cells(table, fields["images"])]
    known = [cell.name for cell in cells]
    for name in known:
        if known.count(name) > 1:
            raise ValueError(f"the cell {name} is there twice")
    for key in ("reference", "twice"):
        if fields[key] not in known:
            raise ValueError(f"{key} is {fields[key]!r}, which is none of {', '.join(known)}")
    pair = cells[known.index(fields["twice"])]
    cells.append(dataclasses.replace(pair, again=True))
    return Matrix(**fields, cells=tuple(cells))


def _cells(table: Any, images: int) -> list[Cell]:
    if not isinstance(table, dict):
        raise ValueError("[[cells]] must be tables")
    lists = ("artifacts", "runners", "batches")
    _check_keys(table, (*lists, "device"), lists, "cells.")
    for key, kind in zip(lists, (str, str, int), strict=True):
        values = table[key]
        if not isinstance(values, list) or not values or any(type(v) is not kind for v in values):
            raise ValueError(f"cells.{key} must be a list of {kind.__name__}, not {values!r}")
    device = table.get("device", "cpu")
    if not isinstance(device, str):
        raise ValueError(f"cells.device is {device!r}")
    cells = []
    for artifact in map(Path, table["artifacts"]):
        for runner in table["runners"]:
            if runner not in RUNNERS:
                raise ValueError(f"{runner!r} is no runner; known are {', '.join(RUNNERS)}")
            if kind_of(artifact) not in RUNNERS[runner].runs:
                raise ValueError(f"{runner} does not run {artifact.name}")
            for batch in table["batches"]:
                if batch < 1 or images % batch:
                    raise ValueError(f"batch {batch} does not divide the {images} images")
                cells.append(Cell(artifact, runner, batch, device))
    return cells


def _check_keys(
    table: dict[str, Any], known: tuple[str, ...] | list[str], needed: Any, prefix: str
) -> None:
    for key in table:
        if key not in known:
            raise ValueError(f"unknown key {prefix}{key}; known are {', '.join(known)}")
    for key in needed:
        if key not in table:
            raise ValueError(f"{prefix}{key} is missing")


# --- running ----------------------------------------------------------------------------------


def run_matrix(
    matrix: Matrix, folder: Path, *, command: str, progress: Callable[[str], None]
) -> Path:
    """Measure what is not yet measured, and write ``folder/run.json``.

    Args:
        folder: made if it is not there; ``cells/`` in it holds what is finished.
        command: the one that does this, for whoever reads the result.
        progress: takes one line for each cell that starts.

    Returns:
        The result's path.

    Raises:
        ArtifactError: an artifact is missing or changed.
        DataError: the folder holds a run of another matrix, artifact, version or machine.
        RuntimeUnavailable: the reference or the A/A cell cannot run here.
    """
    artifacts = {cell.artifact: read_artifact(cell.artifact).sidecar for cell in matrix.cells}
    sizes = {(s.contract.height, s.contract.width) for s in artifacts.values()}
    if len(sizes) > 1 or any(height != width for height, width in sizes):
        raise DataError(folder, f"artifacts of the sizes {sorted(sizes)} share no images")
    identity = json.loads(json.dumps(_identity(matrix, artifacts)))
    reasons = {cell.name: why_not_here(cell.runner) for cell in matrix.cells}
    for name in (matrix.reference, matrix.twice):
        if reasons[name]:
            raise RuntimeUnavailable(name, f"cannot run here: {reasons[name]}")
    _open_folder(folder, identity)
    (side,) = {height for height, _ in sizes}
    images = folder / "images.npy"
    np.save(images, _images(matrix.images, side))
    failed: dict[str, str] = {}
    for number in range(matrix.rounds):
        order = np.random.default_rng(number).permutation(len(matrix.cells))
        for cell in (matrix.cells[index] for index in order):
            done = _finished(folder, cell, number)
            if reasons[cell.name] is None and cell.name not in failed and not done.exists():
                progress(f"round {number + 1} of {matrix.rounds}: {cell.name}")
                problem = _measure(matrix, cell, images, done)
                if problem is not None:
                    failed[cell.name] = problem
                    progress(f"failed: {cell.name}: {problem}")
    result = folder / "run.json"
    fields = {
        "schema_version": SCHEMA_VERSION,
        "kind": KIND,
        "command": command,
        **_result(matrix, folder, identity, artifacts, {**reasons, **failed}),
    }
    write_atomic(result, json.dumps(json_value(fields), indent=1, allow_nan=False).encode() + b"\n")
    return result


def _identity(matrix: Matrix, artifacts: dict[Path, Any]) -> dict[str, Any]:
    """Everything that must stay the same for two samples to belong together."""
    library = Path(tinyunet_deploy.__file__).parent.rglob("*.py")
    sources = [*sorted(library), Path(peers.__file__), Path(__file__)]
    return {
        "matrix": matrix.as_dict(),
        "artifacts": {
            path.name: {"sha256": sidecar.sha256, "precision": sidecar.precision}
            for path, sidecar in artifacts.items()
        },
        "versions": {
            cell.runner: installed_versions(cell.runner) | {"numpy": np.__version__}
            for cell in matrix.cells
        },
        "machine": describe_machine(),
        "sources_sha256": digest(b"".join(path.read_bytes() for path in sources)),
    }


def _open_folder(folder: Path, identity: dict[str, Any]) -> None:
    path = folder / "identity.json"
    if path.exists():
        kept = json.loads(read_regular(path))
        changed = [key for key in identity if kept.get(key) != identity[key]]
        if changed:
            raise DataError(
                folder,
                f"holds a run of other {', '.join(changed)}",
                "give another --output, or remove the folder",
            )
        return
    if folder.exists() and any(folder.iterdir()):
        raise DataError(folder, "holds other files", "give a folder that is empty or not there")
    (folder / "cells").mkdir(parents=True)
    write_atomic(path, json.dumps(identity, indent=1).encode() + b"\n")


def _images(count: int, side: int) -> Batch:
    """uint8 [N, 1, side, side]: synthetic, all classes in turn, every other one defective."""
    made = [
        synthetic.sample(1 + index % 10, index, defective=index % 2 == 0, size=side).image
        for index in range(count)
    ]
    return np.stack(made)[:, None]


def _finished(folder: Path, cell: Cell, number: int) -> Path:
    slug = cell.name.translate(str.maketrans("/: ", "___"))
    return folder / "cells" / f"{number:03}-{slug}.json"


def _measure(matrix: Matrix, cell: Cell, images: Path, output: Path) -> str | None:
    """Run one cell; None, or what went wrong."""
    command = [sys.executable, "-m", "benchmarks.peers", cell.runner, cell.artifact, images]
    command += [output, "--batch-size", cell.batch, "--repetitions", matrix.repetitions]
    command += ["--warm-up", matrix.warm_up, "--device", cell.device]
    try:
        done = subprocess.run(
            list(map(str, command)), capture_output=True, text=True, timeout=LONGEST_CELL_S
        )
    except subprocess.TimeoutExpired:
        return f"took longer than {LONGEST_CELL_S:.0f} s"
    if done.returncode == 0 and output.exists():
        return None
    said = done.stderr.strip().splitlines() or [f"exit {done.returncode}"]
    return said[-1].removeprefix("error: ")


# --- the result -------------------------------------------------------------------------------


def _result(
    matrix: Matrix,
    folder: Path,
    identity: dict[str, Any],
    artifacts: dict[Path, Any],
    reasons: dict[str, str | None],
) -> dict[str, Any]:
    rounds = {
        cell.name: [
            json.loads(path.read_bytes())
            for number in range(matrix.rounds)
            if (path := _finished(folder, cell, number)).exists()
        ]
        for cell in matrix.cells
        if reasons[cell.name] is None
    }
    by_name = {cell.name: cell for cell in matrix.cells}
    for name in (matrix.reference, matrix.twice, matrix.twice + AGAIN):
        if name not in rounds:
            raise RuntimeUnavailable(name, f"was not measured: {reasons[name]}")
    figures = {name: ms_per_image(found, by_name[name].batch) for name, found in rounds.items()}
    right = _scores(folder, by_name[matrix.reference])
    threshold = artifacts[by_name[matrix.reference].artifact].threshold
    noise = ratio_in_run(figures[matrix.twice], figures[matrix.twice + AGAIN])
    rows = []
    for name, found in rounds.items():
        cell = by_name[name]
        sidecar = artifacts[cell.artifact]
        rows.append(
            {
                "name": name,
                "model": cell.artifact.name,
                "model_sha256": sidecar.sha256,
                "precision": sidecar.precision,
                "runner": cell.runner,
                "what": RUNNERS[cell.runner].what,
                "batch_size": cell.batch,
                "device": cell.device,
                "versions": identity["versions"][cell.runner],
                "boundary": found[0]["boundary"],
                "median_ms_per_image": statistics.median(figures[name]),
                "times_as_fast": ratio_in_run(figures[matrix.reference], figures[name]).as_dict(),
                "answers": _answers(
                    _scores(folder, cell), right, threshold, sidecar.precision, cell.runner
                ),
                "rounds": [
                    {key: one[key] for key in ("load_ms", "first_ms", "samples_ms")}
                    for one in found
                ],
            }
        )
    return {
        "statistics": STATISTICS,
        **identity,
        "noise": {"ratio": noise.as_dict(), "floor": noise.floor, "cell": matrix.twice},
        "cells": rows,
        "skipped": [{"name": name, "reason": reason} for name, reason in reasons.items() if reason],
    }


def ms_per_image(rounds: list[dict[str, Any]], batch: int) -> list[float]:
    """The figure of each round: the median of its samples, milliseconds per image."""
    return [statistics.median(one["samples_ms"]) / batch for one in rounds]


def _scores(folder: Path, cell: Cell) -> Batch | None:
    path = _finished(folder, cell, 0).with_suffix(".npy")
    return np.load(path) if path.exists() else None


def _answers(
    scores: Batch | None, right: Batch | None, threshold: float, precision: str, runner: str
) -> dict[str, Any] | None:
    """Agreement with the reference cell's masks, I / U over all images; None without scores."""
    if scores is None or right is None:
        return None
    mask, wanted = (defect_mask(each, threshold) > 0 for each in (scores, right))
    union = int((mask | wanted).sum())
    agreement = int((mask & wanted).sum()) / union if union else 1.0
    limits = {limit.figure: limit for limit in read_limits().of(precision, runner)}
    limit = limits.get("agreement")
    return {
        "agreement": agreement,
        "largest_steps": int(np.abs(scores.astype(np.int16) - right).max()),
        "limit": str(limit) if limit else None,
        "holds": limit.holds(agreement) if limit else None,
    }


def read_run(path: Path) -> dict[str, Any]:
    """A result of :func:`run_matrix`; a folder's is its ``run.json``.

    Raises:
        DataError: it cannot be read, or is no such result.
    """
    path = path / "run.json" if path.is_dir() else path
    try:
        fields = json.loads(read_regular(path))
        if (fields["schema_version"], fields["kind"]) != (SCHEMA_VERSION, KIND):
            raise ValueError("of another kind or schema version")
    except OSError as error:
        raise DataError(path, f"cannot be read: {error.strerror}") from error
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(path, f"is no result of python -m benchmarks matrix: {error}") from error
    return fields


def noise_of(run: dict[str, Any]) -> Ratio:
    """The A/A ratio of a result."""
    return Ratio(**run["noise"]["ratio"])
