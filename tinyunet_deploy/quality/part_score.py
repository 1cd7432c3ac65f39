"""Measure the one score of a part that decides its verdict, and the size of its largest defect."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from tinyunet_deploy.contract import Score, score_threshold

__all__ = [
    "AreaProfile",
    "PartScore",
    "area_profile",
    "deciding_score",
    "largest_region",
    "part_at",
    "score_part",
]

AreaProfile = NDArray[np.int32]
"""int32 [256]: area in pixels of the largest defect at each score threshold 0..255. It never grows
with the threshold."""


class PartScore(NamedTuple):
    """The two numbers that decide the verdict on a part."""

    name: str
    defective: bool
    """True if the part is defective; without truth, true if the reference rejects it."""
    deciding_score: int
    """0..255: the part is NG where ``deciding_score > score_threshold(threshold)``, at the
    ``min_area`` for which it was measured."""
    largest_px: int
    """Area of the largest defect, pixels: the part is NG where ``largest_px >= min_area``, at the
    threshold for which it was measured."""


def deciding_score(score: Score, min_area: int) -> int:
    """Return the largest s for which a connected region of ``min_area`` pixels scores s or more.

    A part is NG exactly where this is above ``score_threshold(threshold)``.

    Args:
        score: uint8 [H, W].
        min_area: smallest defect that makes a part NG, pixels, 1 or more.

    Returns:
        0..255; 0 if the part is good at every threshold.
    """
    below = np.cumsum(np.bincount(score.ravel(), minlength=256))
    # Regions of min_area pixels need as many pixels: no step from `high` on can reject the part.
    low, high = 0, int((score.size - below >= min_area).sum())
    middle = high - 1  # most parts are surely good or surely defective
    while low < high:
        if largest_region(score, middle) >= min_area:
            low = middle + 1
        else:
            high = middle
        middle = (low + high) // 2
    return low


def area_profile(score: Score) -> AreaProfile:
    """Measure the largest defect of one image at every threshold.

    Thresholds between two with the same area are not measured: regions only shrink as the threshold
    grows, so their area is the same.

    Args:
        score: uint8 [H, W].
    """
    profile = np.zeros(256, np.int32)
    highest = int(score.max())

    def fill(low: int, high: int) -> None:
        """Measure between two measured steps."""
        if high - low < 2:
            return
        if profile[low] == profile[high]:
            profile[low + 1 : high] = profile[low]
            return
        middle = (low + high) // 2
        profile[middle] = largest_region(score, middle)
        fill(low, middle)
        fill(middle, high)

    profile[0] = largest_region(score, 0)
    fill(0, highest)  # at `highest` and above there is no defect
    return profile


def score_part(
    score: Score, threshold: float, min_area: int, *, name: str, defective: bool
) -> PartScore:
    """Measure what decides the verdict on a part at a threshold and a min_area.

    Args:
        score: uint8 [H, W].
        threshold: probability in [0, 1].
        min_area: smallest defect that makes a part NG, pixels.
    """
    largest_px = largest_region(score, score_threshold(threshold))
    return PartScore(name, defective, deciding_score(score, min_area), largest_px)


def part_at(
    profile: AreaProfile, threshold: float, min_area: int, *, name: str, defective: bool
) -> PartScore:
    """Return what :func:`score_part` measures, from the profile of :func:`area_profile`."""
    deciding = int((profile >= min_area).sum())
    return PartScore(name, defective, deciding, int(profile[score_threshold(threshold)]))


def largest_region(score: Score, step: int) -> int:
    """Return the area in pixels of the largest 8-connected region of scores above a step.

    Args:
        score: uint8 [H, W].
        step: score, 0..255.

    Returns:
        0 if no score is above the step.
    """
    mask = (score > step).view(np.uint8)
    x, y, width, height = cv2.boundingRect(mask)
    if not width:
        return 0
    box = mask[y : y + height, x : x + width]
    _, _, stats, _ = cv2.connectedComponentsWithStats(box, connectivity=8)
    return int(stats[1:, cv2.CC_STAT_AREA].max())
