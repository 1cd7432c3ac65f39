"""The result of a matrix run: ratios against the reference, agreement of the answers, noise."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from benchmarks.matrix_definition import AGAIN, Cell, Matrix
from benchmarks.peers import RUNNERS
from tinyunet_deploy.artifacts.sidecar import Sidecar
from tinyunet_deploy.contract import Batch, defect_mask
from tinyunet_deploy.errors import DataError, RuntimeUnavailable
from tinyunet_deploy.files import read_regular
from tinyunet_deploy.quality.parity_limits import read_limits
from tinyunet_deploy.speed.ratio import STATISTICS, ratio_in_run

__all__ = [
    "KIND", "SCHEMA_VERSION", "cell_file", "matrix_result", "ms_per_image", "read_run",
]  # fmt: skip

SCHEMA_VERSION: Final = 1
KIND: Final = "matrix"


class _Measured(NamedTuple):
    """One cell with the files of its rounds."""

    cell: Cell
    sidecar: Sidecar
    rounds: list[dict[str, Any]]
    """The output of :func:`benchmarks.peers.time_cell` in each round."""
    scores: Batch | None
    """Scores of all images in the first round; None from a program that returns no scores."""

    @property
    def figures(self) -> list[float]:
        """The figure of each round, milliseconds per image."""
        return ms_per_image(self.rounds, self.cell.batch)


def cell_file(folder: Path, cell: Cell, number: int) -> Path:
    """Return the path of a cell's measurement in round ``number``; its scores are a .npy beside
    it."""
    slug = cell.name.translate(str.maketrans("/: ", "___"))
    return folder / "cells" / f"{number:03}-{slug}.json"


def matrix_result(
    matrix: Matrix,
    folder: Path,
    identity: Mapping[str, Any],
    sidecars: Mapping[Path, Sidecar],
    reasons: Mapping[str, str | None],
) -> dict[str, Any]:
    """Return the fields of a result from the cells that were measured.

    Args:
        folder: folder that contains ``cells/``.
        identity: machine, versions and artifacts of the run.
        sidecars: artifact -> sidecar.
        reasons: cell -> reason why it was not measured; None if it was.

    Raises:
        RuntimeUnavailable: the reference or the A/A pair was not measured.
    """
    measured = {
        cell.name: _read_cell(folder, cell, matrix.rounds, sidecars[cell.artifact])
        for cell in matrix.cells
        if reasons[cell.name] is None
    }
    for name in (matrix.reference, matrix.twice, matrix.twice + AGAIN):
        if name not in measured:
            raise RuntimeUnavailable(name, f"was not measured: {reasons[name]}")
    reference = measured[matrix.reference]
    pair = measured[matrix.twice], measured[matrix.twice + AGAIN]
    noise = ratio_in_run(pair[0].figures, pair[1].figures)
    return {
        "statistics": STATISTICS,
        **identity,
        "noise": {"ratio": noise.as_dict(), "floor": noise.floor, "cell": matrix.twice},
        "cells": [_row(cell, reference, identity) for cell in measured.values()],
        "skipped": [{"name": name, "reason": reason} for name, reason in reasons.items() if reason],
    }


def _read_cell(folder: Path, cell: Cell, rounds: int, sidecar: Sidecar) -> _Measured:
    files = [cell_file(folder, cell, number) for number in range(rounds)]
    scores = files[0].with_suffix(".npy")
    return _Measured(
        cell,
        sidecar,
        [json.loads(path.read_bytes()) for path in files if path.exists()],
        np.load(scores) if scores.exists() else None,
    )


def _row(measured: _Measured, reference: _Measured, identity: Mapping[str, Any]) -> dict[str, Any]:
    cell, sidecar = measured.cell, measured.sidecar
    return {
        "name": cell.name,
        "model": cell.artifact.name,
        "model_sha256": sidecar.sha256,
        "precision": sidecar.precision,
        "runner": cell.runner,
        "what": RUNNERS[cell.runner].what,
        "batch_size": cell.batch,
        "device": cell.device,
        "versions": identity["versions"][cell.runner],
        "boundary": measured.rounds[0]["boundary"],
        "median_ms_per_image": statistics.median(measured.figures),
        "times_as_fast": ratio_in_run(reference.figures, measured.figures).as_dict(),
        "answers": _answers(measured, reference),
        "rounds": [
            {key: one[key] for key in ("load_ms", "first_ms", "samples_ms")}
            for one in measured.rounds
        ],
    }


def _answers(measured: _Measured, reference: _Measured) -> dict[str, Any] | None:
    """Return the agreement with the reference's masks, I / U over all images.

    None if one of the two has no scores.
    """
    if measured.scores is None or reference.scores is None:
        return None
    threshold = reference.sidecar.threshold
    scores, right = measured.scores, reference.scores
    mask, wanted = (defect_mask(score, threshold) > 0 for score in (scores, right))
    union = int((mask | wanted).sum())
    agreement = int((mask & wanted).sum()) / union if union else 1.0
    limits = read_limits().of(measured.sidecar.precision, measured.cell.runner)
    limit = next((limit for limit in limits if limit.figure == "agreement"), None)
    steps = np.abs(scores.astype(np.int16) - right)
    return {
        "agreement": agreement,
        "largest_steps": int(steps.max()),
        "limit": str(limit) if limit else None,
        "holds": limit.holds(agreement) if limit else None,
    }


def ms_per_image(rounds: list[dict[str, Any]], batch: int) -> list[float]:
    """Return the figure of each round: the median of the samples, milliseconds per image."""
    return [statistics.median(one["samples_ms"]) / batch for one in rounds]


def read_run(path: Path) -> dict[str, Any]:
    """Read the result of a matrix run, a file or a folder with ``run.json``.

    Raises:
        DataError: it cannot be read, or is not such a result.
    """
    path = path / "run.json" if path.is_dir() else path
    try:
        fields: dict[str, Any] = json.loads(read_regular(path))
        if (fields["schema_version"], fields["kind"]) != (SCHEMA_VERSION, KIND):
            raise ValueError("it has another kind or schema version")
    except OSError as error:
        raise DataError(path, f"cannot be read: {error.strerror}") from error
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(path, f"is not a result of python -m benchmarks matrix: {error}") from error
    return fields
