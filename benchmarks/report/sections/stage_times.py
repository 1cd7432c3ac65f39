"""Section on the time of each stage from file to mask and report."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.report.content import Section, Table, no_benchmark
from benchmarks.report.drawing import COLORS, WIDTH, draw_legend, figure_style, svg_of
from benchmarks.report.results import Results
from benchmarks.report.wording import number, stem
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
    section.svg = _figure(_panels(tables))
    worst = max(abs(table.unaccounted_share) for table in tables)
    section.lead = [
        "An image's own way from file to mask and line of the report. In the pipeline images "
        "overlap, so that way is longer than the time between two images. The number behind a "
        "backend is the batch. Bars leave out the waiting in queues, which is in the table.",
        f"At most {100 * worst:.1f} % is unaccounted for.",
    ]
    rows = [(stage, *(_ms_of(table, stage) for table in tables)) for stage in _stages_of(tables)]
    rows.append(("sum", *(number(table.total_ms_per_image) for table in tables)))
    rows.append(("images/s", *(f"{table.images_per_s:.2f}" for table in tables)))
    rows.append(("of the raw backend", *(f"{100 * table.share_of_raw:.0f} %" for table in tables)))
    columns = (
        f"{stem(table.model)} · {table.backend} · {table.batch_size} {table.mode}"
        for table in tables
    )
    section.tables = [Table(("ms per image", *columns), rows)]
    section.commands = [
        benchmark.command for benchmark in results.benchmarks.values() if benchmark.stages
    ]
    return section


def _panels(tables: Sequence[StageTable]) -> list[_Panel]:
    panels: list[_Panel] = []
    for mode, title in (("serial", "One after the other"), ("pipelined", "Overlapped")):
        labelled = [
            (f"{stem(table.model)}\n{table.backend} · {table.batch_size}", table)
            for table in tables
            if table.mode == mode
        ]
        if labelled:
            panels.append((title, labelled))
    return panels


def _stages_of(tables: Sequence[StageTable]) -> list[str]:
    """Return the stages of all tables, each once, in the order of their first appearance."""
    return list(dict.fromkeys(row.stage for table in tables for row in table.rows))


def _ms_of(table: StageTable, stage: str) -> str:
    row = next((row for row in table.rows if row.stage == stage), None)
    return "-" if row is None else number(row.ms_per_image)


def _figure(panels: Sequence[_Panel]) -> str:
    """Draw stacked bars of the stages of an image's time; each panel has its own scale."""
    with figure_style():
        heights = [len(labelled) for _, labelled in panels]
        inches = 1.25 + 0.75 * len(panels) + 0.42 * sum(heights)
        figure = Figure(figsize=(WIDTH, inches))
        rows = figure.subplots(len(panels), 1, squeeze=False, height_ratios=heights)[:, 0]
        stages = _stages_of([table for _, labelled in panels for _, table in labelled])
        for axes, (title, labelled) in zip(rows, panels, strict=True):
            _draw_bars(axes, stages, labelled)
            axes.set_title(title)
        rows[-1].set_xlabel("ms per image")
        draw_legend(figure, rows[0], columns=5)
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
