"""Options, folder and file format that all measurements share."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import click

from tinyunet_deploy.cli.progress import Progress
from tinyunet_deploy.files import write_atomic

__all__ = [
    "HELP",
    "REPOSITORY",
    "RESULTS",
    "output_option",
    "progress_lines",
    "rounds_option",
    "write_result",
]

HELP: Final[dict[str, Any]] = {"help_option_names": ["-h", "--help"]}
"""Context settings of every command."""
REPOSITORY: Final = Path(__file__).resolve().parent.parent
RESULTS: Final = REPOSITORY / "benchmarks" / "results"

rounds_option = click.option(
    "--rounds",
    default=3,
    show_default=True,
    type=click.IntRange(min=1),
    help="Number of rounds; each measures everything once.",
)


def output_option(name: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return the option ``-o/--output``, a result file; default ``name`` in benchmarks/results."""
    return click.option(
        "-o",
        "--output",
        default=RESULTS / name,
        type=click.Path(path_type=Path, dir_okay=False),
        help=f"File of the result. Default: benchmarks/results/{name}.",
    )


def progress_lines(measurements: int) -> Progress:
    """Return a progress of lines only: redrawing a bar would take processor time from what is
    measured."""
    return Progress("measuring", measurements, "measurements", bar=False)


def write_result(path: Path, fields: Mapping[str, Any]) -> None:
    """Write a result as JSON, with ``schema_version`` 1 as its first field.

    Raises:
        RuntimeUnavailable: the disk is full, read-only or failing.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"schema_version": 1, **fields}, indent=1)
    write_atomic(path, text.encode() + b"\n", durable=True)
