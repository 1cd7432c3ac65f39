"""Section on defect detection: IoU, escapes and overkill on labelled images."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from benchmarks.report.content import Section, Table
from benchmarks.report.results import Results
from benchmarks.report.wording import configuration, data_name, share

_HEAD = (
    "", "iou_defective", "iou_global", "dice", "dice of nothing", "escapes", "overkill", "AUROC",
)  # fmt: skip


def defect_finding(results: Results) -> Section:
    """Return the section on the results of `tinyunet evaluate`."""
    section = Section("How well it finds defects")
    if not results.evaluations:
        section.absent = True
        section.lead = ["IoU, escapes and overkill on labelled images."]
        section.commands = ["tinyunet evaluate DATA -m MODEL -o benchmarks/results/NAME.json"]
        return section
    section.tables = [Table(_HEAD, [_row(result) for result in results.evaluations.values()])]
    section.commands = [_command(each, path) for path, each in results.evaluations.items()]
    formulas = next(iter(results.evaluations.values()))
    section.notes = [f"Notation: {formulas['notation']}."]
    section.notes += [f"{name}: {text}." for name, text in formulas["formulas"].items()]
    return section


def _row(evaluation: dict[str, Any]) -> tuple[str, ...]:
    mean, all_ = evaluation["mean"], evaluation["all"]
    good, model = all_["images"] - all_["defective"], evaluation["model"]
    return (
        f"{configuration(model['name'], model['precision'], evaluation['backend'])}, "
        f"{data_name(evaluation)}",
        share(mean["iou_defective"]),
        share(mean["iou_global"]),
        share(mean["dice"]),
        share(mean["dice_nothing"]),
        f"{all_['escapes']} / {all_['defective']}",
        f"{all_['overkills']} / {good}",
        share(mean["auroc"]),
    )


def _command(evaluation: dict[str, Any], path: Path) -> str:
    data = evaluation["dataset"]
    words = ["tinyunet", "evaluate", data["name"], "-m", evaluation["model"]["name"]]
    words += ["--backend", evaluation["backend"], "--split", data["split"]]
    words += ["--classes", ",".join(map(str, data["classes"]))] if data["classes"] else []
    return shlex.join([*words, "-o", str(path)])
