"""``python -m benchmarks.rounding``: what half precision changes on a product's images and others.

The scores of a float32 file and of its fp16 file are compared in ONNX Runtime, on the test images
of the model's own data and on the synthetic images that an export without data is compared on.

The stored result is of the set "40 sizes" of ``tests/own_data/sets.py``: ``tinyunet data init
parts``, ``python -m training quick --data parts --steps 80 --batch 2 -o run``, ``python -m export
run/checkpoint.safetensors --data parts --precision fp32,fp16 -o parts.onnx``.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click
import numpy as np

from benchmarks.options import HELP, output_option, write_result
from tinyunet_deploy.artifacts.sidecar import read_artifact
from tinyunet_deploy.backends.base import Backend
from tinyunet_deploy.backends.registry import open_backend
from tinyunet_deploy.cli import run
from tinyunet_deploy.contract import Image, Score
from tinyunet_deploy.data import synthetic
from tinyunet_deploy.data.decoding import read_image
from tinyunet_deploy.data.layouts import read_dataset
from tinyunet_deploy.data.tiles import score_in_tiles
from tinyunet_deploy.errors import RefusedError
from tinyunet_deploy.quality.comparison import ScoreComparison
from tinyunet_deploy.quality.score_quality import GRADED

__all__ = ["compare_scores"]


def compare_scores(pairs: Iterable[tuple[Score, Score]], threshold: float) -> dict[str, Any]:
    """Compare the scores of two files.

    Args:
        pairs: for each image, uint8 [H, W] of the float32 file and of the other file.
        threshold: probability above which a pixel is a defect.

    Returns:
        Numbers of images and pixels; ``graded_px``, the pixels with a float32 score of 5 to 250;
        ``union_px``, those that are defects in either mask; ``flipped_px``, those that are so in
        one mask only; and the figures ``agreement``, ``flips`` and ``largest_steps``.
    """
    comparison = ScoreComparison(threshold, min_area=1)
    pixels = graded = 0
    for expected, score in pairs:
        comparison.add(score, expected, str(comparison.images))
        pixels += expected.size
        graded += int(np.count_nonzero((expected >= GRADED[0]) & (expected <= GRADED[1])))
    figures = comparison.figures
    return {
        "images": comparison.images,
        "pixels": pixels,
        "graded_px": graded,
        "union_px": comparison.union_px,
        "flipped_px": comparison.flipped_near + comparison.flipped_far,
        **{name: figures[name] for name in ("agreement", "flips", "largest_steps")},
    }


@click.command(context_settings=HELP)
@click.argument("float32", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.argument("float16", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option(
    "--data",
    "folder",
    required=True,
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Data set of the model.",
)
@output_option("rounding.json")
def rounding(float32: Path, float16: Path, folder: Path, output: Path) -> None:
    """Compare FLOAT32 and FLOAT16, two exported files of one checkpoint."""
    sidecar = read_artifact(float32).sidecar
    if sidecar.parent != read_artifact(float16).sidecar.parent:
        raise RefusedError(float16, f"is not of the checkpoint of {float32}")
    own = [read_image(i.image) for i in read_dataset(folder).items if i.split == "test"]
    side = max(64, -(-max(sidecar.contract.height, sidecar.contract.width) // 16) * 16)
    drawn = [
        synthetic.sample(name, 1, defective=True, size=side).image for name in synthetic.CLASSES
    ]
    rows = {}
    with (
        open_backend(float32, "onnxruntime", "cpu") as wide,
        open_backend(float16, "onnxruntime", "cpu") as narrow,
    ):
        for name, images in (("own", own), ("synthetic", drawn)):
            pairs = ((_score(wide, image), _score(narrow, image)) for image in images)
            rows[name] = compare_scores(pairs, sidecar.threshold)
    words = [float32.name, float16.name, "--data", folder.name]
    command = shlex.join(["python", "-m", "benchmarks.rounding", *words])
    write_result(
        output,
        {
            "kind": "rounding",
            "command": command,
            "checkpoint_sha256": sidecar.parent,
            "images": rows,
        },
    )
    click.echo(output)


def _score(backend: Backend, image: Image) -> Score:
    """Score an image of any size, uint8 [H, W]."""

    def score(tile: Image) -> Score:
        answer: Score = backend.run(np.ascontiguousarray(tile)[None, None]).score[0, 0]
        return answer

    return score_in_tiles(image, score, backend.artifact.sidecar.tiling)


if __name__ == "__main__":
    sys.exit(run(rounding))
