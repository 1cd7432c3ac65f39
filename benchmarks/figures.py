"""The report's figures: matplotlib SVG, in the colours of the page.

Every colour is a CSS variable of the template, so one drawing is readable in light and in dark;
text stays text, in the page's font. The same data give the same bytes.
"""

from __future__ import annotations

import io
import math
import re
import zlib
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import matplotlib as mpl
import matplotlib.ticker
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tinyunet_deploy.inspection.trace import QUEUEING, UNACCOUNTED
from tinyunet_deploy.speed.benchmark_result import Ceiling, StageTable

_VARIABLES: Final = (
    "ink", "muted", "rule", "paper", "gate", "pass", "int8", "fp16", "fp32", "peer",
    *(f"stage-{index}" for index in range(9)),
)  # fmt: skip
_COLORS: Final = {name: f"#0{index:02x}f0a" for index, name in enumerate(_VARIABLES, start=1)}
"""CSS variable -> the colour that stands for it while matplotlib draws."""
MARKERS: Final = {
    "openvino": "o",
    "onnxruntime": "s",
    "torch": "^",
    "tensorrt": "D",
    "onnxruntime-tensorrt": "P",
}
"""Backend -> marker; a peer has a thin diamond."""
_DASHES: Final = {"openvino": "-", "onnxruntime": "--", "torch": ":", "tensorrt": "-"}
_WIDTH: Final = 5.0
"""Inches: drawn so narrow that its 9 points are readable on a telephone."""

_STYLE: Final = {
    "svg.fonttype": "none",
    "svg.hashsalt": "tinyunet",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": _COLORS["muted"],
    "axes.labelcolor": _COLORS["muted"],
    "axes.linewidth": 0.6,
    "axes.titlesize": 9,
    "axes.titlecolor": _COLORS["ink"],
    "axes.titlelocation": "left",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": _COLORS["rule"],
    "grid.linewidth": 0.5,
    "xtick.color": _COLORS["muted"],
    "ytick.color": _COLORS["muted"],
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.minor.width": 0.4,
    "ytick.minor.width": 0.4,
    "text.color": _COLORS["ink"],
    "lines.linewidth": 1.4,
    "lines.markersize": 6,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "legend.labelcolor": _COLORS["ink"],
    "figure.constrained_layout.use": True,
}


class Series(NamedTuple):
    """What one line or point is of."""

    label: str
    precision: str
    backend: str
    """A backend's name; anything else is a peer."""

    @property
    def color(self) -> str:
        """By precision; peers are grey."""
        known = self.backend in MARKERS and self.precision in _COLORS
        return _COLORS[self.precision if known else "peer"]

    @property
    def marker(self) -> str:
        """By backend."""
        return MARKERS.get(self.backend, "d")

    @property
    def dashes(self) -> str:
        """By backend."""
        return _DASHES.get(self.backend, "-.")


class Point(NamedTuple):
    """One configuration in the plane of accuracy and latency."""

    series: Series
    ms: float
    iou: float
    passes: bool
    """Whether its answers keep every limit; drawn hollow if not."""


def pareto(points: Sequence[Point], least_iou: float | None, most_ms: float | None) -> str:
    """Accuracy over latency; the frontier is what no other point that passes beats in both."""
    with mpl.rc_context(_STYLE):
        figure, axes = _figure(3.1)
        best, frontier = -math.inf, []
        for point in sorted(points, key=lambda p: (p.ms, -p.iou)):
            if point.passes and point.iou > best:
                best = point.iou
                frontier.append(point)
        if len(frontier) > 1:
            axes.step(
                [p.ms for p in frontier], [p.iou for p in frontier], where="post",
                color=_COLORS["muted"], linewidth=0.9, zorder=1,
            )  # fmt: skip
        for point in points:
            _dot(axes, point.series, point.ms, point.iou, hollow=not point.passes)
        axes.set_xscale("log")
        axes.margins(x=0.12, y=0.2)
        if least_iou is not None:
            axes.axhline(least_iou, color=_COLORS["gate"], linewidth=1, linestyle=(0, (4, 2)))
            _gate_label(axes, f"least IoU {least_iou:.3f}", y=least_iou)
        if most_ms is not None:
            axes.axvline(most_ms, color=_COLORS["gate"], linewidth=1, linestyle=(0, (4, 2)))
            axes.annotate(
                f"deadline {most_ms:g} ms", (most_ms, 0), xycoords=("data", "axes fraction"),
                xytext=(-4, 4), textcoords="offset points", ha="right", fontsize=8.5,
                color=_COLORS["gate"],
            )  # fmt: skip
        _plain_log(axes.xaxis)
        axes.set_xlabel("ms per image, median")
        axes.set_ylabel("iou_defective")
        _legend(figure, axes)
        return _svg(figure, "pareto", "Accuracy against latency")


