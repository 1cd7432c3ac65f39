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
    section.lead = [
        "A step is 1/255 of probability. The largest step is of the one pixel that changed most: "
        "at the edge of a defect the score falls from 255 to 0 within a pixel or two, so an edge "
        "that moves by one pixel is a step of up to 255. The p99.9 step is what 999 of 1000 pixels "
        "keep. Agreement is the IoU of the two masks.",
        "What counts for the part is at the right: verdicts that flipped, and the change of IoU.",
    ]
    skipped: dict[str, dict[str, None]] = {}
    for path, parity in results.parities.items():
        rows = []
        for comparison in parity["comparisons"]:
            series = as_series(comparison["model"], comparison["precision"], comparison["backend"])
            if "skipped" in comparison:
                skipped.setdefault(comparison["skipped"], {})[series.label] = None
                continue
            section.notes += [
                f"Red: {series.label}, {parity['data']}: {check['figure']} is "
                f"{check['value']:.3g}, but {limit_in_words(check['limit'])}: {check['reason']}."
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
    section.notes += [f"Skipped: {', '.join(labels)}: {why}" for why, labels in skipped.items()]
    return section


def parity_command(parity: dict[str, Any], path: Path) -> str:
    """Return the command that made a parity result, and the file name it was saved under."""
    models = dict.fromkeys(comparison["model"] for comparison in parity["comparisons"])
    words = ["tinyunet", "parity", parity["data"]]
    for model in models:
        words += ["-m", f"engines/{model}"]
    words += ["--reference", parity["reference"]["name"], "-o", "FOLDER"]
    return f"{shlex.join(words)}  # parity.json kept as {path.name}"
