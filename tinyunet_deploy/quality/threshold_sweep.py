"""Try every pair of threshold and min_area on the same scores, and choose one.

A part is rejected (NG) if its largest defect has at least ``min_area`` pixels, so an image is
described by the size of that defect at each threshold.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from tinyunet_deploy.contract import Score, score_threshold
from tinyunet_deploy.quality.confidence import clopper_pearson_upper
from tinyunet_deploy.quality.part_score import largest_region

__all__ = [
    "ESCAPE_COST",
    "MIN_AREAS",
    "THRESHOLDS",
    "Counts",
    "Sweep",
    "SweepPoint",
    "largest_defects",
    "sweep",
]

MIN_AREAS: Final = (1, 2, 4, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024)
"""Values of min_area that are tried, pixels."""
THRESHOLDS: Final = (*(round(0.02 * step, 2) for step in range(1, 50)), 0.99)
"""Thresholds that are tried, as probabilities."""
ESCAPE_COST: Final = 20.0
"""Number of overkills that cost as much as one escape, as in the DAGM 2007 contest."""

Counts = NDArray[np.int64]
"""int64 [images, thresholds] or [thresholds, min_areas]."""


def largest_defects(score: Score, thresholds: Sequence[float]) -> list[int]:
    """Measure the largest defect of one image at each threshold.

    Args:
        score: uint8 [H, W].
        thresholds: probabilities in [0, 1].

    Returns:
        Area in pixels at each threshold; 0 where there is no defect.
    """
    return [largest_region(score, score_threshold(threshold)) for threshold in thresholds]


@dataclass(frozen=True)
class SweepPoint:
    """One pair of threshold and min_area, and its mistakes."""

    threshold: float
    min_area: int
    escapes: int
    """Defective parts that would pass."""
    overkills: int
    """Good parts that would be rejected."""


@dataclass(frozen=True)
class Sweep:
    """Mistakes of every pair of threshold and min_area on a set of images."""

    thresholds: tuple[float, ...]
    min_areas: tuple[int, ...]
    escapes: Counts
    """[thresholds, min_areas]: defective parts that would pass."""
    overkills: Counts
    """[thresholds, min_areas]: good parts that would be rejected."""
    defective: int
    """Number of defective images."""
    good: int
    """Number of good images."""

    def at(self, threshold: int, min_area: int) -> SweepPoint:
        """Return the pair at these indices of ``thresholds`` and ``min_areas``."""
        return SweepPoint(
            self.thresholds[threshold],
            self.min_areas[min_area],
            int(self.escapes[threshold, min_area]),
            int(self.overkills[threshold, min_area]),
        )

    def cheapest(self, escape_cost: float = ESCAPE_COST) -> SweepPoint:
        """Choose the pair with the least ``escape_cost x escapes + overkills``.

        Among pairs of equal cost, those with the fewest escapes remain, and of these the one in the
        middle is taken: the one that is furthest, in steps of the sweep, from a pair that does
        worse; then the smallest min_area, then the median threshold.
        """
        cost = escape_cost * self.escapes + self.overkills
        best = cost == cost.min()
        return self._middle(best & (self.escapes == self.escapes[best].min()))

    def within(self, escape_rate: float, confidence: float = 0.95) -> SweepPoint | None:
        """Choose the pair with the fewest overkills among those that keep a target escape rate.

        Among equal pairs, the one in the middle is taken, as in :meth:`cheapest`.

        Args:
            escape_rate: the target: with ``confidence`` the escape rate is at most this, by
                :func:`~tinyunet_deploy.quality.confidence.clopper_pearson_upper`.

        Returns:
            None if no pair keeps the target.
        """
        allowed = [
            count
            for count in range(self.defective + 1)
            if clopper_pearson_upper(count, self.defective, confidence) <= escape_rate
        ]
        if not allowed or self.escapes.min() > allowed[-1]:
            return None
        keeps = self.escapes <= allowed[-1]
        return self._middle(keeps & (self.overkills == self.overkills[keeps].min()))

    def best_for_each_escape_count(self) -> list[SweepPoint]:
        """Return the curve of escapes against overkills.

        It has the fewest overkills for each number of escapes, where more escapes save overkills.
        """
        curve: list[SweepPoint] = []
        for escapes in np.unique(self.escapes):
            same_escapes = self.escapes == escapes
            fewest = self.overkills[same_escapes].min()
            if not curve or fewest < curve[-1].overkills:
                curve.append(self._middle(same_escapes & (self.overkills == fewest)))
        return curve

    def _middle(self, equals: NDArray[np.bool_]) -> SweepPoint:
        """Return the pair that is furthest from the edge of a region [thresholds, min_areas]."""
        framed = np.pad(equals.astype(np.uint8), 1)
        depth = cv2.distanceTransform(framed, cv2.DIST_C, 3)[1:-1, 1:-1]
        deepest = np.asarray(depth) == np.max(depth)
        min_area = int(deepest.any(axis=0).argmax())
        (thresholds,) = deepest[:, min_area].nonzero()
        return self.at(int(thresholds[len(thresholds) // 2]), min_area)


def sweep(
    largest_px: Sequence[Sequence[int]] | Counts,
    defective: Sequence[bool],
    thresholds: Sequence[float] = THRESHOLDS,
    min_areas: Sequence[int] = MIN_AREAS,
) -> Sweep:
    """Count the mistakes of every pair of threshold and min_area.

    Args:
        largest_px: [images, thresholds], area of the largest defect, pixels.
        defective: [images], whether the part is defective.
    """
    sizes = np.asarray(largest_px).reshape(len(defective), len(thresholds))
    is_defective = np.asarray(defective, np.bool_)
    rejected = sizes[:, :, None] >= np.asarray(min_areas)
    return Sweep(
        thresholds=tuple(thresholds),
        min_areas=tuple(min_areas),
        escapes=(~rejected[is_defective]).sum(axis=0),
        overkills=rejected[~is_defective].sum(axis=0),
        defective=int(is_defective.sum()),
        good=int((~is_defective).sum()),
    )
