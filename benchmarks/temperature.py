"""``python -m benchmarks.temperature``: does one temperature make scores graded?

The temperature T is chosen on training images, as the one whose probabilities sigmoid(logit / T)
make the labels of their pixels most likely (Guo et al. 2017, "On Calibration of Modern Neural
Networks"), and measured on test images. The threshold moves with it, so that the masks stay what
they are but for rounding: folded into the last convolution it is weight / T and bias / T.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import click
import numpy as np
from numpy.typing import NDArray

from benchmarks.options import HELP
from tinyunet_deploy.artifacts.sidecar import DEFAULT_CHECKPOINT
from tinyunet_deploy.cli import run
from tinyunet_deploy.contract import Mask, Score
from tinyunet_deploy.data.dataset import Item
from tinyunet_deploy.data.decoding import read_image
from tinyunet_deploy.data.layouts import read_dataset
from tinyunet_deploy.data.masks import read_mask
from tinyunet_deploy.files import json_value, write_atomic
from tinyunet_deploy.quality.metrics import count_pixels
from tinyunet_deploy.quality.part_score import score_part
from tinyunet_deploy.quality.score_quality import GRADED, ScoreQuality, score_counts

__all__ = ["best_temperature", "scaled_threshold"]

_HOTTEST: Final = 50.0
"""Largest temperature that is tried."""


class _Example(NamedTuple):
    logit: NDArray[np.float32]
    truth: Mask
    defective: bool


def best_temperature(logits: Sequence[NDArray[np.float32]], truths: Sequence[Mask]) -> float:
    """Return the temperature that makes the labels most likely, by golden-section search.

    Args:
        logits: float32 [H, W] each.
        truths: [H, W] each, a defect where it is not 0.

    Returns:
        1..50: the mean loss has a single minimum in the logarithm of the temperature.
    """
    # log(1 + exp(-z)) of a pixel depends on its signed logit alone: count them in fine bins
    signed = np.concatenate(
        [np.where(t != 0, z, -z).ravel() for z, t in zip(logits, truths, strict=True)]
    )
    counts, edges = np.histogram(np.clip(signed, -200, 200), 40_000, (-200, 200))
    middle = (edges[1:] + edges[:-1]) / 2

    def loss(log_temperature: float) -> float:
        return float(counts @ np.logaddexp(0, -middle / math.exp(log_temperature)))

    low, high, ratio = 0.0, math.log(_HOTTEST), (math.sqrt(5) - 1) / 2
    while high - low > 1e-4:
        first, second = high - ratio * (high - low), low + ratio * (high - low)
        low, high = (low, second) if loss(first) < loss(second) else (first, high)
    return math.exp((low + high) / 2)


def scaled_threshold(threshold: float, temperature: float) -> float:
    """Return the threshold that selects the same pixels after scaling, a probability in (0, 1)."""
    logit = math.log(threshold / (1 - threshold))
    return 1 / (1 + math.exp(-logit / temperature))


def _examples(items: Sequence[Item], checkpoint: Path) -> list[_Example]:
    import torch

    from tinyunet_deploy.artifacts.checkpoint import load_checkpoint
    from tinyunet_deploy.artifacts.network import normalize

    network, _ = load_checkpoint(checkpoint)
    examples = []
    with torch.inference_mode():
        for item in items:
            image = read_image(item.image)
            logit = network(normalize(torch.from_numpy(image)[None, None]))[0, 0].numpy()
            examples.append(_Example(logit, read_mask(item, image.shape[:2]), item.defective))
    return examples


def _figures(
    examples: Sequence[_Example], temperature: float, threshold: float, min_area: int
) -> dict[str, Any]:
    parts, ious = [], []
    pixels = np.zeros((2, 256), np.int64)
    for example in examples:
        scaled = example.logit.astype(np.float64) / temperature
        score: Score = np.rint(255 / (1 + np.exp(-scaled))).astype(np.uint8)
        pixels += score_counts(score, example.truth)
        parts.append(score_part(score, threshold, min_area, name="", defective=example.defective))
        truth_px, counts = count_pixels(score, example.truth, [threshold])
        if example.defective:
            predicted, inside = counts[threshold]
            ious.append(inside / max(predicted + truth_px - inside, 1))
    step = round(255 * threshold)
    quality = ScoreQuality.of(parts, pixels)
    return {
        "temperature": temperature,
        "threshold": threshold,
        "iou_defective": float(np.mean(ious)) if ious else math.nan,
        "escapes": sum(part.defective and part.deciding_score <= step for part in parts),
        "overkills": sum(not part.defective and part.deciding_score > step for part in parts),
        "graded_parts": quality.graded_parts,
        "expected_calibration_error_pixels": quality.pixels.expected_calibration_error,
        "expected_calibration_error_parts": quality.parts.expected_calibration_error,
        "graded_pixels": int(pixels[:, GRADED[0] : GRADED[1] + 1].sum()),
        "deciding_scores": sorted(part.deciding_score for part in parts),
    }


@click.command(context_settings=HELP)
@click.argument("data", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option(
    "-m",
    "--model",
    default=DEFAULT_CHECKPOINT,
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="A checkpoint. Default: the package's.",
)
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path, dir_okay=False))
def temperature(data: Path, model: Path, output: Path) -> None:
    """Choose a temperature on the training images of DATA and measure it on its test images."""
    from tinyunet_deploy.artifacts.sidecar import read_sidecar

    rule = read_sidecar(model).decision()
    dataset = read_dataset(data)
    by_split = {
        split: _examples([item for item in dataset.items if item.split == split], model)
        for split in ("train", "test")
    }
    chosen = best_temperature(
        [example.logit for example in by_split["train"]],
        [example.truth for example in by_split["train"]],
    )
    scaled = scaled_threshold(rule.threshold, chosen)
    test = by_split["test"]
    result = {
        "schema_version": 1,
        "data": dataset.root.resolve().name,
        "chosen_on": len(by_split["train"]),
        "images": len(test),
        "defective": sum(example.defective for example in test),
        "min_area_px": rule.min_area,
        "before": _figures(test, 1.0, rule.threshold, rule.min_area),
        "after": _figures(test, chosen, scaled, rule.min_area),
    }
    text = json.dumps(json_value(result), indent=2, allow_nan=False) + "\n"
    write_atomic(output, text.encode())
    for kind in ("before", "after"):
        row = dict(result[kind])  # type: ignore[call-overload]
        del row["deciding_scores"]
        click.echo(f"{kind}: {row}")


if __name__ == "__main__":
    sys.exit(run(temperature))
