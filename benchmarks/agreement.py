"""``python -m benchmarks.agreement RESULT.json ...``: do evaluations of one model say the same?"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Final

import click

from tinyunet_deploy.cli import run
from tinyunet_deploy.errors import GateFailed

LIMIT: Final = 1e-3
FIGURES: Final = ("iou_defective", "iou_global", "escape_rate", "overkill_rate", "auroc")


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("results", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True))
def agreement(results: tuple[Path, ...]) -> None:
    """Print the largest difference of each figure over RESULTS of `tinyunet evaluate -o`.

    Exit 6 if one is above 0.001.
    """
    means = {path: json.loads(path.read_bytes())["mean"] for path in results}
    for figure in FIGURES:
        values = [mean[figure] for mean in means.values() if mean[figure] is not None]
        spread = max(values, default=0.0) - min(values, default=0.0)
        click.echo(f"{figure:15} {' '.join(f'{value:.4f}' for value in values)}  ±{spread:.1e}")
        if spread > LIMIT or len(values) not in (0, len(means)):
            raise GateFailed(figure, f"differs by {spread:.4f} between results, {LIMIT} allowed")
    click.echo(f"{len(means)} results agree to {LIMIT}")


if __name__ == "__main__":
    sys.exit(run(agreement))
