"""``python -m benchmarks.page_tables``: the tables of figures in README.md and docs/.

A page marks the place of a table by a comment, and this command writes the table below it::

    <!-- table: accuracy -->
    | images | ... |
    <!-- /table -->

So no figure on a page is typed by hand; a test compares pages and results.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

import click

from benchmarks.options import HELP, REPOSITORY
from benchmarks.page_tables import accuracy, compute, scale, speed, training
from benchmarks.page_tables.stored import Rows
from tinyunet_deploy.cli import run
from tinyunet_deploy.files import write_atomic

__all__ = ["TABLES", "pages", "render"]

_MARKED: Final = re.compile(
    r"(?P<head><!-- table: (?P<name>[\w-]+) -->\n)(?P<body>.*?)(?P<tail><!-- /table -->)", re.DOTALL
)

TABLES: Final[dict[str, Callable[[], Rows]]] = {
    "acceptance": accuracy.acceptance,
    "accuracy": accuracy.accuracy,
    "accuracy-classes": accuracy.accuracy_classes,
    "accuracy-classes-slim": accuracy.accuracy_classes_slim,
    "accuracy-slim": accuracy.accuracy_slim,
    "blocks": accuracy.blocks,
    "learned-by-heart": accuracy.learned_by_heart,
    "capacity": scale.capacity,
    "capacity-assumed": scale.capacity_assumed,
    "capacity-rates": scale.capacity_rates,
    "capacity-transfer": scale.capacity_transfer,
    "cluster": scale.cluster,
    "foreign-networks": accuracy.foreign_networks,
    "gpu": speed.gpu,
    "latency": speed.latency,
    "line": speed.line,
    "mixed-precision": training.mixed_precision,
    "model-speeds": compute.model_speeds,
    "network-widths": compute.network_widths,
    "operators": speed.operators,
    "parity": accuracy.parity,
    "peers": speed.peers,
    "pipeline": speed.pipeline,
    "plateau": accuracy.plateau,
    "public-sets": accuracy.public_sets,
    "public-types": accuracy.public_types,
    "quick-recipe": training.quick_recipe,
    "recipes": training.recipes,
    "robustness": scale.robustness,
    "roofline": speed.roofline,
    "rounding": compute.rounding,
    "score-quality": accuracy.score_quality,
    "server": scale.server,
    "speed": speed.speed,
    "speedups": compute.speedups,
    "streams": compute.streams,
    "temperature": accuracy.temperature,
    "training-gpu": training.training_gpu,
    "training-throughput": training.training_throughput,
    "tuned": accuracy.tuned,
    "up-step": compute.up_step,
}
"""Name of a table -> function that makes it."""


def pages() -> list[Path]:
    """Return the pages that may have tables: README.md and everything below docs/."""
    return [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").rglob("*.md"))]


def render(text: str) -> str:
    """Return a page with all its tables made from the stored results.

    Raises:
        KeyError: a page names an unknown table.
    """
    return _MARKED.sub(
        lambda mark: mark["head"] + _markdown(TABLES[mark["name"]]()) + mark["tail"], text
    )


def _markdown(rows: Rows) -> str:
    head, *body = rows
    lines = [head, ["---"] * len(head), *body]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


@click.command(context_settings=HELP)
def page_tables() -> None:
    """Write the tables of README.md and docs/ from the stored results."""
    for page in pages():
        text = page.read_text()
        if (made := render(text)) != text:
            write_atomic(page, made.encode())
            click.echo(page.relative_to(REPOSITORY))


if __name__ == "__main__":
    sys.exit(run(page_tables))
