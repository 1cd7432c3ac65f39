"""``python -m benchmarks.labels``: the best that a network could do on the synthetic weak labels.

The label of a synthetic defect is an ellipse drawn loosely around it, at random. Whoever knows
every pixel of the defect still has to guess that ellipse, so ``iou_defective`` has a limit below 1.
The guess is the set of pixels that lie in at least a share of many ellipses drawn around the same
defect; the share is the one that does best on them, and the limit is its mean IoU with others.
"""

from __future__ import annotations

import json
import shlex
import statistics
import sys
from pathlib import Path
from typing import Final

import click
import numpy as np

from tinyunet_deploy.cli import run
from tinyunet_deploy.data.masks import ellipse_mask
from tinyunet_deploy.data.synthetic import CLASSES, sample, weak_label
from tinyunet_deploy.files import write_atomic

RESULTS: Final = Path(__file__).parent / "results"
DRAWN: Final = 40
"""Ellipses around each defect that the guess is made from."""
HELD_OUT: Final = 20
"""Others that it is held against."""
SHARES: Final = (0.3, 0.35, 0.4, 0.45, 0.5, 0.55)
SEED: Final = 99


def limit(class_id: int, index: int) -> float:
    """Mean IoU of the best guess with ellipses that it has not seen, for one defect."""
    made = sample(class_id, index, defective=True, seed=SEED)
    assert made.truth is not None
    rng = np.random.default_rng((SEED, class_id, index))
    ellipses = np.stack(
        [
            ellipse_mask(*weak_label(class_id, made.truth, rng), made.truth.shape) > 0
            for _ in range(DRAWN + HELD_OUT)
        ]
    )
    drawn, others = ellipses[:DRAWN], ellipses[DRAWN:]
    covered = drawn.mean(axis=0)
    guess = max((covered >= share for share in SHARES), key=lambda guess: _mean_iou(guess, drawn))
    return _mean_iou(guess, others)


def _mean_iou(guess: np.ndarray, ellipses: np.ndarray) -> float:
    both = (guess & ellipses).sum(axis=(1, 2))
    return float((both / (guess | ellipses).sum(axis=(1, 2))).mean())


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--defects", default=20, show_default=True, type=click.IntRange(min=1))
@click.option(
    "-o",
    "--output",
    default=RESULTS / "labels.json",
    type=click.Path(path_type=Path, dir_okay=False),
    help="benchmarks/results/labels.json if not given.",
)
def labels(defects: int, output: Path) -> None:
    """Estimate the highest iou_defective that the labels of each synthetic class allow."""
    found = {
        class_id: statistics.fmean(limit(class_id, index) for index in range(defects))
        for class_id in CLASSES
    }
    fields = {
        "schema_version": 1,
        "kind": "labels",
        "command": shlex.join(["python", "-m", "benchmarks.labels", "--defects", str(defects)]),
        "formula": f"mean over {defects} defects of the mean IoU of one guess with {HELD_OUT} weak "
        f"labels of the same defect; the guess is the pixels in a share of {DRAWN} other ones, the "
        "share that does best on those",
        "seed": SEED,
        "classes": found,
        "mean": statistics.fmean(found.values()),
    }
    write_atomic(output, json.dumps(fields, indent=2).encode() + b"\n", durable=True)
    for class_id, value in found.items():
        click.echo(f"class {class_id:2}  {value:.3f}")
    click.echo(f"mean      {fields['mean']:.3f}")


if __name__ == "__main__":
    sys.exit(run(labels))
