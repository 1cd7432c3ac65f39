"""Section on the time of each operator, by OpenVINO's counters."""

from __future__ import annotations

from typing import Any, Final

from benchmarks.report.content import Section, Table
from benchmarks.report.joins import precisions_of
from benchmarks.report.results import Results
from benchmarks.report.wording import backend_label, model_label

_MOST: Final = 12
"""Number of operators that are listed by name; the others are added up."""


def operator_times(results: Results) -> list[Section]:
    """Return one section for each result of `python -m benchmarks.operators`."""
    sections, precisions = [], precisions_of(results)
    for path, result in results.operators.items():
        section = Section("Which operators take the time")
        section.lead = ["One image at a time, by the runtime's own counters; the slowest first."]
        section.tables = [
            _table(model, precisions.get(model["model"])) for model in result["results"]
        ]
        section.notes = [f"{result['formula']}."]
        section.commands = [f"{result['command']} -o {path}"]
        sections.append(section)
    return sections


def _table(model: dict[str, Any], precision: str | None) -> Table:
    slowest = sorted(model["operators"], key=lambda operator: -operator["ms"])
    together = sum(operator["ms"] for operator in slowest)
    rows = [
        (operator["name"], operator["kind"], operator["kernel"], f"{operator['ms']:.2f}",
         f"{100 * operator['ms'] / together:.0f} %")
        for operator in slowest[:_MOST]
    ]  # fmt: skip
    rest = sum(operator["ms"] for operator in slowest[_MOST:])
    others = f"{max(len(slowest) - _MOST, 0)} others"
    rows.append((others, "", "", f"{rest:.2f}", f"{100 * rest / together:.0f} %"))
    rows.append(("together", "", "", f"{together:.2f}", "100 %"))
    head = (
        f"{model_label(model['model'], precision)} · {backend_label(model['backend'])}",
        "kind",
        "kernel",
        "ms",
        "share",
    )
    return Table(head, rows, numbers=3)
