"""Section on the peers: speed relative to the reference, with intervals and the noise floor."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.matrix_definition import AGAIN
from benchmarks.report.content import Section, Table
from benchmarks.report.drawing import (
    COLORS,
    MARKERS,
    NARROW,
    Series,
    draw_dot,
    figure_style,
    new_figure,
    plain_log,
    svg_of,
)
from benchmarks.report.results import Results
from benchmarks.report.wording import backend_label, cell_label, model_label
from tinyunet_deploy.speed.ratio import Ratio


def peer_ratios(results: Results) -> Section:
    """Return the section on the first matrix: every cell against the reference cell."""
    section = Section("Against the peers")
    if not results.matrices:
        section.absent = True
        section.lead = ["Ratios against what a user would run instead, in one run."]
        section.commands = ["python -m benchmarks matrix -o runs/matrix"]
        return section
    matrix = next(iter(results.matrices.values()))
    floor = matrix["noise"]["floor"]
    cells = sorted(matrix["cells"], key=lambda cell: cell["median_ms_per_image"])
    bars, rows = [], []
    for cell in cells:
        ratio = Ratio(**cell["times_as_fast"])
        label = model_label(cell["model"], cell["precision"])
        label += f" · {backend_label(cell['runner'])}"
        label += f" · {cell['batch_size']}" if cell["batch_size"] > 1 else ""
        label += AGAIN if cell["name"].endswith(AGAIN) else ""
        bars.append((Series(label, cell["precision"], cell["runner"]), ratio))
        answers = cell["answers"]
        rows.append(
            (label, f"{cell['median_ms_per_image']:.2f}", f"{ratio.value:.2f}",
             f"{ratio.low:.2f} to {ratio.high:.2f}",
             "-" if answers is None else f"{answers['agreement']:.4f}")
        )  # fmt: skip
    section.draw(lambda width: _figure(bars, floor, width))
    section.lead = [
        f"Same {matrix['matrix']['images']} images, {matrix['matrix']['rounds']} rounds in drawn "
        f"order, every cell of every round its own process; against "
        f"{cell_label(matrix, matrix['matrix']['reference'])}, per image.",
        f"The same cell timed as two differs by a factor of up to {floor:.3f}: nothing inside "
        "that, grey in the figure, is a difference.",
    ]
    head = (
        "model · runner · batch above 1", "ms/image", "times as fast", "99 % interval",
        "agreement",
    )  # fmt: skip
    section.tables = [Table(head, rows)]
    section.notes = [matrix["statistics"]]
    peers = {cell["runner"]: cell for cell in cells if cell["runner"] not in MARKERS}
    section.notes += [
        f"{runner}: {cell['what']}; {cell['boundary']}." for runner, cell in peers.items()
    ]
    section.notes += [
        f"Skipped: {skipped['name']}: {skipped['reason']}" for skipped in matrix["skipped"]
    ]
    section.commands = [matrix["command"]]
    return section


def _figure(bars: Sequence[tuple[Series, Ratio]], floor: float, width: float) -> str:
    """Draw the ratios from top to bottom, with the noise floor shaded."""
    with figure_style():
        narrow = width == NARROW
        figure, axes = new_figure(0.75 + (0.36 if narrow else 0.27) * len(bars), width)
        axes.axvspan(1 / floor, floor, color=COLORS["rule"], linewidth=0)
        axes.axvline(1, color=COLORS["muted"], linewidth=0.8)
        for place, (series, ratio) in enumerate(bars):
            axes.plot(
                [ratio.low, ratio.high], [place, place], color=series.color, linewidth=2.2
            )  # fmt: skip
            draw_dot(axes, series, ratio.value, place, named=False)
        axes.set_yticks(
            range(len(bars)),
            [
                series.label.replace(" · ", "\n", 1) if narrow else series.label
                for series, _ in bars
            ],
        )
        axes.set_ylim(len(bars) - 0.4, -0.6)
        axes.tick_params(axis="y", length=0, labelcolor=COLORS["ink"])
        axes.spines["left"].set_visible(False)
        axes.grid(visible=False, axis="y")
        axes.set_xscale("log")
        plain_log(axes.xaxis)
        axes.set_xlabel("times as fast as the reference")
        return svg_of(figure, "ratios", "Speed against the peers")
