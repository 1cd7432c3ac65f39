"""Section that compares a GPU with the figures published for the same network."""

from __future__ import annotations

from typing import Any

from benchmarks.report.content import Section, Table
from benchmarks.report.results import Results
from benchmarks.report.wording import backend_label, model_label, number


def published_gpu(results: Results) -> list[Section]:
    """Return the section on `python -m benchmarks.gpu`; no section without its results."""
    if not results.gpus:
        return []
    section = Section("A GPU beside published figures")
    first = next(iter(results.gpus.values()))
    section.lead = [
        f"{first['gpu']['name']}, images in memory, with CUDA graphs and without, in images per "
        "second. Published are those of NVIDIA's U-Net Industrial, the same network in TensorFlow."
    ]
    sizes = sorted({row["batch_size"] for gpu in results.gpus.values() for row in gpu["results"]})
    rows = [
        (f"published, {name}", "", *(number(rates.get(str(size))) for size in sizes))
        for name, rates in first["published_images_per_s"].items()
    ]
    rows += [
        _row(gpu["results"], graphs, sizes)
        for gpu in results.gpus.values()
        for graphs in (True, False, None)
        if any(row["cuda_graphs"] is graphs for row in gpu["results"])
    ]
    section.tables = [Table(("", "", *(f"batch {size}" for size in sizes)), rows)]
    section.notes = [first["formula"]]
    section.commands = [gpu["command"] for gpu in results.gpus.values()]
    return [section]


def _row(measured: list[dict[str, Any]], graphs: bool | None, sizes: list[int]) -> tuple[str, ...]:
    by_size = {row["batch_size"]: row for row in measured if row["cuda_graphs"] is graphs}
    any_row = next(iter(by_size.values()))
    label = model_label(any_row["model"], any_row["precision"])
    label += f" · {backend_label(any_row['backend'])}"
    rates = (by_size[size]["images_per_s"] if size in by_size else None for size in sizes)
    words = {True: "graphs", False: "no graphs", None: "has no graphs"}[graphs]
    return label, words, *map(number, rates)
