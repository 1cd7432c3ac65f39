"""Section on the time of each stage from file to mask and report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.report.content import Section, Table, no_benchmark
from benchmarks.report.drawing import COLORS, NARROW, draw_legend, figure_style, svg_of
from benchmarks.report.joins import precisions_of
from benchmarks.report.results import Results
from benchmarks.report.wording import backend_label, model_label, number
from tinyunet_deploy.inspection.trace import QUEUEING, UNACCOUNTED
from tinyunet_deploy.speed.benchmark_result import StageTable

_Panel = tuple[str, Sequence[tuple[str, StageTable]]]
"""Title -> labelled tables, drawn on one scale."""


def stage_times(results: Results) -> Section:
    """Return the section on the stage tables of `tinyunet benchmark`."""
    title = "Where the time goes"
    tables = [table for benchmark in results.benchmarks.values() for table in benchmark.stages]
    if not tables:
        return no_benchmark(title, "From file to mask and report, stage by stage.")
    section = Section(title)
    precisions = precisions_of(results)
    panels = _panels(tables, precisions)
    section.draw(lambda width: _figure(panels, width))
    worst = max(abs(table.unaccounted_share) for table in tables)
    section.lead = [
        "The time that one image takes from its file to its mask and its line in the report. In "
        "the pipeline, images overlap, so this is longer than the time between two images. The "
        "number behind a backend is the batch size, if above 1. The bars leave out the time spent "
        "waiting in queues, which is in the table.",
        f"At most {100 * worst:.1f} % of the time is unaccounted for.",
    ]
    stages = _stages_of(tables)
    rows = [
        (f"{_label(table, precisions)}, {table.mode}",
         *(_ms_of(table, stage) for stage in stages),
         number(table.total_ms_per_image),
         f"{table.images_per_s:.2f}",
         f"{100 * table.share_of_raw:.0f} %")
        for table in tables
    ]  # fmt: skip
    head = ("ms per image", *stages, "sum", "images/s", "of the raw backend")
    section.tables = [Table(head, rows)]
    section.commands = [
        benchmark.command for benchmark in results.benchmarks.values() if benchmark.stages
    ]
    return section


def _label(table: StageTable, precisions: Mapping[str, str]) -> str:
    model = model_label(table.model, precisions.get(table.model))
    label = f"{model} · {backend_label(table.backend)}"
    return label + (f" · {table.batch_size}" if table.batch_size > 1 else "")


def _panels(tables: Sequence[StageTable], precisions: Mapping[str, str]) -> list[_Panel]:
    panels: list[_Panel] = []
    for mode, title in (("serial", "One after the other"), ("pipelined", "Overlapped")):
        labelled = [(_label(table, precisions), table) for table in tables if table.mode == mode]
        if labelled:
            panels.append((title, labelled))
    return panels


def _stages_of(tables: Sequence[StageTable]) -> list[str]:
    """Return the stages of all tables, each once, in the order of their first appearance."""
    return list(dict.fromkeys(row.stage for table in tables for row in table.rows))


def _ms_of(table: StageTable, stage: str) -> str:
    row = next((row for row in table.rows if row.stage == stage), None)
    return "-" if row is None else number(row.ms_per_image)


def _figure(panels: Sequence[_Panel], width: float) -> str:
    """Draw stacked bars of the stages of an image's time; each panel has its own scale."""
    with figure_style():
        heights = [len(labelled) for _, labelled in panels]
        if width > NARROW:  # side by side
            figure = Figure(figsize=(width, 1.25 + 0.3 * max(heights)))
            rows = figure.subplots(1, len(panels), squeeze=False)[0]
        else:
            inches = 1.25 + 0.75 * len(panels) + 0.3 * sum(heights)
            figure = Figure(figsize=(width, inches))
            rows = figure.subplots(len(panels), 1, squeeze=False, height_ratios=heights)[:, 0]
        stages = _stages_of([table for _, labelled in panels for _, table in labelled])
        for axes, (title, labelled) in zip(rows, panels, strict=True):
            _draw_bars(axes, stages, labelled)
            axes.set_title(title)
        for axes in rows if width > NARROW else rows[-1:]:
            axes.set_xlabel("ms per image")
        draw_legend(figure, rows[0], column_inches=1.1)
        return svg_of(figure, "stages", "Where the time goes")


def _draw_bars(
    axes: Axes, stages: Sequence[str], labelled: Sequence[tuple[str, StageTable]]
) -> None:
    """Draw one bar per table; unaccounted time is hatched, waiting in queues is left out."""
    times = [{row.stage: row.ms_per_image for row in table.rows} for _, table in labelled]
    lefts = [0.0] * len(labelled)
    for index, stage in enumerate(stages):
        if stage == QUEUEING:
            continue
        widths = [time.get(stage, 0.0) for time in times]
        hatched = stage == UNACCOUNTED
        axes.barh(
            range(len(labelled)), widths, left=lefts, height=0.62, label=stage,
            color=COLORS["paper"] if hatched else COLORS[f"stage-{index % 9}"],
            edgecolor=COLORS["gate"] if hatched else COLORS["paper"],
            hatch="/////" if hatched else None, linewidth=0.5,
        )  # fmt: skip
        lefts = [left + width for left, width in zip(lefts, widths, strict=True)]
    axes.set_yticks(range(len(labelled)), [label for label, _ in labelled])
    axes.tick_params(axis="y", length=0, labelcolor=COLORS["ink"])
    axes.invert_yaxis()
    axes.spines["left"].set_visible(False)
    axes.grid(visible=False, axis="y")
