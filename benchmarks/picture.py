"""``python -m benchmarks.picture``: input, truth and prediction, side by side, as a PNG."""

from __future__ import annotations

import sys
from pathlib import Path

import click
import cv2
import numpy as np

from tinyunet_deploy import synthetic
from tinyunet_deploy.backends import open_backend
from tinyunet_deploy.cli import run
from tinyunet_deploy.cli.options import ClassList
from tinyunet_deploy.contract import defect_mask
from tinyunet_deploy.images import overlay, write_png

RESULTS = Path(__file__).parent / "results"
SIDE = 240
GAP = 8


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("-m", "--model", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--classes", type=ClassList(), default="1,2,4,7,9")
@click.option("--seed", default=0, show_default=True)
@click.option(
    "-o",
    "--output",
    default=RESULTS / "prediction.png",
    show_default=True,
    type=click.Path(path_type=Path, dir_okay=False),
)
def picture(model: Path | None, classes: tuple[int, ...], seed: int, output: Path) -> None:
    """Draw a synthetic image of each class: the input, the truth, the score, the prediction."""
    columns = []
    with open_backend(model) as backend:
        threshold = backend.artifact.sidecar.threshold
        for class_id in classes:
            made = synthetic.sample(class_id, 10_001, defective=True, seed=seed)
            assert made.label is not None
            score = backend.run(made.image[None, None]).score[0, 0]
            cells = (
                cv2.cvtColor(made.image, cv2.COLOR_GRAY2BGR),
                overlay(made.image, made.label),
                cv2.applyColorMap(score, cv2.COLORMAP_INFERNO),
                overlay(made.image, defect_mask(score, threshold)),
            )
            columns.append(np.vstack([_framed(cell) for cell in cells]))
    write_png(output, np.hstack(columns))
    click.echo(output)


def _framed(cell: np.ndarray) -> np.ndarray:
    small = cv2.resize(cell, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    half = GAP // 2
    white = (255, 255, 255)
    return cv2.copyMakeBorder(small, half, half, half, half, cv2.BORDER_CONSTANT, value=white)


if __name__ == "__main__":
    sys.exit(run(picture))
