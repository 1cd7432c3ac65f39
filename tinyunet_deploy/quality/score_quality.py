"""Score quality: whether a score of 0.7 is right seven times in ten, and how many are graded.

A model whose scores are all 0 or 255 separates parts well and says nothing about its doubts: its
threshold cannot be used as a control.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tinyunet_deploy.contract import Mask, Score
from tinyunet_deploy.quality.part_score import PartScore

__all__ = [
    "GRADED",
    "Reliability",
    "ReliabilityBin",
    "ScoreCounts",
    "ScoreQuality",
    "score_counts",
]

GRADED: Final = (5, 250)
"""Scores between which a part counts as graded, both included."""
_BINS: Final = 10
"""Bins of equal width of a reliability curve, as usual since Naeini et al. 2015."""

ScoreCounts = NDArray[np.int64]
"""int64 [2, 256]: number of pixels or parts by truth (0 good, 1 defective) and score."""


def score_counts(score: Score, truth: Mask) -> ScoreCounts:
    """Count the pixels of one image by truth and score.

    Args:
        score: uint8 [H, W].
        truth: [H, W], a defect where it is not 0.
    """
    index = score + 256 * (truth != 0).astype(np.uint16)
    return np.bincount(index.ravel(), minlength=512).reshape(2, 256)


class ReliabilityBin(NamedTuple):
    """Scores of one range of probability."""

    total: int
    mean_probability: float
    """Mean score / 255."""
    defective: float
    """Share of defective pixels or parts."""


@dataclass(frozen=True)
class Reliability:
    """Reliability curve: how often the scores of each range are right."""

    bins: tuple[ReliabilityBin, ...]
    """Ten bins of equal width that cover 0..1, without the empty ones."""

    @classmethod
    def of(cls, counts: ScoreCounts) -> Reliability:
        """Return the curve of counted scores."""
        score = np.arange(256)
        number = np.minimum(score * _BINS // 255, _BINS - 1)
        total = counts.sum(axis=0)
        bins = []
        for index in range(_BINS):
            within = number == index
            count = int(total[within].sum())
            if count:
                mean = float((total * score)[within].sum() / count / 255)
                bins.append(ReliabilityBin(count, mean, float(counts[1, within].sum() / count)))
        return cls(tuple(bins))

    @property
    def expected_calibration_error(self) -> float:
        """Mean distance between probability and share of defective, weighted by count; 0..1.

        It is NaN without counts (Naeini et al. 2015, "Obtaining Well Calibrated Probabilities
        Using Bayesian Binning").
        """
        total = sum(row.total for row in self.bins)
        apart = sum(row.total * abs(row.mean_probability - row.defective) for row in self.bins)
        return apart / total if total else math.nan

    def as_fields(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {
            "expected_calibration_error": self.expected_calibration_error,
            "bins": [row._asdict() for row in self.bins],
        }


@dataclass(frozen=True)
class ScoreQuality:
    """Calibration of the scores of a labelled set, by part and by pixel."""

    parts: Reliability
    """Curve of the parts by the score that decides their verdict."""
    pixels: Reliability
    graded_parts: int
    """Number of parts whose deciding score lies within :data:`GRADED`."""
    images: int

    @classmethod
    def of(cls, parts: Sequence[PartScore], pixels: ScoreCounts) -> ScoreQuality:
        """Return the score quality of measured parts and their counted pixels."""
        counts = np.zeros((2, 256), np.int64)
        for part in parts:
            counts[int(part.defective), part.deciding_score] += 1
        graded = int(counts[:, GRADED[0] : GRADED[1] + 1].sum())
        return cls(Reliability.of(counts), Reliability.of(pixels), graded, len(parts))

    def as_fields(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {
            "graded_from_score": GRADED[0],
            "graded_to_score": GRADED[1],
            "graded_parts": self.graded_parts,
            "graded_share": self.graded_parts / self.images if self.images else math.nan,
            "parts": self.parts.as_fields(),
            "pixels": self.pixels.as_fields(),
        }
