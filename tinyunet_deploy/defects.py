"""From a score image to defects, and from defects to the verdict on a part."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np

from tinyunet_deploy.contract import Score, defect_mask, score_threshold

Verdict = Literal["OK", "NG"]
"""OK: the part passes. NG, "not good": it has a defect."""


@dataclass(frozen=True)
class Defect:
    """One 8-connected region of pixels whose score is above the threshold."""

    bbox: tuple[int, int, int, int]
    """x, y, width, height, pixels; x counts columns from the left, y rows from the top."""
    area_px: int
    """Number of its pixels."""
    max_score: int
    """Largest score of its pixels, of 255."""
    mean_score: float
    """Mean score of its pixels, of 255."""


def find_defects(score: Score, threshold: float, min_area: int) -> list[Defect]:
    """The defects of one image, the largest first.

    Args:
        score: uint8 [H, W].
        threshold: probability in [0, 1]; a pixel is a defect where
            ``score > score_threshold(threshold)``.
        min_area: smaller regions are no defects, pixels.

    Returns:
        Sorted by area, then by the top left corner: the same list for the same score, always.
    """
    if score.max() <= score_threshold(threshold):
        return []
    mask = defect_mask(score, threshold)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    inside = mask.astype(np.bool_)
    label_of_pixel, score_of_pixel = np.asarray(labels, np.int32)[inside], score[inside]
    score_sums = np.bincount(label_of_pixel, weights=score_of_pixel, minlength=count)
    max_scores = np.zeros(count, np.uint8)
    np.maximum.at(max_scores, label_of_pixel, score_of_pixel)

    defects = []
    for label in range(1, count):
        x, y, width, height, area = (int(value) for value in stats[label])
        if area >= min_area:
            defects.append(
                Defect(
                    bbox=(x, y, width, height),
                    area_px=area,
                    max_score=int(max_scores[label]),
                    mean_score=float(score_sums[label]) / area,
                )
            )
    return sorted(defects, key=lambda d: (-d.area_px, d.bbox[1], d.bbox[0], d.bbox[2:]))


def verdict(defects: Sequence[Defect]) -> Verdict:
    """NG if there is any defect, else OK."""
    return "NG" if defects else "OK"
