"""Definition of the benchmark matrix, artifacts x runners x batch sizes, in a TOML file.

::

    rounds = 7                                        # each starts one process per cell
    repetitions = 20                                  # timed calls of a process
    warm_up = 3                                       # calls before them
    images = 16                                       # synthetic, the same for all
    reference = "tinyunet.safetensors@pytorch-eager/1"  # the denominator of all ratios
    twice = "tinyunet.onnx@openvino/1"                # measured twice, for the noise

    [[cells]]                                         # all combinations of three lists
    artifacts = ["tinyunet_deploy/models/tinyunet.onnx"]
    runners = ["openvino", "onnxruntime"]
    batches = [1, 4]
    device = "cpu"                                    # or cuda:0; default cpu
"""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.peers import RUNNERS
from tinyunet_deploy.artifacts.sidecar import kind_of
from tinyunet_deploy.errors import DataError
from tinyunet_deploy.files import read_regular

__all__ = ["AGAIN", "Cell", "Matrix", "read_matrix"]

AGAIN: Final = " again"
"""Suffix in the name of the second cell of the A/A pair."""


@dataclass(frozen=True)
class Cell:
    """One artifact on one runner with one batch size."""

    artifact: Path
    runner: str
    batch: int
    device: str = "cpu"
    again: bool = False
    """True for the second cell of the A/A pair."""

    @property
    def name(self) -> str:
        """``MODEL@RUNNER/BATCH``, and the device if it is not the CPU."""
        device = "" if self.device == "cpu" else f" on {self.device}"
        again = AGAIN if self.again else ""
        return f"{self.artifact.name}@{self.runner}/{self.batch}{device}{again}"


@dataclass(frozen=True)
class Matrix:
    """All cells of a run, and how often each is timed."""

    rounds: int
    repetitions: int
    """Timed calls of one cell in one round."""
    warm_up: int
    """Calls before the timed ones."""
    images: int
    reference: str
    """Name of the cell that all cells are compared with."""
    twice: str
    """Name of the cell that is timed twice, as the A/A pair."""
    cells: tuple[Cell, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON, with the name of each cell."""
        fields = dataclasses.asdict(self)
        return fields | {"cells": [cell.name for cell in self.cells]}


def read_matrix(path: Path) -> Matrix:
    """Read a matrix from a TOML file. Paths of artifacts are relative to the current folder.

    Raises:
        DataError: not TOML, an unknown or missing key, a value out of range, a runner that does
            not take an artifact, a cell that is given twice, or a reference that is not a cell.
    """
    try:
        return _matrix(tomllib.loads(read_regular(path).decode("utf-8")))
    except OSError as error:
        raise DataError(path, f"cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise DataError(path, f"is not a valid matrix: {error}") from error


def _matrix(fields: dict[str, Any]) -> Matrix:
    names = [field.name for field in dataclasses.fields(Matrix)]
    _check_keys(fields, names, names, "")
    for key in ("rounds", "repetitions", "warm_up", "images"):
        if type(fields[key]) is not int or fields[key] < 1:
            raise ValueError(f"{key} is {fields[key]!r}, not a whole number of at least 1")
    tables = fields.pop("cells")
    if not isinstance(tables, list) or not tables:
        raise ValueError("[[cells]] is missing or empty")
    cells = [cell for table in tables for cell in _cells(table, fields["images"])]
    known = [cell.name for cell in cells]
    for name in known:
        if known.count(name) > 1:
            raise ValueError(f"the cell {name} is given twice")
    for key in ("reference", "twice"):
        if fields[key] not in known:
            raise ValueError(f"{key} is {fields[key]!r}, which is not one of: {', '.join(known)}")
    pair = cells[known.index(fields["twice"])]
    cells.append(dataclasses.replace(pair, again=True))
    return Matrix(**fields, cells=tuple(cells))


def _cells(table: Any, images: int) -> list[Cell]:
    """Return all combinations of the lists in one ``[[cells]]`` table."""
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
        raise ValueError(f"cells.device is {device!r}, not a string")
    cells = []
    for artifact in map(Path, table["artifacts"]):
        for runner in table["runners"]:
            if runner not in RUNNERS:
                raise ValueError(f"{runner!r} is not a runner; known: {', '.join(RUNNERS)}")
            if kind_of(artifact) not in RUNNERS[runner].runs:
                raise ValueError(f"{runner} does not run {artifact.name}")
            for batch in table["batches"]:
                if batch < 1 or images % batch:
                    raise ValueError(f"batch {batch} does not divide the {images} images")
                cells.append(Cell(artifact, runner, batch, device))
    return cells


def _check_keys(
    table: dict[str, Any], known: Sequence[str], needed: Sequence[str], prefix: str
) -> None:
    for key in table:
        if key not in known:
            raise ValueError(f"unknown key {prefix}{key}; known: {', '.join(known)}")
    for key in needed:
        if key not in table:
            raise ValueError(f"{prefix}{key} is missing")
