"""Check that evaluations of one model agree: ``python -m benchmarks.agreement RESULT.json ...``."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import click

from benchmarks.options import HELP
from tinyunet_deploy.cli import run
from tinyunet_deploy.errors import GateFailed

__all__ = ["LIMIT", "require_agreement"]

LIMIT: Final = 1e-3
"""Largest difference of a figure between two backends."""
_FIGURES: Final = ("iou_defective", "iou_global", "escape_rate", "overkill_rate", "auroc")


def require_agreement(results: Sequence[dict[str, Any]]) -> None:
    """Print the largest difference of each figure over results of ``tinyunet evaluate -o``.

    Raises:
        GateFailed: a difference is above :data:`LIMIT`, or only some results give the figure.
    """
    means = [result["mean"] for result in results]
    for figure in _FIGURES:
        values = [mean[figure] for mean in means if mean[figure] is not None]
        spread = max(values, default=0.0) - min(values, default=0.0)
        click.echo(f"{figure:15} {' '.join(f'{value:.4f}' for value in values)}  ±{spread:.1e}")
        if len(values) not in (0, len(means)):
            raise GateFailed(figure, f"is given by {len(values)} of {len(means)} results")
        if spread > LIMIT:
            raise GateFailed(figure, f"differs by {spread:.4f} between results, {LIMIT} allowed")
    click.echo(f"{len(means)} results agree to {LIMIT}")


@click.command(context_settings=HELP)
@click.argument("results", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True))
def agreement(results: tuple[Path, ...]) -> None:
    """Print the largest difference of each figure over RESULTS of `tinyunet evaluate -o`.

    Exit 6 if a difference is above 0.001.
    """
    require_agreement([json.loads(path.read_bytes()) for path in results])


if __name__ == "__main__":
    sys.exit(run(agreement))
