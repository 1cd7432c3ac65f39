"""Run the benchmark matrix in rounds; an interrupted run can be resumed.

Every cell of every round runs in its own process, so that no runtime's threads or memory disturb
another, and the luck of a process start shows in the spread. Each round runs the cells in a new
random order, so that drift of the machine affects all cells alike. The ``twice`` cell is timed
twice, as the A/A pair: the ratio of the two shows how large a difference this machine reports where
there is none.
"""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

import tinyunet_deploy
from benchmarks import peer_programs, peers, synthetic_images
from benchmarks.matrix_definition import Cell, Matrix
from benchmarks.matrix_result import KIND, SCHEMA_VERSION, cell_file, matrix_result
from benchmarks.peers import installed_versions, why_not_here
from benchmarks.synthetic_images import draw_images
from tinyunet_deploy.artifacts.sidecar import Sidecar, digest, read_artifact
from tinyunet_deploy.errors import DataError, RuntimeUnavailable
from tinyunet_deploy.files import json_value, read_regular, write_atomic
from tinyunet_deploy.host import describe_machine

__all__ = ["run_matrix"]

_LONGEST_CELL_S: Final = 3600.0


def run_matrix(
    matrix: Matrix,
    folder: Path,
    *,
    command: str,
    progress: Callable[[str], None],
    on_total: Callable[[int], None] | None = None,
    on_cell: Callable[[], None] | None = None,
) -> Path:
    """Measure all cells that are not measured yet, and write ``folder/run.json``.

    Args:
        folder: folder of the run, made if missing; its ``cells/`` contains the finished
            measurements.
        command: the command of this run, for the readers of the result.
        progress: function that takes one line of text for each cell that starts.
        on_total: called once with the number of cells that are still to be measured.
        on_cell: called after each of them.

    Returns:
        The result's path.

    Raises:
        ArtifactError: an artifact is missing or changed.
        DataError: the folder contains a run of another matrix, artifact, version or machine.
        RuntimeUnavailable: the reference or the A/A cell cannot run on this machine.
    """
    sidecars = {cell.artifact: read_artifact(cell.artifact).sidecar for cell in matrix.cells}
    sizes = {(s.contract.height, s.contract.width) for s in sidecars.values()}
    if len(sizes) > 1:
        raise DataError(folder, f"artifacts of the sizes {sorted(sizes)} share no images")
    reasons = {cell.name: why_not_here(cell.runner) for cell in matrix.cells}
    for name in (matrix.reference, matrix.twice):
        if reasons[name]:
            raise RuntimeUnavailable(name, f"cannot run on this machine: {reasons[name]}")
    identity = json.loads(json.dumps(_identity(matrix, sidecars)))
    _open_folder(folder, identity)
    ((height, width),) = sizes
    images = folder / "images.npy"
    np.save(images, draw_images(matrix.images, height, width, defective_every=2))
    reasons |= _measure_all(matrix, folder, images, reasons, progress, on_total, on_cell)
    result = folder / "run.json"
    fields = {
        "schema_version": SCHEMA_VERSION,
        "kind": KIND,
        "command": command,
        **matrix_result(matrix, folder, identity, sidecars, reasons),
    }
    write_atomic(result, json.dumps(json_value(fields), indent=1, allow_nan=False).encode() + b"\n")
    return result


def _identity(matrix: Matrix, sidecars: Mapping[Path, Sidecar]) -> dict[str, Any]:
    """Return everything that must stay the same for two samples to belong together."""
    library = Path(tinyunet_deploy.__file__).parent.rglob("*.py")
    timing = (peers, peer_programs, synthetic_images)
    sources = [*sorted(library), *(Path(str(module.__file__)) for module in timing), Path(__file__)]
    return {
        "matrix": matrix.as_dict(),
        "artifacts": {
            path.name: {"sha256": sidecar.sha256, "precision": sidecar.precision}
            for path, sidecar in sidecars.items()
        },
        "versions": {
            cell.runner: installed_versions(cell.runner) | {"numpy": np.__version__}
            for cell in matrix.cells
        },
        "machine": describe_machine(),
        "sources_sha256": digest(b"".join(path.read_bytes() for path in sources)),
    }


def _open_folder(folder: Path, identity: Mapping[str, Any]) -> None:
    """Begin a run in an empty folder, or check that the folder contains this run."""
    path = folder / "identity.json"
    if path.exists():
        kept = json.loads(read_regular(path))
        changed = [key for key in identity if kept.get(key) != identity[key]]
        if changed:
            raise DataError(
                folder,
                f"contains a run of another {', '.join(changed)}",
                "give another --output, or remove the folder",
            )
        return
    if folder.exists() and any(folder.iterdir()):
        raise DataError(folder, "contains other files", "give an empty or new folder")
    (folder / "cells").mkdir(parents=True)
    write_atomic(path, json.dumps(identity, indent=1).encode() + b"\n")


def _measure_all(
    matrix: Matrix,
    folder: Path,
    images: Path,
    reasons: Mapping[str, str | None],
    progress: Callable[[str], None],
    on_total: Callable[[int], None] | None,
    on_cell: Callable[[], None] | None,
) -> dict[str, str]:
    """Measure the missing cells of every round; return cell -> reason why it failed."""
    failed: dict[str, str] = {}
    if on_total is not None:
        runs = itertools.product(matrix.cells, range(matrix.rounds))
        on_total(sum(not (reasons[c.name] or cell_file(folder, c, at).exists()) for c, at in runs))
    for number in range(matrix.rounds):
        order = np.random.default_rng(number).permutation(len(matrix.cells))
        for cell in (matrix.cells[index] for index in order):
            output = cell_file(folder, cell, number)
            if reasons[cell.name] or cell.name in failed or output.exists():
                continue
            progress(f"round {number + 1} of {matrix.rounds}: {cell.name}")
            problem = _measure(matrix, cell, images, output)
            if problem is not None:
                failed[cell.name] = problem
                progress(f"failed: {cell.name}: {problem}")
            if on_cell is not None:
                on_cell()
    return failed


def _measure(matrix: Matrix, cell: Cell, images: Path, output: Path) -> str | None:
    """Time one cell in its own process; return None, or the reason why it failed."""
    command = [sys.executable, "-m", "benchmarks.peers", cell.runner, cell.artifact, images]
    command += [output, "--batch-size", cell.batch, "--repetitions", matrix.repetitions]
    command += ["--warm-up", matrix.warm_up, "--device", cell.device]
    try:
        process = subprocess.run(
            list(map(str, command)), capture_output=True, text=True, timeout=_LONGEST_CELL_S
        )
    except subprocess.TimeoutExpired:
        return f"took longer than {_LONGEST_CELL_S:.0f} s"
    if process.returncode == 0 and output.exists():
        return None
    lines = process.stderr.strip().splitlines() or [f"exit {process.returncode}"]
    return lines[-1].removeprefix("error: ")
