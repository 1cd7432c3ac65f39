"""The top of the report: title, facts, summary and key figures."""

from __future__ import annotations

import math
import statistics
from typing import Any

from benchmarks.matrix_result import ms_per_image
from benchmarks.report.content import Table
from benchmarks.report.drawing import MARKERS
from benchmarks.report.joins import (
    best_cell,
    best_measurement,
    machines_of,
    model_name,
    one_per_data_set,
    red_answers,
)
from benchmarks.report.results import Results
from benchmarks.report.sections.line_speed import gate_of, line_sentence, promise_broken
from benchmarks.report.wording import (
    backend_label,
    cell_label,
    configuration,
    data_name,
    in_ms,
    model_label,
    share,
)
from tinyunet_deploy.speed.benchmark_result import Measurement
from tinyunet_deploy.speed.ratio import ratio_in_run

__all__ = ["facts", "key_figures", "summary", "title"]

_Rows = list[tuple[str, str, str]]
"""Parameter, condition, value."""


def title(results: Results) -> str:
    """Return the report's title."""
    return "TensorRT benchmark report" if results.plans else "Benchmark report"


def facts(results: Results) -> list[tuple[str, str]]:
    """Return the facts below the title, as (name, value)."""
    first_benchmark = next(iter(results.benchmarks.values()), None)
    stated = [("Date", first_benchmark.started_utc[:10])] if first_benchmark else []
    machine = next(iter(machines_of(results)), None)
    if machine is not None:
        stated += [
            ("Machine", f"{machine['processor']}, {machine['processors']} processors"),
            ("System", machine["system"]),
            ("Version", f"tinyunet_deploy {machine['tinyunet_deploy']}"),
        ]
    return stated


def summary(results: Results) -> list[str]:
    """Return the summary, for readers who read nothing else."""
    sentences = []
    best = best_measurement(results)
    if best is not None:
        sentences.append(
            f"The fastest configuration whose answers pass is {_name_of(best)}: "
            f"{in_ms(statistics.median(best.call.samples_ms))} for one image, "
            f"{best.throughput.images_per_s:.3g} images per second."
        )
    fastest = best_cell(results)
    if fastest is not None:
        matrix, cell = fastest
        ratio = cell["times_as_fast"]
        sentences.append(
            f"In one run with its peers, {cell_label(matrix, cell['name'])} is "
            f"{ratio['value']:.2f} times as fast as "
            f"{cell_label(matrix, matrix['matrix']['reference'])} (99 % interval "
            f"{ratio['low']:.2f} to {ratio['high']:.2f}, noise floor "
            f"{matrix['noise']['floor']:.3f})."
        )
    for evaluation in one_per_data_set(results):
        all_ = evaluation["all"]
        model = model_label(evaluation["model"]["name"], evaluation["model"]["precision"])
        good = all_["images"] - all_["defective"]
        rejects = f"rejects {all_['overkills']} of {good} good ones" if good else "met no good one"
        sentences.append(
            f"On {data_name(evaluation)} {model} finds defects with an "
            f"IoU of {share(evaluation['mean']['iou_defective'])}, lets {all_['escapes']} of "
            f"{all_['defective']} defective parts through and {rejects}."
        )
    sentences += map(line_sentence, results.lines.values())
    for (sha256, backend), reasons in red_answers(results).items():
        sentences.append(
            f"Not to be shipped: {model_name(results, sha256)} on {backend_label(backend)}: "
            f"{reasons[0]}" + (f", and {len(reasons) - 1} more" if len(reasons) > 1 else "") + "."
        )
    return sentences or ["Nothing was timed; the sections below say which commands do that."]


def key_figures(results: Results) -> Table | None:
    """Return parameter, condition and value, as on a data sheet; None if there is no figure."""
    best = best_measurement(results)
    rows = [
        *(_speed_rows(best) if best is not None else []),
        *_peer_rows(results),
        *_accuracy_rows(results),
        *_line_rows(results),
    ]
    shown, above = [], ""
    for parameter, condition, value in rows:  # a condition stands at the first of its rows
        shown.append((parameter, "" if condition == above else condition, value))
        above = condition
    return Table(("Parameter", "Condition", "Value"), shown, numbers=2) if rows else None


def _name_of(measurement: Measurement) -> str:
    return configuration(measurement.model, measurement.precision, measurement.backend)


def _speed_rows(best: Measurement) -> _Rows:
    name = _name_of(best)
    alone = f"{name}, one image a call, {len(best.call.samples_ms)} calls"
    rows = []
    for rank, label in (("p50", "typical (p50)"), ("p99", "p99"), ("p99_9", "p99.9")):
        value = best.call.percentile_ms(rank)
        if not math.isnan(value):
            rows.append((f"Latency, {label}", alone, in_ms(value)))
    rows.append(("Latency, worst seen", alone, in_ms(max(best.call.samples_ms))))
    end_ms = statistics.median(best.end_to_end.samples_ms)
    rows.append(("File to verdict, typical", alone, in_ms(end_ms)))
    rate = f"{best.throughput.images_per_s:.3g} images/s"
    rows.append(("Throughput", f"{name}, images in memory", rate))
    roof = best.roofline
    if roof is not None:
        condition = f"{name}, bound by {roof.bound_by}"
        rows.append(("Share of the roofline", condition, f"{roof.latency_percent:.0f} %"))
    return rows


def _peer_rows(results: Results) -> _Rows:
    fastest = best_cell(results)
    if fastest is None:
        return []
    matrix, ours = fastest
    rows = []
    for peer in matrix["cells"]:
        if peer["runner"] not in MARKERS and _same_work(peer, ours):
            factor = ratio_in_run(*(ms_per_image(cell["rounds"], 1) for cell in (peer, ours)))
            condition = f"{cell_label(matrix, ours['name'])} against "
            condition += f"{cell_label(matrix, peer['name'])}, "
            condition += f"99 % interval {factor.low:.2f} to {factor.high:.2f}"
            rows.append(("Times as fast", condition, f"{factor.value:.2f}"))
    return rows


def _same_work(peer: dict[str, Any], ours: dict[str, Any]) -> bool:
    return all(peer[key] == ours[key] for key in ("precision", "batch_size", "device"))


def _accuracy_rows(results: Results) -> _Rows:
    rows = []
    for evaluation in one_per_data_set(results):
        name, all_ = data_name(evaluation), evaluation["all"]
        good = all_["images"] - all_["defective"]
        rows += [
            ("IoU on defective images", name, share(evaluation["mean"]["iou_defective"])),
            ("Escapes", name, f"{all_['escapes']} / {all_['defective']}"),
            ("Overkill", name, f"{all_['overkills']} / {good}"),
        ]
    return rows


def _line_rows(results: Results) -> _Rows:
    rows = []
    for line in results.lines.values():
        condition = f"gate {gate_of(line)} behind the camera, "
        condition += f"{100 * line['max_miss_rate']:g} % may be missed"
        speed = line["fastest_shown_parts_per_minute"]
        safe = speed and not promise_broken(line)
        rows.append(("Safe line speed", condition, f"{speed:,.0f} / min" if safe else "not shown"))
    return rows
