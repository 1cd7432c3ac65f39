"""Compare the scores of one artifact with those of its reference, image by image."""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass, field
from statistics import fmean
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tinyunet_deploy.artifacts.sidecar import Decision
from tinyunet_deploy.contract import Batch, Mask, Score, defect_mask, score_threshold
from tinyunet_deploy.inspection.defects import Verdict, find_defects, verdict

__all__ = ["NEAR_STEPS", "WORST", "ScoreComparison", "VerdictFlip", "WorstImage", "step_difference"]

NEAR_STEPS: Final = 8
"""A pixel is near the threshold if the reference's score is at most this many steps from it."""
WORST: Final = 3
"""Number of images whose scores a comparison keeps: the ones that differ most."""

_SAMPLES: Final = 10_000
"""Samples of the bootstrap, which leave its ends uncertain by a hundredth of their distance."""


class VerdictFlip(NamedTuple):
    """An image whose verdict differs from the reference's."""

    name: str
    defective: bool
    """True if the part is defective: by the truth, or by the reference if there is no truth."""
    reference: Verdict
    verdict: Verdict


class WorstImage(NamedTuple):
    """One of the images that differ most from the reference."""

    flipped_px: int
    """Number of pixels whose mask differs from the reference's."""
    difference: int
    """Sum of the score differences over all pixels, steps of 1/255."""
    image_index: int
    """Number of the image in the order in which images were added, from 0."""
    score: Score
    """uint8 [H, W], the artifact's."""


@dataclass
class ScoreComparison:
    """Differences between an artifact's scores and the reference's, summed over images."""

    threshold: float
    """Probability above which a pixel is a defect, for the reference."""
    min_area: int
    """Smallest defect that makes a part NG, pixels, for the reference."""
    own: Decision | None = None
    """Threshold and min_area of the artifact; None takes those of the reference."""
    images: int = 0
    """Number of images added so far."""
    histogram: NDArray[np.int64] = field(default_factory=lambda: np.zeros(256, np.int64))
    """int64 [256]: absolute difference of a score, steps -> number of pixels."""
    flipped_near: int = 0
    """Number of pixels whose mask differs and whose score is within ``NEAR_STEPS`` of the
    threshold."""
    flipped_far: int = 0
    """Number of pixels whose mask differs and whose score is further from the threshold."""
    intersection_px: int = 0
    """Number of pixels that are defects in both masks, over all images."""
    union_px: int = 0
    """Number of pixels that are defects in either mask, over all images."""
    least_agreement: float = 1.0
    """IoU of the two masks on the image where it is lowest."""
    flips: list[VerdictFlip] = field(default_factory=list)
    ious: list[float] = field(default_factory=list)
    """IoU of the artifact's mask with the truth, for each defective image that has a truth."""
    reference_ious: list[float] = field(default_factory=list)
    """IoU of the reference's mask with the truth, for the same images."""
    worst: list[WorstImage] = field(default_factory=list)
    """A heap of up to ``WORST`` images; sort it in reverse for the worst first."""

    def add(
        self,
        score: Score,
        expected: Score,
        name: str,
        *,
        truth: Mask | None = None,
        defective: bool | None = None,
    ) -> None:
        """Add one image.

        Args:
            score: uint8 [H, W], the artifact's.
            expected: uint8 [H, W], the reference's.
            name: name of the image, for flipped verdicts.
            truth: [H, W], a defect where it is not 0; None if it is unknown.
            defective: whether the part is defective; None if it is unknown.
        """
        threshold, min_area = self.own or (self.threshold, self.min_area)
        mask, wanted = (
            defect_mask(score, threshold) != 0,
            defect_mask(expected, self.threshold) != 0,
        )
        flipped = mask != wanted
        distance = np.abs(expected.astype(np.int16) - score_threshold(self.threshold))
        near = distance <= NEAR_STEPS
        difference = step_difference(score, expected)
        intersection, union = int((mask & wanted).sum()), int((mask | wanted).sum())
        self.histogram += np.bincount(difference.ravel(), minlength=256)
        self.flipped_near += int((flipped & near).sum())
        self.flipped_far += int((flipped & ~near).sum())
        self.intersection_px += intersection
        self.union_px += union
        if union:
            self.least_agreement = min(self.least_agreement, intersection / union)
        wanted_verdict = verdict(find_defects(expected, self.threshold, self.min_area))
        given_verdict = verdict(find_defects(score, threshold, min_area))
        if defective is None:
            defective = wanted_verdict == "NG"
        if given_verdict != wanted_verdict:
            self.flips.append(VerdictFlip(name, defective, wanted_verdict, given_verdict))
        if truth is not None and defective:
            self.reference_ious.append(_iou(wanted, truth))
            self.ious.append(_iou(mask, truth))
        if difference.any():
            worst = WorstImage(int(flipped.sum()), int(difference.sum()), self.images, score)
            heapq.heappush(self.worst, worst)
            if len(self.worst) > WORST:
                heapq.heappop(self.worst)
        self.images += 1

    @property
    def figures(self) -> dict[str, float]:
        """Figures by their names in ``parity_limits.toml``; NaN where one is undefined.

        ``p999_steps`` is the smallest difference that at least 99.9 % of the pixels keep.
        ``new_alarms`` counts good parts that became NG, minus those that became OK;
        ``lost_defective`` counts defective parts that became OK.
        """
        pixels = np.cumsum(self.histogram)
        alarms = [flip for flip in self.flips if not flip.defective]
        drop = math.nan
        if self.ious:
            drop = fmean(self.reference_ious) - fmean(self.ious)
        return {
            "largest_steps": int(self.histogram.nonzero()[0].max(initial=0)),
            "p999_steps": int(np.searchsorted(pixels, 0.999 * pixels[-1])),
            "agreement": self.intersection_px / self.union_px if self.union_px else 1.0,
            "flips": len(self.flips),
            "flips_defective": sum(flip.defective for flip in self.flips),
            "lost_defective": sum(flip.defective and flip.verdict == "OK" for flip in self.flips),
            "new_alarms": sum(1 if flip.verdict == "NG" else -1 for flip in alarms),
            "iou_drop": drop,
        }

    @property
    def iou_drop_interval(self) -> tuple[float, float] | None:
        """95 % interval of ``iou_drop`` over images like these; None with fewer than two images.

        A percentile bootstrap over the pairs of IoUs (Efron & Tibshirani 1993), always with the
        same 10,000 samples.
        """
        if len(self.ious) < 2:
            return None
        drops = np.subtract(self.reference_ious, self.ious)
        drawn = np.random.default_rng(0).integers(0, len(drops), (_SAMPLES, len(drops)))
        low, high = np.percentile(drops[drawn].mean(axis=1), (2.5, 97.5))
        return float(low), float(high)


def step_difference(score: Batch | Score, expected: Batch | Score) -> NDArray[np.int16]:
    """Return the absolute difference of two uint8 arrays of scores, in steps of 1/255."""
    return np.abs(score.astype(np.int16) - expected.astype(np.int16))


def _iou(mask: NDArray[np.bool_], truth: Mask) -> float:
    inside = truth != 0
    return float((mask & inside).sum() / max((mask | inside).sum(), 1))
