"""Facts from several results, joined by the artifact's sha256 and the backend."""

from __future__ import annotations

import json
import statistics
from typing import Any

from benchmarks.matrix_definition import AGAIN
from benchmarks.report.drawing import MARKERS, Series
from benchmarks.report.results import Results
from benchmarks.report.wording import backend_label, limit_in_words, model_label
from tinyunet_deploy.speed.benchmark_result import Measurement

__all__ = [
    "as_series", "best_cell", "best_measurement", "machines_of", "model_name", "one_by_one",
    "one_per_data_set", "p50", "precisions_of", "red_answers", "series_of", "speeds_of",
]  # fmt: skip


def red_answers(results: Results) -> dict[tuple[str, str], list[str]]:
    """Return (sha256, backend) -> every limit that its answers break, over all results."""
    reasons: dict[tuple[str, str], list[str]] = {}
    for path, parity in results.parities.items():
        for comparison in parity["comparisons"]:
            for check in comparison.get("checks", ()):
                if not check["holds"]:
                    key = comparison["sha256"], comparison["backend"]
                    reasons.setdefault(key, []).append(
                        f"{check['figure']} is {check['value']:.3g}, "
                        f"but {limit_in_words(check['limit'])}, "
                        f"on {parity['data']} ({parity['images']} images, {path.name})"
                    )
    for path, benchmark in results.benchmarks.items():
        for measurement in benchmark.red:
            for broken in measurement.check.broken:
                key = measurement.model_sha256, measurement.backend
                reasons.setdefault(key, []).append(
                    f"{broken.figure} of the timed answers is {broken.value:.3g}, "
                    f"but {limit_in_words(broken.limit)} ({path.name})"
                )
    for path, matrix in results.matrices.items():
        for cell in matrix["cells"]:
            answers = cell["answers"]
            if answers and answers["holds"] is False:
                reasons.setdefault((cell["model_sha256"], cell["runner"]), []).append(
                    f"agreement is {answers['agreement']:.4f}, "
                    f"but {limit_in_words(answers['limit'])} ({path.name})"
                )
    return reasons


def one_by_one(results: Results) -> list[Measurement]:
    """Return the measurements with one image per call, fastest first."""
    alone = [measurement for measurement in results.measurements if measurement.batch_size == 1]
    return sorted(alone, key=p50)


def p50(measurement: Measurement) -> float:
    """Return the median time of the backend's call, milliseconds per batch."""
    return statistics.median(measurement.call.samples_ms)


def best_measurement(results: Results) -> Measurement | None:
    """Return the fastest measurement with one image per call whose answers are red in no result."""
    red = red_answers(results)
    for measurement in one_by_one(results):
        key = measurement.model_sha256, measurement.backend
        if measurement.check.outcome != "red" and key not in red:
            return measurement
    return None


def best_cell(results: Results) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """Return the first matrix, and its fastest cell with one image per call that is not red.

    Only cells of the library's own backends count.
    """
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
    """Return the series of a configuration, named by its model and backend."""
    label = f"{model_label(model, precision)} · {backend_label(backend)}"
    # A label that begins with an underscore is left out of legends.
    return Series(f" {label}" if label.startswith("_") else label, precision, backend)


def series_of(measurement: Measurement) -> Series:
    """Return the series that a measurement belongs to."""
    return as_series(measurement.model, measurement.precision, measurement.backend)


def speeds_of(results: Results) -> dict[tuple[str, str], float]:
    """Return (sha256, backend) -> median ms per image at batch 1.

    They come from the first matrix, or from the benchmarks if there is no matrix.
    """
    for matrix in results.matrices.values():
        return {
            (cell["model_sha256"], cell["runner"]): cell["median_ms_per_image"]
            for cell in matrix["cells"]
            if cell["batch_size"] == 1 and not cell["name"].endswith(AGAIN)
        }
    return {
        (measurement.model_sha256, measurement.backend): p50(measurement)
        for measurement in one_by_one(results)
    }


def one_per_data_set(results: Results) -> list[dict[str, Any]]:
    """Return one evaluation per data set: of the fastest configuration, else of a measured model,
    else the first."""
    best = best_measurement(results)
    measured = {measurement.model_sha256 for measurement in results.measurements}

    def rank(evaluation: dict[str, Any]) -> tuple[bool, bool]:
        sha256, backend = evaluation["model"]["sha256"], evaluation["backend"]
        fastest = best is not None and (sha256, backend) == (best.model_sha256, best.backend)
        return fastest, sha256 in measured

    of_data_set: dict[str, list[dict[str, Any]]] = {}
    for evaluation in results.evaluations.values():
        of_data_set.setdefault(json.dumps(evaluation["dataset"]), []).append(evaluation)
    return [max(evaluations, key=rank) for evaluations in of_data_set.values()]


def machines_of(results: Results) -> list[dict[str, Any]]:
    """Return the distinct machines that the results name."""
    machines = [benchmark.machine for benchmark in results.benchmarks.values()]
    tables = (
        results.matrices, results.parities, results.lines, results.pipelines, results.operators,
        results.gpus,
    )  # fmt: skip
    machines += [
        result["machine"] for table in tables for result in table.values() if "machine" in result
    ]
    different: list[dict[str, Any]] = []
    for machine in machines:
        if machine not in different:
            different.append(machine)
    return different


def precisions_of(results: Results) -> dict[str, str]:
    """Return file name of a model -> its precision, for results that name the file alone."""
    known = {measurement.model: measurement.precision for measurement in results.measurements}
    for matrix in results.matrices.values():
        known |= {cell["model"]: cell["precision"] for cell in matrix["cells"]}
    for parity in results.parities.values():
        known |= {one["model"]: one["precision"] for one in parity["comparisons"]}
    return known


def model_name(results: Results, sha256: str) -> str:
    """Return the name of a model, or the start of its sha256 if no result has the name."""
    names = {
        measurement.model_sha256: model_label(measurement.model, measurement.precision)
        for measurement in results.measurements
    }
    for matrix in results.matrices.values():
        names |= {
            cell["model_sha256"]: model_label(cell["model"], cell["precision"])
            for cell in matrix["cells"]
        }
    for parity in results.parities.values():
        names |= {
            comparison["sha256"]: model_label(comparison["model"], comparison["precision"])
            for comparison in parity["comparisons"]
        }
    return names.get(sha256, sha256[:12])
