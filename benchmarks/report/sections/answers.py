"""Section that compares every artifact's answers with the network's."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from benchmarks.report.content import Section, Table
from benchmarks.report.joins import as_series
from benchmarks.report.results import Results
from benchmarks.report.wording import limit_in_words

__all__ = ["answers", "parity_command"]


def answers(results: Results) -> Section:
    """Return the section on the results of `tinyunet parity`."""
    section = Section("Whether it answers as the network did")
    if not results.parities:
        section.absent = True
        section.lead = ["Every artifact on every backend against its checkpoint."]
        section.commands = ["tinyunet parity DATA -m engines/ -o out"]
        return section
    section.lead = ["A step is 1/255 of probability; agreement is the IoU of the two masks."]
    for path, parity in results.parities.items():
        rows = []
        for comparison in parity["comparisons"]:
            series = as_series(comparison["model"], comparison["precision"], comparison["backend"])
            if "skipped" in comparison:
                section.notes.append(f"Skipped: {series.label}: {comparison['skipped']}")
                continue
            section.notes += [
                f"Red: {series.label}, {parity['data']}: {check['figure']} is "
                f"{check['value']:.3g}, {limit_in_words(check['limit'])}: {check['reason']}."
                for check in comparison["checks"]
                if not check["holds"]
            ]
            drop = comparison["iou_drop"]
            rows.append(
                (series.label, str(comparison["largest_steps"]), str(comparison["p999_steps"]),
                 f"{comparison['agreement']:.5f}", str(comparison["flips"]),
                 "-" if drop is None else f"{round(-drop, 4) + 0.0:+.4f}", comparison["outcome"])
            )  # fmt: skip
        head = (
            f"{parity['data']}, {parity['images']} images", "largest step", "p99.9 step",
            "agreement", "verdicts flipped", "IoU change", "gate",
        )  # fmt: skip
        section.tables.append(Table(head, rows))
        section.commands.append(parity_command(parity, path))
    return section


def parity_command(parity: dict[str, Any], path: Path) -> str:
    """Return the command that made a parity result, and the file name it was saved under."""
    models = dict.fromkeys(comparison["model"] for comparison in parity["comparisons"])
    words = ["tinyunet", "parity", parity["data"]]
    for model in models:
        words += ["-m", f"engines/{model}"]
    words += ["--reference", parity["reference"]["name"], "-o", "FOLDER"]
    return f"{shlex.join(words)}  # parity.json kept as {path.name}"
