"""Metrics of a labelled set: pixel counts of each image, and the ratios computed from them.

Every figure carries its formula, because the literature means several things by "IoU". Notation,
for one image at one threshold: A pixels predicted, B in the truth, I in both, U = A + B - I in
either.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any, Final, NamedTuple

import numpy as np

from tinyunet_deploy.contract import Mask, Score, score_threshold
from tinyunet_deploy.inspection.defects import Verdict
from tinyunet_deploy.quality.confidence import clopper_pearson_upper

__all__ = [
    "BOUNDS",
    "FORMULAS",
    "NOTATION",
    "REFERENCE_THRESHOLDS",
    "ImageCounts",
    "MetricSummary",
    "Pixels",
    "Ratios",
    "auroc",
    "count_image",
    "count_pixels",
    "mean_of",
    "summarize",
]

REFERENCE_THRESHOLDS: Final = (0.05, 0.125, 0.25, 0.5, 0.75, 0.85, 0.95, 0.99)
"""Thresholds at which NVIDIA reports the figure of U-Net Industrial."""

NOTATION: Final = (
    "of one image at one threshold: A pixels predicted, B in the truth, I in both, U = A + B - I"
)
FORMULAS: Final = {
    "iou_defective": "mean over defective images of I / U; 0 where U = 0",
    "iou_global": "sum of I over all images / sum of U over all images",
    "dice": "dice_reference at the operating threshold",
    "dice_nothing": "dice_reference of predicting nothing anywhere, A = I = 0",
    "dice_reference": "mean over all images of (2 I + 1e-5) / (A + B + 1e-5); 1 where A = B = 0",
    "escape_rate": "defective images with verdict OK / defective images",
    "overkill_rate": "defect-free images with verdict NG / defect-free images",
    "auroc": "probability that the max_score of a defective image is above that of a defect-free "
    "image, ties count half (Hanley & McNeil 1982)",
}
"""Ratio -> its formula, in the notation above. A ratio whose denominator is 0 is NaN."""

BOUNDS: Final = {
    "escape_rate_upper_95": "one-sided 95 % bound of escape_rate (Clopper & Pearson 1934)",
    "overkill_rate_upper_95": "one-sided 95 % bound of overkill_rate (Clopper & Pearson 1934)",
}
"""Name of a bound on a rate over all parts, of which the images are a sample -> its formula."""

_SMOOTH: Final = 1e-5
"""The constant in the Dice formula of NVIDIA's code."""


class Pixels(NamedTuple):
    """Pixel counts of one image at one threshold."""

    predicted: int
    """A: pixels above the threshold."""
    intersection: int
    """I: pixels above the threshold that are in the truth."""


@dataclass(frozen=True)
class ImageCounts:
    """Counts of one evaluated image."""

    name: str
    class_id: int | None
    defective: bool
    """True if the data set labels the part defective."""
    truth_px: int
    """B: defect pixels in the truth."""
    max_score: int
    """Largest score of the image, 0..255: the image's score for AUROC."""
    verdict: Verdict
    """Verdict at the operating threshold and min_area."""
    pixels: dict[float, Pixels]
    """Threshold -> counts, for the operating threshold and all of :data:`REFERENCE_THRESHOLDS`."""

    def union_px(self, threshold: float) -> int:
        """Return U: pixels in the prediction or the truth."""
        predicted, intersection = self.pixels[threshold]
        return predicted + self.truth_px - intersection

    def iou(self, threshold: float) -> float:
        """Return I / U; 0 where U = 0, so a defect whose truth is empty never counts as found."""
        return self.pixels[threshold].intersection / max(self.union_px(threshold), 1)

    def dice(self, threshold: float) -> float:
        """Return (2 I + 1e-5) / (A + B + 1e-5), NVIDIA's "IoU"; 1 where A = B = 0."""
        predicted, intersection = self.pixels[threshold]
        return (2 * intersection + _SMOOTH) / (predicted + self.truth_px + _SMOOTH)

    def dice_nothing(self) -> float:
        """Return the :meth:`dice` of an empty prediction."""
        return _SMOOTH / (self.truth_px + _SMOOTH)


@dataclass(frozen=True)
class Ratios:
    """Figures of a set of images, each in 0..1, by :data:`FORMULAS`.

    A ratio is NaN if the set has no image of the kind that it counts.
    """

    iou_defective: float
    """The main figure."""
    iou_global: float
    dice: float
    dice_nothing: float
    dice_reference: dict[float, float]
    """Threshold -> figure. Compare it with the published "IoU", and always show ``dice_nothing``
    beside it: most images have no defect, so predicting nothing scores 0.85 to 0.88."""
    escape_rate: float
    overkill_rate: float
    auroc: float


@dataclass(frozen=True)
class MetricSummary(Ratios):
    """Figures of a set of images and the counts behind them."""

    images: int
    defective: int
    escapes: int
    """Defective images with verdict OK."""
    overkills: int
    """Defect-free images with verdict NG."""
    intersection_px: int
    """Sum of I over all images at the operating threshold."""
    union_px: int
    """Sum of U over all images at the operating threshold."""

    @property
    def escape_rate_upper_95(self) -> float:
        """Upper bound of the escape rate with 95 % confidence."""
        return clopper_pearson_upper(self.escapes, self.defective)

    @property
    def overkill_rate_upper_95(self) -> float:
        """Upper bound of the overkill rate with 95 % confidence."""
        return clopper_pearson_upper(self.overkills, self.images - self.defective)

    def as_fields(self) -> dict[str, Any]:
        """Return plain values for JSON, including the bounds."""
        return {
            **asdict(self),
            "escape_rate_upper_95": self.escape_rate_upper_95,
            "overkill_rate_upper_95": self.overkill_rate_upper_95,
        }


