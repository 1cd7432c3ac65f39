"""The results that a report is made of: read, told apart, and joined.

Results are told apart by what is in them: `tinyunet benchmark`, `python -m benchmarks matrix`,
`python -m benchmarks.files_to_masks`, `python -m benchmarks.operators`, `python -m benchmarks.gpu`,
`tinyunet evaluate`, `tinyunet parity`, `tinyunet line-sim`, `tinyunet tune`, and the sidecars of
TensorRT plans.
They are joined by the sha256 of the artifact and the name of the backend.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from benchmarks.figures import MARKERS, Series
from benchmarks.matrix import AGAIN
from tinyunet_deploy.artifacts.sidecar import KINDS, Sidecar, read_sidecar
from tinyunet_deploy.errors import ArtifactError, DataError
from tinyunet_deploy.files import read_regular
from tinyunet_deploy.speed.benchmark_result import Benchmark, Measurement, read_benchmark

_LARGEST: Final = 256 * 1024 * 1024


@dataclass
class Results:
    """Everything that was read; each with the file it came from."""

    benchmarks: dict[Path, Benchmark] = field(default_factory=dict)
    matrices: dict[Path, dict[str, Any]] = field(default_factory=dict)
    evaluations: dict[Path, dict[str, Any]] = field(default_factory=dict)
    parities: dict[Path, dict[str, Any]] = field(default_factory=dict)
    lines: dict[Path, dict[str, Any]] = field(default_factory=dict)
    pipelines: dict[Path, dict[str, Any]] = field(default_factory=dict)
    operators: dict[Path, dict[str, Any]] = field(default_factory=dict)
    gpus: dict[Path, dict[str, Any]] = field(default_factory=dict)
    tunings: dict[Path, dict[str, Any]] = field(default_factory=dict)
    plans: dict[Path, Sidecar] = field(default_factory=dict)
    """By the plan's path."""

    @property
    def measurements(self) -> list[Measurement]:
        """Of all benchmarks."""
        return [found for each in self.benchmarks.values() for found in each.measurements]


def read_results(paths: Sequence[Path]) -> Results:
    """All results in files and folders.

    In a folder, what is no result is passed over, and so is a folder with a report of its own.

    Raises:
        DataError: a file is no result, or there is none at all.
    """
    results = Results()
    for path in paths:
        if path.is_dir():
            apart = {found.parent / "cells" for found in path.rglob("run.json")}
            apart |= {found.parent for found in path.rglob("report.html")} - {path}
            for found in sorted(path.rglob("*.json")):
                if not apart & set(found.parents):
                    _take(results, found)
        elif not _take(results, path):
            raise DataError(path, "is no result that the report knows", _COMMANDS)
    if not any(vars(results).values()):
        raise DataError(paths[0], "holds no result", _COMMANDS)
    return results


_COMMANDS: Final = (
    "they come from tinyunet benchmark, evaluate, parity, line-sim, tune, build, "
    "python -m benchmarks matrix, and python -m benchmarks.files_to_masks, .operators and .gpu"
)


def _take(results: Results, path: Path) -> bool:
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


# --- joining ----------------------------------------------------------------------------------


def red_answers(results: Results) -> dict[tuple[str, str], list[str]]:
    """(sha256, backend) -> every limit that its answers break, over all results."""
    found: dict[tuple[str, str], list[str]] = {}
    for path, parity in results.parities.items():
        for each in parity["comparisons"]:
            for check in each.get("checks", ()):
                if not check["holds"]:
                    found.setdefault((each["sha256"], each["backend"]), []).append(
                        f"{check['figure']} is {check['value']:.3g}, {wanted(check['limit'])}, "
                        f"on {parity['data']} ({parity['images']} images, {path.name})"
                    )
    for path, benchmark in results.benchmarks.items():
        for each in benchmark.red:
            for broken in each.check.broken:
                found.setdefault((each.model_sha256, each.backend), []).append(
                    f"{broken.figure} of the timed answers is {broken.value:.3g}, "
                    f"{wanted(broken.limit)} ({path.name})"
                )
    for path, matrix in results.matrices.items():
        for cell in matrix["cells"]:
            answers = cell["answers"]
            if answers and answers["holds"] is False:
                found.setdefault((cell["model_sha256"], cell["runner"]), []).append(
                    f"agreement is {answers['agreement']:.4f}, {wanted(answers['limit'])} "
                    f"({path.name})"
                )
    return found


