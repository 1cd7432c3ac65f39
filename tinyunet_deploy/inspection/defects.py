"""Find the defects in a score, match them with the truth, and decide the verdict on a part."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from tinyunet_deploy.contract import Mask, Score, defect_mask, score_threshold

__all__ = [
    "MATCHING",
    "SIZES_PX",
    "Defect",
    "Findings",
    "SizeRecall",
    "TrueDefect",
    "Verdict",
    "compare_with_truth",
    "find_defects",
    "recall_by_size",
    "verdict",
]

Verdict = Literal["OK", "NG"]
"""OK: the part passes. NG, "not good": it has a defect."""

SIZES_PX: Final = (1, 64, 256, 1024, 4096, 16384)
"""Lower edges of the size classes for recall, pixels; the last class has no upper edge."""

MATCHING: Final = (
    "defects are 8-connected; one in the truth is hit if it shares a pixel with a defect that was "
    "found (of min_area at least), else missed; one that was found is false if it shares no pixel "
    "with the truth"
)


@dataclass(frozen=True)
class Defect:
    """One 8-connected region of pixels whose score is above the threshold."""

    bbox: tuple[int, int, int, int]
    """Bounding box: x, y, width, height, pixels; x counts columns from the left, y rows from the
    top."""
    area_px: int
    """Area, pixels."""
    max_score: int
    """Largest score of its pixels, 0..255."""
    mean_score: float
    """Mean score of its pixels, 0..255."""
    contour: tuple[tuple[int, int], ...] | None = None
    """Corners x, y of its outer boundary, which are pixels of the defect; None if not traced."""

    def as_fields(self, mm_per_px: float | None = None) -> dict[str, Any]:
        """Return plain values for JSON, with ``area_mm2`` if the size of a pixel is given."""
        fields = asdict(self)
        if self.contour is None:
            del fields["contour"]
        if mm_per_px is not None:
            fields["area_mm2"] = self.area_px * mm_per_px**2
        return fields


@dataclass(frozen=True)
class TrueDefect:
    """One 8-connected region of the truth, and whether it was detected."""

    bbox: tuple[int, int, int, int]
    """Bounding box: x, y, width, height, pixels."""
    area_px: int
    max_score: int
    """Largest score of its pixels, 0..255. A threshold below it would detect a missed defect."""
    hit: bool
    """True if the region shares a pixel with a detected defect."""


@dataclass(frozen=True)
class Findings:
    """Detected and true defects of one image, matched by the rule :data:`MATCHING`."""

    detected: list[Defect]
    """Detected defects, the largest first."""
    false: list[Defect]
    """Detected defects that share no pixel with the truth."""
    truth: list[TrueDefect]
    """Defects of the truth, the largest first."""

    @property
    def missed(self) -> list[TrueDefect]:
        """Defects of the truth that were not detected."""
        return [defect for defect in self.truth if not defect.hit]


class _Regions(NamedTuple):
    labels: NDArray[np.int32]
    """[H, W]: number of the region of each pixel, 0 for the background."""
    stats: NDArray[np.int32]
    """[region, 5]: x, y, width, height, area; row 0 is the background."""
    max_scores: NDArray[np.uint8]
    mean_scores: NDArray[np.float64]

    @classmethod
    def of(cls, mask: Mask, score: Score) -> _Regions:
        """Label a mask; only the box around all regions is searched, as defects are few and
        small."""
        x, y, width, height = cv2.boundingRect(mask)
        box = slice(y, y + height), slice(x, x + width)
        labels = np.zeros(mask.shape, np.int32)
        stats = np.zeros((1, 5), np.int32)
        if width:
            _, inner, inner_stats, _ = cv2.connectedComponentsWithStats(mask[box], connectivity=8)
            labels[box], stats = inner, np.asarray(inner_stats, np.int32)
            stats[:, [cv2.CC_STAT_LEFT, cv2.CC_STAT_TOP]] += (x, y)
        count = len(stats)
        inside = mask[box].astype(np.bool_)
        label_of_pixel, score_of_pixel = labels[box][inside], score[box][inside]
        sums = np.bincount(label_of_pixel, weights=score_of_pixel, minlength=count)
        max_scores = np.zeros(count, np.uint8)
        np.maximum.at(max_scores, label_of_pixel, score_of_pixel)
        areas = np.maximum(stats[:, cv2.CC_STAT_AREA], 1)
        return cls(labels, stats, max_scores, sums / areas)

    def bbox(self, label: int) -> tuple[int, int, int, int]:
        x, y, width, height, _ = (int(value) for value in self.stats[label])
        return x, y, width, height

    def area_px(self, label: int) -> int:
        return int(self.stats[label, cv2.CC_STAT_AREA])

    def contour(self, label: int) -> tuple[tuple[int, int], ...]:
        x, y, width, height = self.bbox(label)
        region = self.labels[y : y + height, x : x + width] == label
        outlines, _ = cv2.findContours(
            region.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE, offset=(x, y)
        )
        return tuple((int(x), int(y)) for x, y in outlines[0][:, 0])

    def defects(self, min_area: int, contours: bool = False) -> dict[int, Defect]:
        """Return label -> defect, the largest first."""
        defects = {
            label: Defect(
                bbox=self.bbox(label),
                area_px=self.area_px(label),
                max_score=int(self.max_scores[label]),
                mean_score=float(self.mean_scores[label]),
                contour=self.contour(label) if contours else None,
            )
            for label in range(1, len(self.stats))
            if self.area_px(label) >= min_area
        }
        return dict(sorted(defects.items(), key=lambda item: _place(item[1])))


def _place(defect: Defect | TrueDefect) -> tuple[int, ...]:
    x, y, width, height = defect.bbox
    return -defect.area_px, y, x, width, height


def find_defects(
    score: Score, threshold: float, min_area: int, *, contours: bool = False
) -> list[Defect]:
    """Find the defects of one image, the largest first.

    Args:
        score: uint8 [H, W].
        threshold: probability in [0, 1]; a pixel is a defect where
            ``score > score_threshold(threshold)``.
        min_area: smallest region that counts as a defect, pixels.
        contours: also trace the outlines.

    Returns:
        Defects sorted by area, then by the top left corner, so that the order is always the same.
    """
    if score.max() <= score_threshold(threshold):
        return []
    regions = _Regions.of(defect_mask(score, threshold), score)
    return list(regions.defects(min_area, contours).values())


def compare_with_truth(score: Score, truth: Mask, threshold: float, min_area: int) -> Findings:
    """Find the defects of one image and match them with those of its truth.

    Args:
        score: uint8 [H, W].
        truth: uint8 [H, W], {0, 255}.
        threshold, min_area: as for :func:`find_defects`.
    """
    ours, theirs = _Regions.of(defect_mask(score, threshold), score), _Regions.of(truth, score)
    detected = ours.defects(min_area)
    counts = np.zeros(len(ours.stats), np.bool_)
    counts[list(detected)] = True
    shared = counts[ours.labels] & (truth != 0)
    right, hit = (set(np.unique(regions.labels[shared]).tolist()) for regions in (ours, theirs))
    true_defects = [
        TrueDefect(
            theirs.bbox(label),
            theirs.area_px(label),
            int(theirs.max_scores[label]),
            hit=label in hit,
        )
        for label in range(1, len(theirs.stats))
    ]
    return Findings(
        detected=list(detected.values()),
        false=[defect for label, defect in detected.items() if label not in right],
        truth=sorted(true_defects, key=_place),
    )


class SizeRecall(NamedTuple):
    """Detected and all true defects of one size class."""

    from_px: int
    """Lower edge of the area, pixels."""
    below_px: int | None
    """Upper edge of the area, pixels; None for the last class, which has none."""
    truth: int
    """Number of true defects."""
    hit: int
    """Number of true defects that were detected."""


def recall_by_size(defects: Sequence[TrueDefect]) -> list[SizeRecall]:
    """Count the hits among true defects for each of :data:`SIZES_PX`."""
    rows = []
    for lower, upper in zip(SIZES_PX, (*SIZES_PX[1:], None), strict=True):
        of_size = [d for d in defects if lower <= d.area_px < (upper or math.inf)]
        rows.append(SizeRecall(lower, upper, len(of_size), sum(d.hit for d in of_size)))
    return rows


def verdict(defects: Sequence[Defect]) -> Verdict:
    """Return NG if there is any defect, else OK."""
    return "NG" if defects else "OK"