def count_pixels(
    score: Score, truth: Mask, thresholds: Sequence[float]
) -> tuple[int, dict[float, Pixels]]:
    """Count pixels exactly at any number of thresholds, in one pass over the image.

    Args:
        score: uint8 [H, W].
        truth: [H, W], a defect where it is not 0.
        thresholds: probabilities in [0, 1]; a pixel is predicted where
            ``score > score_threshold(threshold)``.

    Returns:
        Number of defect pixels in the truth, and threshold -> counts.

    Raises:
        ValueError: score and truth differ in shape.
    """
    if score.shape != truth.shape:
        raise ValueError(f"score is {score.shape} but truth is {truth.shape}")
    in_truth = (truth != 0).astype(np.uint16)
    histogram = np.bincount(np.ravel(score + 256 * in_truth), minlength=512).reshape(2, 256)
    below = np.cumsum(histogram, axis=1)  # [outside or inside the truth, score]
    above = below[:, -1:] - below
    pixels = {}
    for threshold in thresholds:
        outside, inside = (int(count) for count in above[:, score_threshold(threshold)])
        pixels[threshold] = Pixels(predicted=outside + inside, intersection=inside)
    return int(below[1, -1]), pixels


def count_image(
    score: Score,
    truth: Mask,
    *,
    name: str,
    class_id: int | None,
    defective: bool,
    verdict: Verdict,
    threshold: float,
) -> ImageCounts:
    """Count one image at the operating threshold and at :data:`REFERENCE_THRESHOLDS`.

    Args:
        score, truth: as for :func:`count_pixels`.
        verdict: at the operating threshold and min_area.
        threshold: the operating threshold, probability in [0, 1].
    """
    truth_px, pixels = count_pixels(score, truth, (threshold, *REFERENCE_THRESHOLDS))
    return ImageCounts(name, class_id, defective, truth_px, int(score.max()), verdict, pixels)


def summarize(images: Sequence[ImageCounts], threshold: float) -> MetricSummary:
    """Compute the figures of a set of images at the operating threshold."""
    defective = [image for image in images if image.defective]
    good = [image for image in images if not image.defective]
    escapes = sum(image.verdict == "OK" for image in defective)
    overkills = sum(image.verdict == "NG" for image in good)
    intersection_px = sum(image.pixels[threshold].intersection for image in images)
    union_px = sum(image.union_px(threshold) for image in images)
    return MetricSummary(
        images=len(images),
        defective=len(defective),
        escapes=escapes,
        overkills=overkills,
        intersection_px=intersection_px,
        union_px=union_px,
        iou_defective=_mean([image.iou(threshold) for image in defective]),
        iou_global=_ratio(intersection_px, union_px),
        dice=_mean([image.dice(threshold) for image in images]),
        dice_nothing=_mean([image.dice_nothing() for image in images]),
        dice_reference={
            reference: _mean([image.dice(reference) for image in images])
            for reference in REFERENCE_THRESHOLDS
        },
        escape_rate=_ratio(escapes, len(defective)),
        overkill_rate=_ratio(overkills, len(good)),
        auroc=auroc([i.max_score for i in defective], [i.max_score for i in good]),
    )


def mean_of(classes: Sequence[Ratios]) -> Ratios:
    """Return the mean of each ratio over the classes in which it is defined."""

    def mean(ratio: Callable[[Ratios], float]) -> float:
        return _mean([ratio(figures) for figures in classes])

    return Ratios(
        iou_defective=mean(lambda figures: figures.iou_defective),
        iou_global=mean(lambda figures: figures.iou_global),
        dice=mean(lambda figures: figures.dice),
        dice_nothing=mean(lambda figures: figures.dice_nothing),
        dice_reference={
            threshold: _mean([figures.dice_reference[threshold] for figures in classes])
            for threshold in REFERENCE_THRESHOLDS
        },
        escape_rate=mean(lambda figures: figures.escape_rate),
        overkill_rate=mean(lambda figures: figures.overkill_rate),
        auroc=mean(lambda figures: figures.auroc),
    )


def auroc(defective: Sequence[int], good: Sequence[int]) -> float:
    """Compute the exact area under the ROC curve of image scores, as the Mann-Whitney statistic.

    It is the probability that a defective image scores above a defect-free one, ties counting half:
    Hanley & McNeil 1982, "The Meaning and Use of the Area under a ROC Curve".

    Args:
        defective: scores of the defective images, 0..255.
        good: scores of the defect-free images, 0..255.

    Returns:
        0..1; NaN if either kind is missing.
    """
    pairs = len(defective) * len(good)
    if not pairs:
        return math.nan
    defective_at = np.bincount(np.asarray(defective), minlength=256)
    good_at = np.bincount(np.asarray(good), minlength=256)
    good_below = np.cumsum(good_at) - good_at
    return float(defective_at @ (2 * good_below + good_at)) / (2 * pairs)


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else math.nan


def _mean(values: Sequence[float]) -> float:
    """Return the mean of the values that are not NaN; NaN if there are none."""
    defined = [value for value in values if not math.isnan(value)]
    return fmean(defined) if defined else math.nan