def ratios(rows: Sequence[tuple[Series, float, float, float]], floor: float) -> str:
    """Times as fast as the reference, with intervals; the noise floor is shaded.

    Args:
        rows: series, value, low, high; drawn from the top.
    """
    with mpl.rc_context(_STYLE):
        figure, axes = _figure(0.75 + 0.27 * len(rows))
        axes.axvspan(1 / floor, floor, color=_COLORS["rule"], linewidth=0)
        axes.axvline(1, color=_COLORS["muted"], linewidth=0.8)
        for place, (series, value, low, high) in enumerate(rows):
            axes.plot([low, high], [place, place], color=series.color, linewidth=2.2)
            _dot(axes, series, value, place, named=False)
        axes.set_yticks(range(len(rows)), [series.label for series, *_ in rows])
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.tick_params(axis="y", length=0, labelcolor=_COLORS["ink"])
        axes.spines["left"].set_visible(False)
        axes.grid(visible=False, axis="y")
        axes.set_xscale("log")
        _plain_log(axes.xaxis)
        axes.set_xlabel("times as fast as the reference")
        return _svg(figure, "ratios", "Speed against the peers")


def ecdf(rows: Sequence[tuple[Series, Sequence[float]]]) -> str:
    """Share of calls that were done within a time."""
    with mpl.rc_context(_STYLE):
        figure, axes = _figure(3.1)
        for series, samples in rows:
            times = np.sort(np.asarray(samples))
            share = np.arange(1, len(times) + 1) / len(times)
            axes.step(
                [times[0], *times], [0, *share], where="post",
                color=series.color, linestyle=series.dashes, label=series.label,
            )  # fmt: skip
        axes.set_xscale("log")
        _plain_log(axes.xaxis)
        axes.set_ylim(0, 1.02)
        axes.set_yticks([0, 0.25, 0.5, 0.75, 0.9, 1], ["0", "25 %", "50 %", "75 %", "90 %", ""])
        axes.set_xlabel("ms per call of one image")
        axes.set_ylabel("calls done")
        _legend(figure, axes)
        return _svg(figure, "ecdf", "Distribution of latency")


def batch_sweep(rows: Sequence[tuple[Series, Sequence[int], Sequence[float]]]) -> str:
    """Images per second over the batch size."""
    with mpl.rc_context(_STYLE):
        figure, axes = _figure(2.9)
        sizes = sorted({size for _, batches, _ in rows for size in batches})
        for series, batches, rates in rows:
            axes.plot(
                batches, rates, color=series.color, linestyle=series.dashes, marker=series.marker,
                markeredgecolor=_COLORS["paper"], label=series.label,
            )  # fmt: skip
        axes.set_xscale("log", base=2)
        axes.set_xticks(sizes, list(map(str, sizes)))
        axes.minorticks_off()
        axes.set_ylim(bottom=0)
        axes.margins(x=0.06)
        axes.set_xlabel("images per call")
        axes.set_ylabel("images/s")
        _legend(figure, axes)
        return _svg(figure, "batches", "Throughput by batch size")


def stages(panels: Sequence[tuple[str, Sequence[tuple[str, StageTable]]]]) -> str:
    """Stacked bars of where an image's time goes; ``unaccounted`` is hatched.

    Args:
        panels: title -> labelled tables, each panel with a scale of its own.
    """
    with mpl.rc_context(_STYLE):
        count = sum(len(tables) for _, tables in panels)
        figure = Figure(figsize=(_WIDTH, 1.25 + 0.75 * len(panels) + 0.42 * count))
        heights = [len(tables) for _, tables in panels]
        rows = figure.subplots(len(panels), 1, squeeze=False, height_ratios=heights)[:, 0]
        everything = [table for _, tables in panels for _, table in tables]
        names = list(dict.fromkeys(row.stage for table in everything for row in table.rows))
        for axes, (title, tables) in zip(rows, panels, strict=True):
            _stage_bars(axes, names, tables)
            axes.set_title(title)
        rows[-1].set_xlabel("ms per image")
        _legend(figure, rows[0], columns=5)
        return _svg(figure, "stages", "Where the time goes")


def _stage_bars(axes: Axes, names: Sequence[str], tables: Sequence[tuple[str, StageTable]]) -> None:
    """One bar a table, its stages in their order; waiting in a queue is no work and left out."""
    times = [{row.stage: row.ms_per_image for row in table.rows} for _, table in tables]
    lefts = [0.0] * len(tables)
    for index, stage in enumerate(names):
        if stage == QUEUEING:
            continue
        widths = [time.get(stage, 0.0) for time in times]
        open_ = stage == UNACCOUNTED
        axes.barh(
            range(len(tables)), widths, left=lefts, height=0.62, label=stage,
            color=_COLORS["paper"] if open_ else _COLORS[f"stage-{index % 9}"],
            edgecolor=_COLORS["gate"] if open_ else _COLORS["paper"],
            hatch="/////" if open_ else None, linewidth=0.5,
        )  # fmt: skip
        lefts = [left + width for left, width in zip(lefts, widths, strict=True)]
    axes.set_yticks(range(len(tables)), [label for label, _ in tables])
    axes.tick_params(axis="y", length=0, labelcolor=_COLORS["ink"])
    axes.invert_yaxis()
    axes.spines["left"].set_visible(False)
    axes.grid(visible=False, axis="y")


