"""Section on the limit of this machine: measured ceilings against the network's needs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from matplotlib.axes import Axes

from benchmarks.report.content import Section, Table, no_benchmark
from benchmarks.report.drawing import (
    COLORS,
    Series,
    draw_legend,
    figure_style,
    new_figure,
    plain_log,
    svg_of,
)
from benchmarks.report.joins import series_of
from benchmarks.report.results import Results
from benchmarks.report.wording import backend_label, number
from tinyunet_deploy.artifacts.precision import PRECISIONS, precision_facts
from tinyunet_deploy.speed.benchmark_result import Ceiling, Roofline

_CEILING_COLORS = {
    **{row.number_type: row.color for row in map(precision_facts, PRECISIONS)},
    "tf32": precision_facts("fp32").color,
}
"""Kind of a ceiling -> colour; grey for any other kind."""


class _Point(NamedTuple):
    """One measurement under the roof."""

    series: Series
    flop_per_byte: float
    gflop_per_s: float


def machine_limit(results: Results) -> Section:
    """Return the section on the first benchmark that measured ceilings."""
    title = "The limit of this machine"
    benchmark = next(
        (run for run in results.benchmarks.values()
         if run.ceilings and any(measurement.roofline for measurement in run.measurements)), None,
    )  # fmt: skip
    if benchmark is None:
        return no_benchmark(title, "Measured ceilings against the network's own needs.")
    section = Section(title)
    points, rows = [], []
    for measurement in benchmark.measurements:
        roof = measurement.roofline
        if roof is not None:
            series, size = series_of(measurement), measurement.batch_size
            points.append(_Point(series, _intensity(roof, size), roof.gflop_per_s))
            rows.append(
                (series.label, str(size), f"{roof.gflop_per_s:,.0f}",
                 number(roof.bound_ms), roof.bound_by, f"{roof.latency_percent:.0f} %",
                 f"{roof.throughput_percent:.0f} %")
            )  # fmt: skip
    ceilings = benchmark.ceilings
    section.draw(lambda width: _figure(points, ceilings, width))
    section.lead = [
        "Rates reached, below what this machine reached in the same run on nothing but matrix "
        "products and copies."
    ]
    head = ("", "batch", "GFLOP/s", "least ms", "bound by", "latency", "throughput")
    section.tables = [
        Table(head, rows),
        Table(
            ("ceiling", "kind", "value", "what was run"),
            [(c.name, c.kind, f"{c.value:,.4g} {c.unit}", c.what) for c in benchmark.ceilings],
            numbers=4,
        ),
    ]
    section.notes = [
        "Least time of a batch = max(sum(FLOP / rate), least bytes / bandwidth) (Williams, "
        "Waterman, Patterson 2009); percentages are that over the measured time."
    ]
    section.commands = [benchmark.command]
    return section


def _intensity(roof: Roofline, batch_size: int) -> float:
    """Return the arithmetic intensity: FLOP per byte that must be moved."""
    return sum(roof.flop_per_image.values()) * batch_size / roof.minimum_bytes


def _figure(points: Sequence[_Point], ceilings: Sequence[Ceiling], width: float) -> str:
    """Draw the reached rates over arithmetic intensity, below the ceilings of the same run."""
    with figure_style():
        figure, axes = new_figure(3.4, width)
        rates = [ceiling for ceiling in ceilings if ceiling.unit == "GFLOP/s"]
        bandwidth = max((c.value for c in ceilings if c.kind == "memory"), default=None)
        top = max([c.value for c in rates] + [p.gflop_per_s for p in points], default=1.0)
        intensities = [point.flop_per_byte for point in points]
        low, high = min(intensities) / 40, max(intensities) * 8
        if bandwidth:
            low = min(low, 0.2 * top / bandwidth)
            _draw_memory(axes, low, bandwidth, top)
        for ceiling in rates:
            _draw_ceiling(axes, ceiling, ceiling.value / bandwidth if bandwidth else low, high)
        for series in dict.fromkeys(point.series for point in points):
            own = [point for point in points if point.series == series]
            axes.plot(
                [p.flop_per_byte for p in own], [p.gflop_per_s for p in own], zorder=3,
                marker=series.marker, color=series.color, linewidth=0.7,
                markeredgecolor=COLORS["paper"], label=series.label,
            )  # fmt: skip
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlim(low, high)
        axes.set_ylim(min(point.gflop_per_s for point in points) / 3, top * 2)
        _name_ceilings(axes, rates)
        plain_log(axes.yaxis)
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:,g}")
        axes.set_xlabel("FLOP per byte that must be moved")
        axes.set_ylabel("GFLOP/s")
        draw_legend(figure, axes)
        return svg_of(figure, "roofline", "Roofline")


def _draw_memory(axes: Axes, low: float, bandwidth: float, top: float) -> None:
    axes.plot([low, top / bandwidth], [low * bandwidth, top], color=COLORS["muted"], linewidth=1)
    axes.annotate(
        f"memory {bandwidth:.3g} GB/s", (low * 1.2, low * 1.2 * bandwidth),
        xytext=(6, -3), textcoords="offset points", color=COLORS["muted"], fontsize=8,
        va="top",
    )  # fmt: skip


def _draw_ceiling(axes: Axes, ceiling: Ceiling, start: float, high: float) -> None:
    color = COLORS[_CEILING_COLORS.get(ceiling.kind, "muted")]
    axes.plot(
        [start, high], [ceiling.value] * 2, color=color, linewidth=1, linestyle=(0, (6, 2))
    )  # fmt: skip


def _name_ceilings(axes: Axes, ceilings: Sequence[Ceiling]) -> None:
    """Write the names of the ceilings at the right of the figure, and separate close ones."""
    bottom, top = axes.get_ylim()
    heights = [math.log(ceiling.value / bottom) / math.log(top / bottom) for ceiling in ceilings]
    for ceiling, height in zip(ceilings, spread(heights, 0.07), strict=True):
        runner = ceiling.name.removeprefix(f"{ceiling.kind} ")
        axes.annotate(
            f"{ceiling.kind} {backend_label(runner)}  {ceiling.value:,.0f}", (1, height),
            xycoords="axes fraction", xytext=(6, 0), textcoords="offset points", va="center",
            fontsize=8, color=COLORS[_CEILING_COLORS.get(ceiling.kind, "muted")],
            annotation_clip=False,
        )  # fmt: skip


def spread(places: Sequence[float], gap: float) -> list[float]:
    """Return the places in their order, moved as little as possible, at least ``gap`` apart.

    Args:
        places: 0 to 1; they are moved down from the highest.
    """
    moved = [0.0] * len(places)
    limit = math.inf
    for index in sorted(range(len(places)), key=lambda i: -places[i]):
        moved[index] = min(places[index], limit)
        limit = moved[index] - gap
    return moved
