"""Compare the answers of an int8 file with those of its float32 file on labelled images."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from export.calibration_images import Labelled
from tinyunet_deploy.artifacts.sidecar import Artifact
from tinyunet_deploy.backends.base import Backend
from tinyunet_deploy.backends.table import rows_for, why_not
from tinyunet_deploy.contract import Batch
from tinyunet_deploy.quality.comparison import ScoreComparison
from tinyunet_deploy.quality.parity_limits import FIGURES

__all__ = ["LabelledScores", "Likeness", "likeness", "runtimes", "score_with_float32", "worst"]


@dataclass(frozen=True)
class Likeness:
    """Comparison of a file's answers with those of its reference, on labelled images."""

    images: int
    iou_defective_reference: float
    """Mean IoU of the reference with the truth over the defective images; NaN without any."""
    iou_defective: float
    """Mean IoU of the file with the truth, over the same images."""
    figures: Mapping[str, float]
    """Figure -> value, named as in ``parity_limits.toml``."""

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {
            "images": self.images,
            "iou_defective_reference": self.iou_defective_reference,
            "iou_defective": self.iou_defective,
            **self.figures,
        }

    def __str__(self) -> str:
        return (
            f"iou_defective {self.iou_defective_reference:.4f} -> {self.iou_defective:.4f}, "
            f"masks overlap by {self.figures['agreement']:.4f}, "
            f"{self.figures['flips']} of {self.images} verdicts flipped"
        )


@dataclass(frozen=True)
class LabelledScores:
    """Labelled images and the scores that the float32 file gives them."""

    images: tuple[Labelled, ...]
    expected: Batch
    """uint8 [N, 1, H, W]."""

    def measure(self, candidate: Artifact, on: Sequence[type[Backend]]) -> Likeness:
        """Measure a file on several runtimes and return the worst of each figure."""
        sidecar = candidate.sidecar
        rows = []
        for runtime in on:
            given = _scores(runtime, candidate, self.images)
            rows.append(likeness(self, given, sidecar.threshold, sidecar.min_area))
        return worst(rows)


def score_with_float32(float32: Artifact, images: tuple[Labelled, ...]) -> LabelledScores:
    """Score labelled images with the float32 file on the fastest runtime."""
    return LabelledScores(images, _scores(runtimes()[0], float32, images))


def likeness(labelled: LabelledScores, given: Batch, threshold: float, min_area: int) -> Likeness:
    """Compare the scores of a file with those of float32, and both with the truth.

    Args:
        given: uint8 [N, 1, H, W], the file's scores.
        threshold: probability above which a pixel is a defect.
        min_area: smallest defect that makes a part NG, pixels.
    """
    comparison = ScoreComparison(threshold, min_area)
    for image, (expected,), (score,) in zip(labelled.images, labelled.expected, given, strict=True):
        comparison.add(score, expected, image.name, truth=image.truth, defective=image.defective)
    figures = comparison.figures
    return Likeness(
        comparison.images,
        _mean(comparison.reference_ious),
        _mean(comparison.ious),
        {name: figures[name] for name in FIGURES if name in figures},
    )


def worst(rows: Sequence[Likeness]) -> Likeness:
    """Return the worst value of each figure over several runtimes of one file."""
    sides = {"most": max, "least": min}
    return Likeness(
        rows[0].images,
        rows[0].iou_defective_reference,
        min(row.iou_defective for row in rows),
        {name: sides[FIGURES[name]](row.figures[name] for row in rows) for name in rows[0].figures},
    )


def runtimes() -> list[type[Backend]]:
    """Return the installed backends that run an ONNX file on the CPU, fastest first."""
    rows = rows_for("onnx", "cpu", unasked_only=True)
    return [row.load_class() for row in rows if why_not(row) is None]


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else math.nan


def _scores(runtime: type[Backend], artifact: Artifact, images: Sequence[Labelled]) -> Batch:
    """Score images one at a time, uint8 [N, 1, H, W]."""
    with runtime(artifact) as backend:
        return backend.score_alone(np.stack([image.image for image in images])[:, None])