class Measured(NamedTuple):
    """One measurement under the roof."""

    series: Series
    flop_per_byte: float
    gflop_per_s: float


def roofline(points: Sequence[Measured], ceilings: Sequence[Ceiling]) -> str:
    """Reached rate over arithmetic intensity, below the ceilings of the same run."""
    with mpl.rc_context(_STYLE):
        figure, axes = _figure(3.2)
        rates = [c for c in ceilings if c.unit == "GFLOP/s"]
        bandwidth = max((c.value for c in ceilings if c.kind == "memory"), default=None)
        top = max([c.value for c in rates] + [p.gflop_per_s for p in points], default=1.0)
        places = [p.flop_per_byte for p in points]
        low, high = min(places) / 40, max(places) * 8
        if bandwidth:
            low = min(low, 0.2 * top / bandwidth)
            axes.plot(
                [low, top / bandwidth], [low * bandwidth, top], color=_COLORS["muted"], linewidth=1
            )
            axes.annotate(
                f"memory {bandwidth:.3g} GB/s", (low * 1.2, low * 1.2 * bandwidth),
                xytext=(6, -3), textcoords="offset points", color=_COLORS["muted"], fontsize=8,
                va="top",
            )  # fmt: skip
        for ceiling in rates:
            start = ceiling.value / bandwidth if bandwidth else low
            color = {"float32": "fp32", "tf32": "fp32", "float16": "fp16"}.get(ceiling.kind, "int8")
            axes.plot(
                [start, high], [ceiling.value] * 2, color=_COLORS[color], linewidth=1,
                linestyle=(0, (6, 2)),
            )  # fmt: skip
            axes.annotate(
                f"{ceiling.name}  {ceiling.value:,.0f}", (high, ceiling.value), xytext=(0, 3),
                textcoords="offset points", ha="right", fontsize=8, color=_COLORS[color],
            )  # fmt: skip
        for series in dict.fromkeys(point.series for point in points):
            own = [point for point in points if point.series == series]
            axes.plot(
                [p.flop_per_byte for p in own], [p.gflop_per_s for p in own], zorder=3,
                marker=series.marker, color=series.color, linewidth=0.7,
                markeredgecolor=_COLORS["paper"], label=series.label,
            )  # fmt: skip
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlim(low, high)
        axes.set_ylim(min(p.gflop_per_s for p in points) / 3, top * 2)
        _plain_log(axes.yaxis)
        axes.set_xlabel("FLOP per byte that must be moved")
        axes.set_ylabel("GFLOP/s")
        _legend(figure, axes)
        return _svg(figure, "roofline", "Roofline")


def line_speed(
    curve: Sequence[dict[str, Any]], allowed: float, shown: float | None, now: float | None
) -> str:
    """Share of parts without a verdict over the belt's speed, seen and at most.

    Args:
        curve: points of ``tinyunet line-sim``.
        allowed: the miss rate that is.
        shown: fastest speed at which it is kept with confidence, parts per minute.
        now: the speed that was tried.
    """
    with mpl.rc_context(_STYLE):
        figure, axes = _figure(3.0)
        speeds = [point["parts_per_minute"] for point in curve]
        least = 0.3 / max(point["parts"] for point in curve)
        for key, dashes, label in (
            ("miss_rate", "-", "seen"),
            ("miss_rate_bound", ":", "at most, 95 % confidence"),
        ):
            axes.plot(
                speeds, [max(point[key], least) for point in curve], color=_COLORS["ink"],
                linestyle=dashes, label=label,
            )  # fmt: skip
        if allowed > 0:
            axes.axhline(allowed, color=_COLORS["gate"], linewidth=1, linestyle=(0, (4, 2)))
            _gate_label(axes, f"allowed {100 * allowed:.3g} %", y=allowed)
        if shown is not None:
            axes.axvline(shown, color=_COLORS["pass"], linewidth=1)
            axes.annotate(
                f"safe {shown:,.0f}/min", (shown, 1), xytext=(-4, -2), fontsize=8.5,
                xycoords=("data", "axes fraction"), textcoords="offset points", ha="right",
                va="top", color=_COLORS["pass"],
            )  # fmt: skip
        if now is not None:
            axes.plot(
                [now], [least], marker="^", color=_COLORS["muted"], label="tried", linestyle="",
                clip_on=False,
            )  # fmt: skip
        axes.set_yscale("log")
        axes.set_ylim(least, 1.5)
        axes.set_yticks([t for t in (1e-4, 1e-3, 1e-2, 0.1, 1.0) if t >= least])
        axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:g} %")
        axes.minorticks_off()
        axes.set_xlim(left=0)
        axes.set_xlabel("parts per minute")
        axes.set_ylabel("parts without a verdict")
        _legend(figure, axes)
        return _svg(figure, "line", "Line speed")


