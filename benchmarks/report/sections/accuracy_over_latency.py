"""Section on accuracy against latency: shows which configurations are worth their time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from benchmarks.report.content import Section, Table
from benchmarks.report.drawing import (
    COLORS,
    GATE_DASHES,
    Series,
    draw_dot,
    draw_gate,
    draw_legend,
    figure_style,
    new_figure,
    plain_log,
    svg_of,
)
from benchmarks.report.joins import as_series, red_answers, speeds_of
from benchmarks.report.results import Results
from benchmarks.report.sections.answers import parity_command


class _Point(NamedTuple):
    """One configuration in the plane of accuracy and latency."""

    series: Series
    ms: float
    iou: float
    passes: bool
    """True if the answers keep every limit; drawn hollow if not."""


def accuracy_over_latency(results: Results) -> Section:
    """Return the section that joins parity and speed of the same files."""
    section = Section("Accuracy against latency")
    speeds = speeds_of(results)
    parities = [
        (path, parity)
        for path, parity in results.parities.items()
        if parity["truth"] and any(_joined(parity, speeds))
    ]
    if not parities:
        section.absent = True
        section.lead = ["It takes accuracy and latency of the same files."]
        section.commands = [
            "tinyunet parity DATA -m engines/ -o out",
            "tinyunet benchmark IMAGES -m engines/ -o benchmarks/results/benchmark.json",
        ]
        return section
    path, parity = parities[0]
    reference, drop = _reference_iou(parity), _allowed_drop(parity)
    gate = reference - drop if reference is not None and drop is not None else None
    points, rows, red_elsewhere = [], [], red_answers(results)
    for comparison, ms in _joined(parity, speeds):
        backend, iou = comparison["backend"], comparison["iou_defective"]
        series = as_series(comparison["model"], comparison["precision"], backend)
        red = comparison["outcome"] == "red" or (comparison["sha256"], backend) in red_elsewhere
        points.append(_Point(series, ms, iou, not red))
        rows.append(
            (series.label, f"{ms:.1f}", f"{iou:.4f}", f"{comparison['agreement']:.4f}",
             str(comparison["flips"]), comparison["outcome"])
        )  # fmt: skip
    deadlines = [line["line"]["deadline_ms"] for line in results.lines.values()]
    section.draw(lambda width: _figure(points, gate, min(deadlines, default=None), width))
    section.lead = [
        f"Accuracy of {parity['data']} ({parity['images']} images) as tinyunet parity counts it; "
        "the line joins the points that no other beats in both. A hollow point fails a limit, here "
        "or on other images."
    ]
    if gate is not None:
        section.lead.append(
            f"The IoU gate is the reference's {reference:.4f} less the {drop:g} allowed."
        )
    section.tables = [
        Table(
            ("", "ms/image", "iou_defective", "agreement", "flips", "gate"),
            sorted(rows, key=lambda row: float(row[1])),
        )
    ]
    section.commands = [parity_command(parity, path), *_speed_commands(results)]
    return section


def _joined(
    parity: dict[str, Any], speeds: dict[tuple[str, str], float]
) -> list[tuple[dict[str, Any], float]]:
    """Pair each comparison that has an IoU with its time, milliseconds per image."""
    return [
        (comparison, speeds[key])
        for comparison in parity["comparisons"]
        if (key := (comparison["sha256"], comparison["backend"])) in speeds
        and comparison.get("iou_defective") is not None
    ]


def _reference_iou(parity: dict[str, Any]) -> float | None:
    ious = (row.get("iou_defective_of_reference") for row in parity["comparisons"])
    return next((iou for iou in ious if iou is not None), None)


def _allowed_drop(parity: dict[str, Any]) -> float | None:
    """Return the strictest limit of the IoU drop in any comparison of a parity result."""
    return min(
        (
            float(check["limit"].removeprefix("<= "))
            for comparison in parity["comparisons"]
            for check in comparison.get("checks", ())
            if check["figure"] == "iou_drop"
        ),
        default=None,
    )


def _speed_commands(results: Results) -> list[str]:
    if results.matrices:
        return [next(iter(results.matrices.values()))["command"]]
    return [benchmark.command for benchmark in results.benchmarks.values()]


def _frontier(points: Sequence[_Point]) -> list[_Point]:
    """Return the passing points that no other passing point beats in time and IoU at once."""
    best, frontier = -math.inf, []
    for point in sorted(points, key=lambda p: (p.ms, -p.iou)):
        if point.passes and point.iou > best:
            best = point.iou
            frontier.append(point)
    return frontier


def _figure(
    points: Sequence[_Point], least_iou: float | None, most_ms: float | None, width: float
) -> str:
    with figure_style():
        figure, axes = new_figure(3.1, width)
        frontier = _frontier(points)
        if len(frontier) > 1:
            axes.step(
                [p.ms for p in frontier], [p.iou for p in frontier], where="post",
                color=COLORS["muted"], linewidth=0.9, zorder=1,
            )  # fmt: skip
        for point in points:
            draw_dot(axes, point.series, point.ms, point.iou, hollow=not point.passes)
        axes.set_xscale("log")
        axes.margins(x=0.12, y=0.2)
        if least_iou is not None:
            draw_gate(axes, least_iou, f"least IoU {least_iou:.3f}")
        if most_ms is not None:
            axes.axvline(most_ms, color=COLORS["gate"], linewidth=1, linestyle=GATE_DASHES)
            axes.annotate(
                f"deadline {most_ms:g} ms", (most_ms, 1), xycoords=("data", "axes fraction"),
                xytext=(-4, -2), textcoords="offset points", ha="right", va="top", fontsize=8.5,
                color=COLORS["gate"],
            )  # fmt: skip
        plain_log(axes.xaxis)
        axes.set_xlabel("ms per image, median")
        axes.set_ylabel("iou_defective")
        draw_legend(figure, axes)
        return svg_of(figure, "pareto", "Accuracy against latency")
