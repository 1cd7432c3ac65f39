"""First screen of the report: go or no-go, the verdict of each gate, speed, accuracy, parts."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from benchmarks.report.content import Picture, Table
from benchmarks.report.joins import (
    best_measurement,
    model_name,
    one_per_data_set,
    red_answers,
)
from benchmarks.report.part_pictures import part_pictures
from benchmarks.report.results import Results
from benchmarks.report.sections.line_speed import line_sentence, model_of, promise_broken
from benchmarks.report.wording import (
    backend_label,
    configuration,
    data_name,
    in_ms,
    model_label,
    percent,
    share,
)
from tinyunet_deploy.speed.benchmark_result import Measurement

__all__ = ["FirstScreen", "Gate", "first_screen"]

Verdict = Literal["pass", "fail", "open"]
"""Outcome of a gate; ``open`` if it was not measured."""


class Gate(NamedTuple):
    """One condition of a release, and whether it holds."""

    name: str
    verdict: Verdict
    text: str


class Tile(NamedTuple):
    """A figure in large type, with its name and conditions."""

    value: str
    name: str
    text: str


class _Compared(NamedTuple):
    """A comparison of ``tinyunet parity``, and its number of images."""

    comparison: dict[str, Any]
    images: int


@dataclass(frozen=True)
class FirstScreen:
    """Contents of the first screen."""

    word: str
    """GO, NO-GO or OPEN."""
    verdict: Verdict
    reason: str
    gates: list[Gate]
    tiles: list[Tile]
    accuracy: Table | None
    parts: list[Picture]


def first_screen(results: Results, parts: Path | None) -> FirstScreen:
    """Return the first screen of a report.

    Args:
        parts: folder of pictures of parts, see :func:`~benchmarks.report.part_pictures`; None
            leaves them out.

    Raises:
        DataError: the folder contains no such pictures.
    """
    gates = [_answers_gate(results), _line_gate(results), *_plan_gates(results)]
    word, verdict, reason = _decision(results, gates)
    pictures = part_pictures(parts, list(results.evaluations.values())) if parts else []
    return FirstScreen(
        word, verdict, reason, gates, _tiles(results), _accuracy(results), pictures
    )  # fmt: skip


def _decision(results: Results, gates: Sequence[Gate]) -> tuple[str, Verdict, str]:
    failed = [gate.name.lower() for gate in gates if gate.verdict == "fail"]
    still_open = [gate.name.lower() for gate in gates if gate.verdict == "open"]
    if failed:
        return "NO-GO", "fail", f"Failed: {', '.join(failed)}."
    if still_open:
        return (
            "OPEN",
            "open",
            f"Nothing failed, but this is not shown yet: {', '.join(still_open)}.",
        )
    best = best_measurement(results)
    what = _name_of(best) if best is not None else "the model"
    reason = f"Every gate passes for {what}."
    if results.evaluations:
        reason += " Escapes and overkill have no limit here: judge them by their bounds."
    else:
        reason += " Whether it finds defects was not measured."
    return "GO", "pass", reason


def _name_of(measurement: Measurement) -> str:
    return configuration(measurement.model, measurement.precision, measurement.backend)


def _answers_gate(results: Results) -> Gate:
    """Return the gate on whether the configuration to ship gives the answers of its network.

    The configuration to ship is the fastest one whose answers pass, or the first that passes if
    none was timed.
    """
    name, red, best = "Answers as the network", red_answers(results), best_measurement(results)
    compared: dict[tuple[str, str], list[_Compared]] = {}
    for parity in results.parities.values():
        for comparison in parity["comparisons"]:
            if "skipped" not in comparison:
                key = comparison["sha256"], comparison["backend"]
                compared.setdefault(key, []).append(_Compared(comparison, parity["images"]))
    if best is not None:
        ours = compared.get((best.model_sha256, best.backend))
        if ours is None:
            return Gate(name, "open", f"{_name_of(best)} was not compared with its checkpoint.")
        return _likeness(name, ours)
    passing = [group for key, group in compared.items() if key not in red]
    if passing:
        return _likeness(name, passing[0])
    for (sha256, backend), reasons in red.items():
        what = f"{model_name(results, sha256)} on {backend_label(backend)}"
        return Gate(name, "fail", f"Nothing passes. {what}: {reasons[0]}.")
    return Gate(name, "open", "No result of tinyunet parity.")


def _likeness(name: str, ours: Sequence[_Compared]) -> Gate:
    """Return the gate of one configuration, whose comparisons all pass."""
    first = ours[0].comparison
    images = sum(one.images for one in ours)
    flips = sum(one.comparison["flips"] for one in ours)
    drops = [drop for one in ours if (drop := one.comparison["iou_drop"]) is not None]
    label = configuration(first["model"], first["precision"], first["backend"])
    text = f"{label}: {flips} of {images} verdicts differ from the network's"
    if drops:
        text += f", IoU {-max(drops) + 0.0:+.4f} at worst"
    return Gate(name, "pass", f"{text}.")


def _line_gate(results: Results) -> Gate:
    name = "Keeps up with the belt"
    for line in results.lines.values():
        if promise_broken(line) or not line["fastest_shown_parts_per_minute"]:
            return Gate(name, "fail", line_sentence(line))
    if not results.lines:
        return Gate(name, "open", "No result of tinyunet line-sim.")
    line = next(iter(results.lines.values()))
    speed = line["fastest_shown_parts_per_minute"]
    if not line["verified"]:
        return Gate(
            name, "open", f"{speed:,.0f} parts per minute are predicted, but were not tried live."
        )
    outcome = line["verified"]["outcome"]
    return Gate(
        name, "pass",
        f"{speed:,.0f} parts per minute, tried live: {outcome['missed']:,} of "
        f"{outcome['parts']:,} parts late, {percent(line['max_miss_rate'])} allowed.",
    )  # fmt: skip


def _plan_gates(results: Results) -> list[Gate]:
    """Return a gate that is open if there are TensorRT engines that no result timed."""
    timed = {measurement.model_sha256 for measurement in results.measurements}
    untimed = [path.name for path, plan in results.plans.items() if plan.sha256 not in timed]
    if not untimed:
        return []
    return [
        Gate("TensorRT engine on hardware", "open", f"Not run on a GPU: {', '.join(untimed)}.")
    ]  # fmt: skip


def _tiles(results: Results) -> list[Tile]:
    tiles = []
    best = best_measurement(results)
    if best is not None:
        p99, calls = best.call.percentile_ms("p99"), best.call.samples_ms
        text = f"{_name_of(best)}; "
        text += f"99 % within {in_ms(p99)}, " if not math.isnan(p99) else ""
        text += f"worst of {len(calls)} calls {in_ms(max(calls))}"
        tiles.append(Tile(in_ms(statistics.median(calls)), "for one image, typical", text))
        rate = best.throughput.images_per_s
        tiles.append(
            Tile(f"{rate:.3g}", "images per second", f"{_name_of(best)}, images in memory")
        )
    for line in results.lines.values():
        speed = line["fastest_shown_parts_per_minute"]
        if speed and not promise_broken(line):
            how = "tried live" if line["verified"] else "predicted"
            text = f"{how}, {model_of(line)}"
            tiles.append(Tile(f"{speed:,.0f}", "parts per minute on the belt", text))
            break
    return tiles


def _accuracy(results: Results) -> Table | None:
    """Return a row for each data set: IoU, escapes and overkill with their bounds."""
    rows = []
    for evaluation in one_per_data_set(results):
        all_, model = evaluation["all"], evaluation["model"]
        good = all_["images"] - all_["defective"]
        rows.append(
            (f"{data_name(evaluation)}, {model_label(model['name'], model['precision'])}",
             share(evaluation["mean"]["iou_defective"]),
             _of(all_["escapes"], all_["defective"], all_["escape_rate_upper_95"]),
             _of(all_["overkills"], good, all_["overkill_rate_upper_95"]))
        )  # fmt: skip
    head = (
        "Accuracy, bounds at 95 % confidence", "IoU on defective parts",
        "defective parts let through", "good parts rejected",
    )  # fmt: skip
    return Table(head, rows) if rows else None


def _of(count: int, trials: int, bound: float | None) -> str:
    """Write a count of mistakes with the bound of its rate."""
    if not trials:
        return "-"
    text = f"{count} of {trials}"
    return text if bound is None else f"{text}, at most {percent(bound)}"
