"""Section on threshold and min_area, which are chosen by the cost of mistakes."""

from __future__ import annotations

import functools
from typing import Any

import matplotlib.ticker

from benchmarks.report.content import Section, Table
from benchmarks.report.drawing import COLORS, draw_legend, figure_style, new_figure, svg_of
from benchmarks.report.results import Results
from benchmarks.report.wording import configuration


def threshold_choices(results: Results) -> list[Section]:
    """Return one section for each result of `tinyunet tune`."""
    if not results.tunings:
        section = Section("Threshold and min_area", absent=True)
        section.lead = ["Which parts are rejected, chosen by what escapes and overkills cost."]
        section.commands = ["tinyunet tune DATA -m MODEL -o tuned"]
        return [section]
    sections = []
    for path, tuning in results.tunings.items():
        several = len(results.tunings) > 1
        section = Section("Threshold and min_area" + (f" of {path.stem}" if several else ""))
        section.draw(functools.partial(_figure, tuning))
        section.lead = [
            f"{configuration(tuning['model']['name'], None, tuning['backend'])}, "
            f"{tuning['images']} images of "
            f"{tuning['dataset']['name']}: {tuning['rule']['text']}. These images chose, so the "
            "rates are no test; tinyunet evaluate on others gives one."
        ]
        section.tables = [_table(tuning)]
        section.commands = [f"tinyunet tune DATA -m {tuning['model']['name']} -o tuned"]
        sections.append(section)
    return sections


def _table(tuning: dict[str, Any]) -> Table:
    confidence = f"at most, {tuning['rule']['confidence']:g}"
    head = ("", "threshold", "min_area px", "escapes", confidence, "overkills", confidence)
    rows = [
        (name, f"{point['threshold']:g}", f"{point['min_area']}",
         f"{point['escapes']} / {tuning['defective']}",
         f"{100 * point['escape_rate_upper']:.1f} %",
         f"{point['overkills']} / {tuning['good']}",
         f"{100 * point['overkill_rate_upper']:.1f} %")
        for name, point in (("before", tuning["before"]), ("chosen", tuning["chosen"]))
    ]  # fmt: skip
    return Table(head, rows)


def _figure(tuning: dict[str, Any], width: float) -> str:
    """Draw the fewest overkills for each number of escapes, by threshold and min_area."""
    curve, chosen, before = tuning["curve"], tuning["chosen"], tuning["before"]
    with figure_style():
        figure, axes = new_figure(2.6, width)
        axes.step(
            [point["escapes"] for point in curve], [point["overkills"] for point in curve],
            where="post", color=COLORS["ink"], marker=".",
        )  # fmt: skip
        for point, label, marker, color, size in (
            (before, "before", "s", "muted", 11),
            (chosen, "chosen", "o", "pass", 7),
        ):
            axes.plot(
                [point["escapes"]], [point["overkills"]], marker=marker, linestyle="",
                markersize=size, markerfacecolor="none", markeredgewidth=1.5, clip_on=False,
                markeredgecolor=COLORS[color], label=label,
            )  # fmt: skip
        axes.set_xlim(0, max(1, *(point["escapes"] for point in (*curve, before, chosen))))
        axes.set_ylim(0, max(1, *(point["overkills"] for point in (*curve, before, chosen))))
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(matplotlib.ticker.MaxNLocator(integer=True))
        axes.set_xlabel(f"escapes of {tuning['defective']}")
        axes.set_ylabel(f"overkills of {tuning['good']}")
        draw_legend(figure, axes)
        return svg_of(figure, "trade-off", "Escapes against overkills")
