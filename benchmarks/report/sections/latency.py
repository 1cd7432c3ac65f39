"""Section on latency: the distribution of the times of all calls."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

import numpy as np

from benchmarks.report.content import Section, Table, no_benchmark
from benchmarks.report.drawing import (
    Series,
    draw_legend,
    figure_style,
    new_figure,
    plain_log,
    svg_of,
)
from benchmarks.report.joins import one_by_one, p50, series_of
from benchmarks.report.results import Results
from benchmarks.report.wording import number
from tinyunet_deploy.speed.benchmark_result import Measurement

_HEAD = (
    "ms per call", "batch", "n", "p50", "p90", "p95", "p99", "p99.9", "max", "device",
    "file to verdict", "first", "load", "answers",
)  # fmt: skip


def latency(results: Results) -> Section:
    """Return the section on the call times of `tinyunet benchmark`."""
    title = "Latency"
    alone = one_by_one(results)
    if not alone:
        return no_benchmark(title, "Every call's time, none left out.")
    section = Section(title)
    samples = [(series_of(measurement), measurement.call.samples_ms) for measurement in alone]
    section.draw(lambda width: _figure(samples, width))
    section.lead = ["One image a call, every sample drawn."]
    rows = [
        _row(measurement)
        for measurement in sorted(results.measurements, key=lambda m: (m.batch_size, p50(m)))
    ]
    larger = [row for row in rows if row[1] != "1"]
    section.tables = [Table(_HEAD, [row for row in rows if row[1] == "1"])]
    section.tables += [Table(_HEAD, larger)] if larger else []
    first = next(iter(results.benchmarks.values()))
    section.notes = ["Device and file to verdict are medians."]
    section.notes += [first.timing_boundary, f"Percentiles: {first.percentile_formula}."]
    section.commands = [benchmark.command for benchmark in results.benchmarks.values()]
    return section


def _row(measurement: Measurement) -> tuple[str, ...]:
    call = measurement.call
    percentiles = ("p50", "p90", "p95", "p99", "p99_9")
    return (
        series_of(measurement).label,
        str(measurement.batch_size),
        str(len(call.samples_ms)),
        *(number(call.percentile_ms(name)) for name in percentiles),
        number(max(call.samples_ms)),
        number(statistics.median(measurement.device_time.samples_ms)),
        number(statistics.median(measurement.end_to_end.samples_ms)),
        number(measurement.first_inference_ms),
        number(measurement.load_ms),
        measurement.check.outcome,
    )


def _figure(rows: Sequence[tuple[Series, Sequence[float]]], width: float) -> str:
    """Draw the share of calls that finished within a time."""
    with figure_style():
        figure, axes = new_figure(3.1, width)
        for series, samples in rows:
            times = np.sort(np.asarray(samples))
            share = np.arange(1, len(times) + 1) / len(times)
            axes.step(
                [times[0], *times], [0, *share], where="post",
                color=series.color, linestyle=series.dashes, label=series.label,
            )  # fmt: skip
        axes.set_xscale("log")
        plain_log(axes.xaxis)
        axes.set_ylim(0, 1.02)
        axes.set_yticks([0, 0.25, 0.5, 0.75, 0.9, 1], ["0", "25 %", "50 %", "75 %", "90 %", ""])
        axes.set_xlabel("ms per call of one image")
        axes.set_ylabel("calls done")
        draw_legend(figure, axes)
        return svg_of(figure, "ecdf", "Distribution of latency")
