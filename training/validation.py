"""Choose threshold and min_area on images that were kept out of training."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch

from tinyunet_deploy.artifacts.network import DeployableGraph, Network
from tinyunet_deploy.contract import Contract, Image, Score
from tinyunet_deploy.data.tiles import Tiling, score_in_tiles
from tinyunet_deploy.quality.metrics import Pixels, count_pixels
from tinyunet_deploy.quality.threshold_sweep import largest_defects, sweep
from training.distributed import ALONE, Ranks
from training.sources import Example

__all__ = ["MIN_AREAS", "THRESHOLDS", "WORST", "OperatingPoint", "choose_operating_point"]

THRESHOLDS: Final = tuple(round(0.05 * step, 2) for step in range(1, 20))
MIN_AREAS: Final = (1, 8, 16, 32, 64, 128, 256)
"""Values of min_area that are tried, pixels."""
WORST: Final = 6
"""Largest number of validation images that are named as the worst."""


@dataclass(frozen=True)
class OperatingPoint:
    """The threshold and min_area of a checkpoint's sidecar, and their results in validation."""

    threshold: float = 0.5
    min_area: int = 1
    validation_images: int = 0
    validation_defective: int = 0
    """Number of defective images among ``validation_images``."""
    iou_defective: float | None = None
    escapes: int | None = None
    overkills: int | None = None
    worst: tuple[int, ...] = ()
    """Indices of the validation images with the largest mistakes, at most :data:`WORST`: escapes,
    then overkills, then the defective images with the lowest IoU."""

    @property
    def merit(self) -> tuple[int, float]:
        """Sort key, larger is better: fewest escapes first, then the highest iou_defective."""
        return -(self.escapes or 0), self.iou_defective or 0.0

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return dataclasses.asdict(self)


def choose_operating_point(
    network: Network, contract: Contract, examples: Sequence[Example], ranks: Ranks = ALONE
) -> OperatingPoint:
    """Choose the threshold with the best iou_defective, then the smallest min_area of least cost.

    Cost is 20 x escapes + overkills. It does not choose the threshold, as it does in ``tinyunet
    tune``: while a network is still learning, its outlines say more than a handful of mistakes.
    Without examples, it returns 0.5 and 1.

    Args:
        contract: size of the model; images of another size are padded or tiled as in inference.
        ranks: the processes that share the examples; they exchange their counts image by image, so
            that each makes the choice that a single process would make.
    """
    if not examples:
        return OperatingPoint()
    share = examples[ranks.share]
    graph = DeployableGraph(network)
    device = network.logit.weight.device

    def score(tile: Image) -> Score:
        batch = torch.from_numpy(np.ascontiguousarray(tile))[None, None].to(device)
        scores: Score = graph(batch)[0, 0].cpu().numpy()
        return scores

    tiling = Tiling(contract, network.facts.size_multiple, network.facts.reach)
    with torch.inference_mode():
        scores = [score_in_tiles(example.image, score, tiling) for example in share]
    counts = ranks.gather(
        [
            count_pixels(score, example.mask, THRESHOLDS)
            for score, example in zip(scores, share, strict=True)
        ]
    )
    defective = [example.item.defective for example in examples]
    in_defective = [image for image, has in zip(counts, defective, strict=True) if has]
    ious = [np.mean([_iou(*image, t) for image in in_defective] or [0.0]) for t in THRESHOLDS]
    threshold = THRESHOLDS[int(np.argmax(ious))]
    largest_px = ranks.gather([largest_defects(score, [threshold]) for score in scores])
    choice = sweep(largest_px, defective, [threshold], MIN_AREAS).cheapest()
    image_ious = [_iou(*image, threshold) for image in counts]
    rejected = [largest >= choice.min_area for (largest,) in largest_px]
    return OperatingPoint(
        threshold,
        choice.min_area,
        len(examples),
        sum(defective),
        float(max(ious)),
        choice.escapes,
        choice.overkills,
        _worst(image_ious, rejected, defective),
    )


def _worst(
    ious: Sequence[float], rejected: Sequence[bool], defective: Sequence[bool]
) -> tuple[int, ...]:
    """Return the indices of the images to look at first; good images that pass are not among them.

    Args:
        ious: [images], IoU of each.
        rejected: [images], whether the verdict is NG.
        defective: [images], whether the part is defective.
    """

    def place(index: int) -> tuple[int, float]:
        if defective[index] == rejected[index]:
            return 2, ious[index]
        return (0 if defective[index] else 1), ious[index]

    shown = [index for index in range(len(ious)) if defective[index] or rejected[index]]
    return tuple(sorted(shown, key=place)[:WORST])


def _iou(truth_px: int, pixels: Mapping[float, Pixels], threshold: float) -> float:
    intersection, predicted = pixels[threshold].intersection, pixels[threshold].predicted
    return intersection / max(truth_px + predicted - intersection, 1)
