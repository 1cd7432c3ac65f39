"""Read the result files of a report, and sort them by kind.

The kind of a file is recognised by its contents: results of ``tinyunet benchmark``, evaluate,
parity, line-sim and tune, of ``python -m benchmarks matrix``, ``benchmarks.files_to_masks``,
``benchmarks.operators`` and ``benchmarks.gpu``, and the sidecars of TensorRT plans.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from tinyunet_deploy.artifacts.sidecar import KINDS, Sidecar, read_sidecar
from tinyunet_deploy.errors import ArtifactError, DataError
from tinyunet_deploy.files import read_regular
from tinyunet_deploy.speed.benchmark_file import read_benchmark
from tinyunet_deploy.speed.benchmark_result import Benchmark, Measurement

__all__ = ["Results", "read_results"]

_LARGEST: Final = 256 * 1024 * 1024
_COMMANDS: Final = (
    "they come from tinyunet benchmark, evaluate, parity, line-sim, tune, build, "
    "python -m benchmarks matrix, and python -m benchmarks.files_to_masks, .operators and .gpu"
)
_REPORTS: Final = ("report.html", "report.md")


@dataclass
class Results:
    """All results, by file."""

    benchmarks: dict[Path, Benchmark] = field(default_factory=dict)
    matrices: dict[Path, dict[str, Any]] = field(default_factory=dict)
    evaluations: dict[Path, dict[str, Any]] = field(default_factory=dict)
    parities: dict[Path, dict[str, Any]] = field(default_factory=dict)
    lines: dict[Path, dict[str, Any]] = field(default_factory=dict)
    """Results of ``tinyunet line-sim``."""
    pipelines: dict[Path, dict[str, Any]] = field(default_factory=dict)
    """Results of ``python -m benchmarks.files_to_masks``."""
    operators: dict[Path, dict[str, Any]] = field(default_factory=dict)
    gpus: dict[Path, dict[str, Any]] = field(default_factory=dict)
    tunings: dict[Path, dict[str, Any]] = field(default_factory=dict)
    plans: dict[Path, Sidecar] = field(default_factory=dict)
    """Path of a TensorRT plan -> its sidecar."""

    @property
    def measurements(self) -> list[Measurement]:
        """The measurements of all benchmarks."""
        return [
            measurement
            for benchmark in self.benchmarks.values()
            for measurement in benchmark.measurements
        ]


def read_results(paths: Sequence[Path]) -> Results:
    """Read all results in files and folders.

    In a folder, files that are not results are ignored, and so are the cells of a matrix and every
    subfolder that has its own report.

    Raises:
        DataError: a file is not a result, or there is no result at all.
    """
    results = Results()
    for path in paths:
        if path.is_dir():
            apart = {run.parent / "cells" for run in path.rglob("run.json")}
            apart |= {page.parent for name in _REPORTS for page in path.rglob(name)} - {path}
            for file in sorted(path.rglob("*.json")):
                if not apart & set(file.parents):
                    _take(results, file)
        elif not _take(results, path):
            raise DataError(path, "is not a result that the report knows", _COMMANDS)
    if not any(vars(results).values()):
        raise DataError(paths[0], "contains no result", _COMMANDS)
    return results


def _take(results: Results, path: Path) -> bool:
    """Add a file to the results, and return whether it is a result."""
    plan = path.with_suffix("")
    try:
        if plan.suffix in KINDS:
            if KINDS[plan.suffix] == "plan":
                results.plans[plan] = read_sidecar(plan)
            return KINDS[plan.suffix] == "plan"
        fields = json.loads(read_regular(path, limit=_LARGEST))
    except ArtifactError:
        raise
    except (OSError, ValueError) as error:
        raise DataError(path, f"cannot be read: {error}") from error
    keys = set(fields) if isinstance(fields, dict) else set()
    if not keys or fields.get("schema_version") != 1:
        return False
    if fields.get("kind") == "benchmark":
        results.benchmarks[path] = read_benchmark(path)
    elif fields.get("kind") == "matrix":
        results.matrices[path] = fields
    elif {"per_image", "mean", "model"} <= keys:
        results.evaluations[path] = fields
    elif {"comparisons", "reference"} <= keys:
        results.parities[path] = fields
    elif {"curve", "chosen", "before", "rule"} <= keys:
        results.tunings[path] = fields
    elif fields.get("kind") == "line-sim":
        results.lines[path] = fields
    elif fields.get("kind") == "pipeline":
        results.pipelines[path] = fields
    elif fields.get("kind") == "operators":
        results.operators[path] = fields
    elif fields.get("kind") == "gpu":
        results.gpus[path] = fields
    else:
        return False
    return True
