"""``python -m benchmarks.labels``: the best possible result on the synthetic weak labels.

The label of a synthetic defect is an ellipse drawn loosely around it, at random. Even a network
that knew every pixel of the defect would have to guess that ellipse, so ``iou_defective`` has a
limit below 1. The best guess is the set of pixels that a certain share of many ellipses around the
same defect cover; the share is the one with the highest mean IoU. The limit is the mean IoU of that
guess with other ellipses.
"""

from __future__ import annotations

import shlex
import statistics
import sys
from pathlib import Path
from typing import Final

import click
import numpy as np
from numpy.typing import NDArray

from benchmarks.options import HELP, output_option, write_result
from tinyunet_deploy.cli import run
from tinyunet_deploy.data.masks import ellipse_mask
from tinyunet_deploy.data.synthetic import CLASSES, sample, weak_label

__all__ = ["SEED", "labels", "limit"]

_DRAWN: Final = 40
"""Number of ellipses around each defect from which the guess is made."""
_HELD_OUT: Final = 20
"""Number of further ellipses that the guess is compared with."""
_SHARES: Final = (0.3, 0.35, 0.4, 0.45, 0.5, 0.55)
SEED: Final = 99
"""Seed of the defects and of their ellipses."""


@click.command(context_settings=HELP)
@click.option(
    "--defects",
    default=20,
    show_default=True,
    type=click.IntRange(min=1),
    help="Defects of each class.",
)
@output_option("labels.json")
def labels(defects: int, output: Path) -> None:
    """Estimate the highest iou_defective that the labels of each synthetic class allow."""
    limits = {
        class_id: statistics.fmean(limit(class_id, index) for index in range(defects))
        for class_id in CLASSES
    }
    mean = statistics.fmean(limits.values())
    fields = {
        "kind": "labels",
        "command": shlex.join(["python", "-m", "benchmarks.labels", "--defects", str(defects)]),
        "formula": f"mean over {defects} defects of the mean IoU of one guess with {_HELD_OUT} "
        f"weak labels of the same defect; the guess is the pixels in a share of {_DRAWN} other "
        "ones, the share that does best on those",
        "seed": SEED,
        "classes": limits,
        "mean": mean,
    }
    write_result(output, fields)
    for class_id, value in limits.items():
        click.echo(f"class {class_id:2}  {value:.3f}")
    click.echo(f"mean      {mean:.3f}")


def limit(class_id: int, index: int) -> float:
    """Return the mean IoU of the best guess with unseen ellipses, for one defect."""
    drawn = sample(class_id, index, defective=True, seed=SEED)
    assert drawn.truth is not None
    rng = np.random.default_rng((SEED, class_id, index))
    ellipses = np.stack(
        [
            ellipse_mask(*weak_label(class_id, drawn.truth, rng), drawn.truth.shape) > 0
            for _ in range(_DRAWN + _HELD_OUT)
        ]
    )
    seen, unseen = ellipses[:_DRAWN], ellipses[_DRAWN:]
    covered = seen.mean(axis=0)
    guess = max((covered >= share for share in _SHARES), key=lambda guess: _mean_iou(guess, seen))
    return _mean_iou(guess, unseen)


def _mean_iou(guess: NDArray[np.bool_], ellipses: NDArray[np.bool_]) -> float:
    both = (guess & ellipses).sum(axis=(1, 2))
    return float((both / (guess | ellipses).sum(axis=(1, 2))).mean())


if __name__ == "__main__":
    sys.exit(run(labels))