def one_by_one(results: Results) -> list[Measurement]:
    """Measurements of one image a call, fastest first."""
    alone = [found for found in results.measurements if found.batch_size == 1]
    return sorted(alone, key=p50)


def p50(found: Measurement) -> float:
    """Median time of the backend's call, milliseconds a batch."""
    return statistics.median(found.call.samples_ms)


def best_measurement(results: Results) -> Measurement | None:
    """The fastest for one image whose answers no result calls red."""
    red = red_answers(results)
    for found in one_by_one(results):
        if found.check.outcome != "red" and (found.model_sha256, found.backend) not in red:
            return found
    return None


def best_cell(results: Results) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """The same, of the first matrix: the matrix and our cell."""
    red = red_answers(results)
    for matrix in results.matrices.values():
        cells = [
            cell
            for cell in matrix["cells"]
            if cell["runner"] in MARKERS
            and cell["batch_size"] == 1
            and not cell["name"].endswith(AGAIN)
            and (cell["model_sha256"], cell["runner"]) not in red
        ]
        if cells:
            return matrix, min(cells, key=lambda cell: cell["median_ms_per_image"])
    return None


def as_series(model: str, precision: str, backend: str) -> Series:
    return Series(f"{stem(model)} · {backend}", precision, backend)


def stem(model: str) -> str:
    return model.removesuffix(".onnx").removesuffix(".safetensors")


def series_of(found: Measurement) -> Series:
    return as_series(found.model, found.precision, found.backend)


def speeds_of(results: Results) -> dict[tuple[str, str], float]:
    """(sha256, backend) -> median ms per image at batch 1: of one matrix, else of benchmarks."""
    for matrix in results.matrices.values():
        return {
            (cell["model_sha256"], cell["runner"]): cell["median_ms_per_image"]
            for cell in matrix["cells"]
            if cell["batch_size"] == 1 and not cell["name"].endswith(AGAIN)
        }
    return {(found.model_sha256, found.backend): p50(found) for found in one_by_one(results)}


def one_per_data_set(results: Results) -> list[dict[str, Any]]:
    """One evaluation per data set: of the best configuration where it has one."""
    best = best_measurement(results)
    chosen: dict[str, dict[str, Any]] = {}
    for evaluation in results.evaluations.values():
        name = json.dumps(evaluation["dataset"])
        ours = best is not None and (
            evaluation["model"]["sha256"],
            evaluation["backend"],
        ) == (best.model_sha256, best.backend)
        if name not in chosen or ours:
            chosen[name] = evaluation
    return list(chosen.values())


def machines_of(results: Results) -> list[dict[str, Any]]:
    """The different machines of all results that name theirs."""
    all_ = [each.machine for each in results.benchmarks.values()]
    tables = (
        results.matrices, results.parities, results.lines, results.pipelines, results.operators,
        results.gpus,
    )  # fmt: skip
    all_ += [each["machine"] for table in tables for each in table.values() if "machine" in each]
    different: list[dict[str, Any]] = []
    for machine in all_:
        if machine not in different:
            different.append(machine)
    return different


def model_name(results: Results, sha256: str) -> str:
    names = {found.model_sha256: found.model for found in results.measurements}
    for matrix in results.matrices.values():
        names |= {cell["model_sha256"]: cell["model"] for cell in matrix["cells"]}
    for parity in results.parities.values():
        names |= {each["sha256"]: each["model"] for each in parity["comparisons"]}
    return names.get(sha256, sha256[:12])


def data_name(evaluation: dict[str, Any]) -> str:
    """``dagm2007 (class 1, test, 40 images)``."""
    data = evaluation["dataset"]
    classes = data["classes"]
    which = f"class {classes[0]}, " if len(classes) == 1 else f"{len(classes)} classes, "
    return (
        f"{data['name']} ({which if classes else ''}{data['split']}, {evaluation['images']} images)"
    )


# --- words ----------------------------------------------------------------------------------


def wanted(limit: str) -> str:
    """``<= 0.005`` in words."""
    side, _, value = limit.partition(" ")
    return f"at {'most' if side == '<=' else 'least'} {value} wanted"


def in_ms(value: float) -> str:
    return f"{value:.3g} ms" if value < 100 else f"{value:.0f} ms"


def number(value: float | None) -> str:
    if value is None or math.isnan(value):
        return "-"
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 1000 else f"{value:,.0f}"


def share(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
