"""Section on the cost of files beyond that of the bare backend, and on the growth of memory."""

from __future__ import annotations

import statistics
from typing import Any

from benchmarks.report.content import Section, Table
from benchmarks.report.joins import precisions_of
from benchmarks.report.results import Results
from benchmarks.report.wording import backend_label, model_label, number

_HEAD = (
    "", "images", "rounds", "in memory/s", "files/s", "ratio",
    "MiB at the start", "after a tenth", "at the end",
)  # fmt: skip


def files_and_memory(results: Results) -> Section:
    """Return the section on `python -m benchmarks.files_to_masks`."""
    section = Section("From files to masks")
    section.lead = [
        "The rate of tinyunet infer on PNG files, masks and report written, over that of the same "
        "backend on the same images in memory."
    ]
    section.commands = [pipeline["command"] for pipeline in results.pipelines.values()]
    if not section.commands:
        section.absent = True
        section.commands = ["python -m benchmarks.files_to_masks --images 1000"]
        return section
    precisions = precisions_of(results)
    for pipeline in results.pipelines.values():
        rows = [
            _row(model, pipeline["images"], precisions.get(model["model"]))
            for model in pipeline["results"]
        ]
        section.tables.append(Table(_HEAD, rows))
    section.notes = [
        "Medians over rounds; memory, the arrays included, of the round in which it grew most "
        "after a tenth of the images."
    ]
    return section


def _row(model: dict[str, Any], images: int, precision: str | None) -> tuple[str, ...]:
    rounds = model["rounds"]
    in_memory = statistics.median(one["in_memory_images_per_s"] for one in rounds)
    from_files = statistics.median(one["from_files_images_per_s"] for one in rounds)
    resident = [one["resident_mib"] for one in rounds]
    grown = max(resident, key=lambda mib: mib["end"] - mib["after_a_tenth"])
    return (
        f"{model_label(model['model'], precision)} · {backend_label(model['backend'])}",
        str(images),
        str(len(rounds)),
        number(in_memory),
        number(from_files),
        f"{model['ratio_median']:.3f}",
        *(f"{mib:.0f}" for mib in grown.values()),
    )
