"""Choose threshold and min_area on images that were kept out of training."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from tinyunet_deploy.artifacts.network import DeployableGraph, Network
from tinyunet_deploy.contract import Contract, Image, Score
from tinyunet_deploy.data.tiles import Tiling, score_in_tiles
from tinyunet_deploy.quality.metrics import Pixels, count_pixels
from tinyunet_deploy.quality.threshold_sweep import largest_defects, sweep
from training.distributed import ALONE, Ranks
from training.sources import Example

__all__ = [
    "ESCAPE_WEIGHT",
    "MIN_AREAS",
    "THRESHOLDS",
    "WORST",
    "OperatingPoint",
    "choose_operating_point",
]

THRESHOLDS: Final = (*(round(0.05 * step, 2) for step in range(1, 20)), 0.99)
Rate = TypeVar("Rate", float, NDArray[np.float64])
ESCAPE_WEIGHT: Final = 3.0
"""Overkill rate that costs as much as an escape rate of 1: the 20 : 1 of the DAGM 2007 contest, in
whose data a class has 150 defective images and 1000 good ones."""
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
    def merit(self) -> float:
        """Figure that the best step has highest: iou_defective minus the cost of wrong verdicts.

        The cost is 0..1: the mean of escape rate and overkill rate, in which the former counts
        :data:`ESCAPE_WEIGHT` times. Escapes alone would prefer a network that rejects every part,
        so they do not count without good images, on which its overkill would show.
        """
        defective = self.validation_defective
        good = self.validation_images - defective
        escapes, overkills = self.escapes or 0, self.overkills or 0
        cost = _cost(escapes / defective if good and defective else 0.0, overkills / max(good, 1))
        return (self.iou_defective or 0.0) - cost

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return dataclasses.asdict(self)


def choose_operating_point(
    network: Network, contract: Contract, examples: Sequence[Example], ranks: Ranks = ALONE
) -> OperatingPoint:
    """Choose threshold and min_area by :attr:`OperatingPoint.merit`.

    Unlike the cost of ``tinyunet tune``, the merit weighs rates: counted in images, one escape
    would outweigh all good images of a small set, so that the choice would be to reject every part.
    And it weighs outlines, too: while a network is still learning, these say more than a handful of
    mistakes. Without examples, the function returns 0.5 and 1.

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
    largest_px = ranks.gather([largest_defects(score, THRESHOLDS) for score in scores])
    mistakes = sweep(largest_px, defective, THRESHOLDS, MIN_AREAS)
    weighed = float(mistakes.good > 0)
    escape_rate = weighed * mistakes.escapes / max(mistakes.defective, 1)
    merit = np.array(ious)[:, None] - _cost(escape_rate, mistakes.overkills / max(mistakes.good, 1))
    best = int(merit.max(axis=1).argmax())
    threshold = THRESHOLDS[best]
    choice = sweep(
        [[sizes[best]] for sizes in largest_px], defective, [threshold], MIN_AREAS
    ).cheapest(ESCAPE_WEIGHT * max(mistakes.good, 1) / max(mistakes.defective, 1))
    image_ious = [_iou(*image, threshold) for image in counts]
    rejected = [sizes[best] >= choice.min_area for sizes in largest_px]
    return OperatingPoint(
        threshold,
        choice.min_area,
        len(examples),
        sum(defective),
        float(ious[best]),
        choice.escapes,
        choice.overkills,
        _worst(image_ious, rejected, defective),
    )


def _cost(escape_rate: Rate, overkill_rate: Rate) -> Rate:
    """Return the mean of both rates, weighted, 0..1."""
    return (ESCAPE_WEIGHT * escape_rate + overkill_rate) / (ESCAPE_WEIGHT + 1.0)


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