def trade_off(
    curve: Sequence[dict[str, Any]],
    chosen: dict[str, Any],
    before: dict[str, Any],
    parts: tuple[int, int],
) -> str:
    """The fewest overkills for each number of escapes, by threshold and min_area.

    Args:
        curve: points of ``tinyunet tune``, in ascending escapes.
        chosen, before: such points.
        parts: how many are defective and how many are good.
    """
    with mpl.rc_context(_STYLE):
        figure, axes = _figure(2.6)
        axes.step(
            [point["escapes"] for point in curve], [point["overkills"] for point in curve],
            where="post", color=_COLORS["ink"], marker=".",
        )  # fmt: skip
        for point, label, marker, color, size in (
            (before, "before", "s", "muted", 11),
            (chosen, "chosen", "o", "pass", 7),
        ):
            axes.plot(
                [point["escapes"]], [point["overkills"]], marker=marker, linestyle="",
                markersize=size, markerfacecolor="none", markeredgewidth=1.5, clip_on=False,
                markeredgecolor=_COLORS[color], label=label,
            )  # fmt: skip
        axes.set_xlim(0, max(1, *(point["escapes"] for point in (*curve, before, chosen))))
        axes.set_ylim(0, max(1, *(point["overkills"] for point in (*curve, before, chosen))))
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(mpl.ticker.MaxNLocator(integer=True))
        axes.set_xlabel(f"escapes of {parts[0]}")
        axes.set_ylabel(f"overkills of {parts[1]}")
        _legend(figure, axes)
        return _svg(figure, "trade-off", "Escapes against overkills")


# --- drawing ----------------------------------------------------------------------------------


def _figure(height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(_WIDTH, height))
    return figure, figure.add_subplot()


def _dot(
    axes: Axes, series: Series, x: float, y: float, *, named: bool = True, hollow: bool = False
) -> None:
    axes.plot(
        [x], [y], marker=series.marker, linestyle="", zorder=3,
        color=_COLORS["paper"] if hollow else series.color,
        markeredgecolor=series.color if hollow else _COLORS["paper"],
        label=series.label if named else None,
    )  # fmt: skip


def _gate_label(axes: Axes, text: str, y: float) -> None:
    axes.annotate(
        text, (0, y), xycoords=("axes fraction", "data"), xytext=(4, 3),
        textcoords="offset points", fontsize=8.5, color=_COLORS["gate"],
    )  # fmt: skip


def _plain_log(axis: Any) -> None:
    """10, 20, 50 instead of powers."""
    axis.set_major_locator(mpl.ticker.LogLocator(subs=(1.0, 2.0, 5.0), numticks=8))
    axis.set_minor_locator(mpl.ticker.NullLocator())
    axis.set_major_formatter(lambda value, _: f"{value:,g}")


def _legend(figure: Figure, axes: Axes, columns: int = 2) -> None:
    handles, labels = axes.get_legend_handles_labels()
    if labels:
        figure.legend(
            handles, labels, loc="outside upper left", ncols=columns, handlelength=2.2,
            columnspacing=1.2,
        )  # fmt: skip


def _svg(figure: Figure, name: str, title: str) -> str:
    """Inline SVG: no size but a viewBox, ids of its own, colours and font of the page."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    name = f"{name}-{zlib.crc32(text.encode()):08x}"  # a page may hold two of a kind
    head, _, rest = text.partition(">")
    box = re.search(r'viewBox="[^"]+"', head)
    assert box is not None
    head = f'<svg {box[0]} role="img" aria-label="{title}" xmlns="http://www.w3.org/2000/svg" '
    head += 'xmlns:xlink="http://www.w3.org/1999/xlink"'
    rest = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', rest)
    rest = re.sub(r"url\(#([^)]+)\)", rf"url(#{name}-\1)", rest)
    rest = re.sub(r'href="#([^"]+)"', rf'href="#{name}-\1"', rest)
    rest = re.sub(r"font-family: [^;\"]+", "font-family: var(--sans)", rest)
    rest = re.sub(r'<style type="text/css">.*?</style>', "", rest)  # would style the whole page
    for variable, color in _COLORS.items():
        rest = rest.replace(color, f"var(--{variable})")
    return f"{head}>{rest}".strip()
