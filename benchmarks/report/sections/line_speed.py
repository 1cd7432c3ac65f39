"""Section on line speed: how fast the belt may run before parts miss their verdict."""

from __future__ import annotations

import functools
import shlex
from pathlib import Path
from typing import Any

from benchmarks.report.content import Section, Table
from benchmarks.report.drawing import (
    COLORS,
    draw_gate,
    draw_legend,
    figure_style,
    new_figure,
    svg_of,
)
from benchmarks.report.results import Results
from benchmarks.report.wording import configuration, number

__all__ = [
    "draw_line_speed",
    "gate_of",
    "line_sentence",
    "line_speeds",
    "model_of",
    "promise_broken",
]


def line_speeds(results: Results) -> list[Section]:
    """Return one section for each result of `tinyunet line-sim`."""
    if not results.lines:
        section = Section("Line speed", absent=True)
        section.lead = ["How fast the belt may run before parts reach the gate without a verdict."]
        section.commands = [
            "tinyunet line-sim IMAGES -m MODEL --parts-per-minute 300 --deadline-ms 300 "
            "-o benchmarks/results/line.json"
        ]
        return [section]
    sections = []
    for path, result in results.lines.items():
        several = len(results.lines) > 1 and "model" in result
        section = Section("Line speed" + (f" of {model_of(result)}" if several else ""))
        section.draw(functools.partial(draw_line_speed, result))
        section.lead = [line_sentence(result)]
        section.tables = [_table(result)]
        section.notes = [f"{name}: {text}." for name, text in result.get("formulas", {}).items()]
        section.commands = [_command(result, path)]
        sections.append(section)
    return sections


def _table(result: dict[str, Any]) -> Table:
    not_kept = [("tried live, not kept", trial) for trial in result.get("not_kept", [])]
    kept = [("tried live, kept", trial) for trial in result.get("kept_once", [])]
    verified = ("verified live", result.get("verified"))
    trials = [("as asked", result), *not_kept, *kept, verified]
    rows = []
    for name, trial in trials:
        if trial is not None:
            outcome = trial["outcome"]
            rows.append(
                (name, f"{trial['line']['parts_per_minute']:,.0f}",
                 f"{outcome['missed']} / {outcome['parts']}",
                 f"{100 * outcome['miss_rate_bound']:.2g} %", str(outcome["longest_run"]),
                 number(outcome["p50_ms"]), number(outcome["p99_ms"]), number(outcome["p999_ms"]))
            )  # fmt: skip
    head = ("", "parts/min", "missed", "at most", "longest run", "p50 ms", "p99 ms", "p99.9 ms")
    return Table(head, rows)


def line_sentence(result: dict[str, Any]) -> str:
    """Say in one or two sentences how fast the belt may run."""
    what = model_of(result)
    shown = result["fastest_shown_parts_per_minute"]
    allowed = f"{100 * result['max_miss_rate']:g} %"
    if not shown:
        return f"No line speed was shown at which {what} would miss at most {allowed} of the parts."
    if promise_broken(result):
        tried = result["verified"]["outcome"]
        missed, parts = tried["missed"], tried["parts"]
        return (
            f"No safe line speed: {shown:,.0f} parts per minute were predicted for {what}, but "
            f"tried live {missed:,} of {parts:,} parts were late ({allowed} allowed)."
        )
    first = [f"{trial['line']['parts_per_minute']:,.0f}" for trial in result.get("not_kept", [])]
    return (
        f"With {what} the belt may run at {shown:,.0f} parts per minute, if the gate is "
        f"{gate_of(result)} behind the camera and {allowed} of the parts may be missed."
        + (f" {' and '.join(first)} were predicted before and did not hold." if first else "")
    )


def promise_broken(result: dict[str, Any]) -> bool:
    """Return whether the predicted speed was tried live and did not hold."""
    return bool(result["verified"]) and not result["verified"]["kept"]


def gate_of(result: dict[str, Any]) -> str:
    """Return how far away the gate is: in millimetres if they were given, else in milliseconds."""
    belt = result["line"]
    return f"{belt['gate_mm']:g} mm" if belt["gate_mm"] else f"{belt['deadline_ms']:g} ms"


def model_of(result: dict[str, Any]) -> str:
    """Name the model, the backend and the processes of a result, or say that it is a replay."""
    if "model" not in result:
        return "the recorded times"
    processes = result["line"]["processes"]
    side_by_side = f" in {processes} processes" if processes > 1 else ""
    return configuration(result["model"], None, result["backend"]) + side_by_side


def _command(result: dict[str, Any], path: Path) -> str:
    belt = result["line"]
    live = "model" in result
    words = ["tinyunet", "line-sim", *(["IMAGES"] if live else ["--replay", "TIMES.json"])]
    words += ["-m", result["model"], "--backend", result["backend"]] if live else []
    options = {
        "parts-per-minute": belt["parts_per_minute"],
        "pitch-mm": belt["pitch_mm"],
        **(
            {"gate-mm": belt["gate_mm"]}
            if belt["gate_mm"]
            else {"deadline-ms": belt["deadline_ms"]}
        ),
        "cameras": belt["cameras"],
        "processes": belt["processes"],
        "buffer": belt["buffer"],
        "jitter": belt["jitter"],
        "max-miss-rate": result["max_miss_rate"],
    }
    if belt["go_parts"]:
        options |= {"go-parts": belt["go_parts"], "stop-s": belt["stop_ms"] / 1e3}
    for name, value in options.items():
        words += [f"--{name}", f"{value:g}"] if value is not None else []
    return shlex.join([*words, "-o", str(path)])


def draw_line_speed(result: dict[str, Any], width: float) -> str:
    """Draw the share of parts without a verdict over the belt's speed, and its upper bound.

    Args:
        result: content of a file that ``tinyunet line-sim -o`` wrote.
        width: inches.

    Returns:
        Inline SVG.
    """
    curve = result["curve"]
    allowed, shown = result["max_miss_rate"], result["fastest_shown_parts_per_minute"]
    with figure_style():
        figure, axes = new_figure(3.0, width)
        speeds = [point["parts_per_minute"] for point in curve]
        # no miss at all has no place on a logarithmic axis: it stands below one miss
        least = 0.3 / max(point["parts"] for point in curve)
        for key, dashes, label in (
            ("miss_rate", "-", "seen"),
            ("miss_rate_bound", ":", "at most, 95 % confidence"),
        ):
            axes.plot(
                speeds, [max(point[key], least) for point in curve], color=COLORS["ink"],
                linestyle=dashes, label=label,
            )  # fmt: skip
        if allowed > 0:
            draw_gate(axes, allowed, f"allowed {100 * allowed:.3g} %")
        if shown is not None:
            axes.axvline(shown, color=COLORS["pass"], linewidth=1)
            axes.annotate(
                f"safe {shown:,.0f}/min", (shown, 1), xytext=(-4, -2), fontsize=8.5,
                xycoords=("data", "axes fraction"), textcoords="offset points", ha="right",
                va="top", color=COLORS["pass"],
            )  # fmt: skip
        tried = result["line"]["parts_per_minute"]
        if tried is not None:
            axes.plot(
                [tried], [least], marker="^", color=COLORS["muted"], label="tried", linestyle="",
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
        draw_legend(figure, axes)
        return svg_of(figure, "line", "Line speed")
