"""Section on batch size: throughput and latency as batches grow."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.report.content import Section, Table, no_benchmark
from benchmarks.report.drawing import (
    COLORS,
    Series,
    draw_legend,
    figure_style,
    new_figure,
    svg_of,
)
from benchmarks.report.joins import p50, series_of
from benchmarks.report.results import Results
from benchmarks.report.wording import number
from tinyunet_deploy.speed.benchmark_result import Measurement


def batch_sizes(results: Results) -> Section:
    """Return the section on the throughput windows of `tinyunet benchmark`."""
    title = "Batch size"
    groups: dict[Series, list[Measurement]] = {}
    for measurement in results.measurements:
        groups.setdefault(series_of(measurement), []).append(measurement)
    if not groups:
        return no_benchmark(title, "Throughput and latency as batches grow.")
    section = Section(title)
    curves, rows = [], []
    for series, group in groups.items():
        group.sort(key=lambda measurement: measurement.batch_size)
        sizes = [measurement.batch_size for measurement in group]
        curves.append((series, sizes, [row.throughput.images_per_s for row in group]))
        for measurement in group:
            windows = measurement.throughput.window_images_per_s
            rows.append(
                (series.label, str(measurement.batch_size),
                 f"{measurement.throughput.images_per_s:.2f}",
                 f"{min(windows):.2f} to {max(windows):.2f}" if windows else "-",
                 number(p50(measurement)))
            )  # fmt: skip
    section.draw(lambda width: _figure(curves, width))
    section.lead = ["A backend that always has its next batch ready in memory."]
    section.tables = [Table(("", "batch", "images/s", "windows", "ms per call, p50"), rows)]
    section.commands = [benchmark.command for benchmark in results.benchmarks.values()]
    return section


def _figure(curves: Sequence[tuple[Series, Sequence[int], Sequence[float]]], width: float) -> str:
    """Draw images per second over the batch size."""
    with figure_style():
        figure, axes = new_figure(2.9, width)
        sizes = sorted({size for _, batches, _ in curves for size in batches})
        for series, batches, rates in curves:
            axes.plot(
                batches, rates, color=series.color, linestyle=series.dashes, marker=series.marker,
                markeredgecolor=COLORS["paper"], label=series.label,
            )  # fmt: skip
        axes.set_xscale("log", base=2)
        axes.set_xticks(sizes, list(map(str, sizes)))
        axes.minorticks_off()
        axes.set_ylim(bottom=0)
        axes.margins(x=0.06)
        axes.set_xlabel("images per call")
        axes.set_ylabel("images/s")
        draw_legend(figure, axes)
        return svg_of(figure, "batches", "Throughput by batch size")
