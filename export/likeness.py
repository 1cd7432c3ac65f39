"""Holding a file that is about to be written against the network it was made from."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from tinyunet_deploy.artifacts.sidecar import Artifact
from tinyunet_deploy.backends.base import Backend
from tinyunet_deploy.backends.onnxruntime import ONNXRuntimeBackend
from tinyunet_deploy.backends.registry import load
from tinyunet_deploy.backends.table import rows_for, why_not
from tinyunet_deploy.contract import Batch, Contract, Image, Mask
from tinyunet_deploy.data import synthetic
from tinyunet_deploy.data.decoding import IMAGE_SUFFIXES, read_image
from tinyunet_deploy.errors import DataError, GateFailed
from tinyunet_deploy.quality.batch_check import check_batches
from tinyunet_deploy.quality.comparison import ScoreComparison
from tinyunet_deploy.quality.parity_limits import FIGURES, read_limits

IMAGES: Final = 10


MAX_ACTIVATION: Final = 65504.0 / 2
"""Largest accepted activation of an fp16 file: half of half precision's largest number, to leave
room for images that were not seen here. A CPU runs these files in float32 and shows no overflow."""


@dataclass(frozen=True)
class Likeness:
    """How a file answers beside its reference on labelled images."""

    images: int
    iou_defective_reference: float
    """Against truth, of the reference."""
    iou_defective: float
    """Against truth, of the file."""
    figures: Mapping[str, float]
    """Figure -> value, named as in ``parity_limits.toml``."""

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "images": self.images,
            "iou_defective_reference": self.iou_defective_reference,
            "iou_defective": self.iou_defective,
            **self.figures,
        }


def comparison_images(contract: Contract, folder: Path | None) -> list[Image]:
    """Up to ten images of a folder, or one synthetic image of each class.

    Raises:
        DataError: the folder holds no image of the contract's size.
    """
    if folder is None:
        side = max(64, contract.height, contract.width)
        crops = [
            synthetic.sample(class_id, 1, defective=True, size=side).image
            for class_id in synthetic.CLASSES
        ]
        return [crop[: contract.height, : contract.width] for crop in crops]
    paths = sorted(p for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES)
    images = [image for image in map(read_image, paths[:IMAGES]) if image.shape == _size(contract)]
    if not images:
        raise DataError(folder, f"holds no image of {contract.width}x{contract.height} pixels")
    return images


def checkpoint_scores(checkpoint: Artifact, images: Sequence[Image]) -> Batch:
    """Scores of the checkpoint in PyTorch, uint8 [N, 1, H, W], of images of any one size."""
    height, width = images[0].shape
    with load(checkpoint, "torch", "cpu", size=(height, width)) as backend:
        return scores(backend, images)


def compare(wanted: Batch, exported: Artifact, images: Sequence[Image]) -> dict[str, float]:
    """Hold a file against the scores of its checkpoint.

    Args:
        wanted: uint8 [N, 1, H, W].

    Returns:
        The number of images, and the figures.

    Raises:
        GateFailed: over a limit of ``parity_limits.toml``. Those of int8 are for labelled images:
            an IoU budget holds the file against them.
    """
    backend = ONNXRuntimeBackend(exported)
    truths = [(None, None)] * len(images)
    found = _compared(wanted, scores(backend, images), exported, truths)
    batch_steps = check_batches(backend, images[:3], 3).worst_steps
    figures = {**found.figures, "batch_steps": batch_steps}
    for limit, value, holds in read_limits().check(figures, exported.sidecar.precision):
        if not holds and exported.sidecar.precision != "int8":
            raise GateFailed(
                exported.path,
                f"{limit.figure} beside the checkpoint is {value:.6g}, {limit} wanted",
                "nothing was written",
            )
    return {"images": len(images), **_defined(figures)}


def likeness(
    reference: Batch, given: Batch, artifact: Artifact, truths: Sequence[tuple[Mask, bool]]
) -> Likeness:
    """Compare the scores of an artifact with the reference's, and both with the truth.

    Args:
        reference, given: uint8 [N, 1, H, W].
        truths: defect pixels, and whether the part is defective.
    """
    found = _compared(reference, given, artifact, truths)
    figures = {name: found.figures[name] for name in FIGURES if name in found.figures}
    ious = [float(np.mean(x)) if x else math.nan for x in (found.reference_ious, found.ious)]
    return Likeness(found.images, *ious, figures)


def worst(rows: Sequence[Likeness]) -> Likeness:
    """The worst of each figure, of one file on several runtimes."""
    sides = {"most": max, "least": min}
    return Likeness(
        rows[0].images,
        rows[0].iou_defective_reference,
        min(row.iou_defective for row in rows),
        {name: sides[FIGURES[name]](row.figures[name] for row in rows) for name in rows[0].figures},
    )


def runtimes() -> list[type[Backend]]:
    """Return the installed backends that run an ONNX file on the CPU, the fastest first."""
    rows = rows_for("onnx", "cpu", unasked_only=True)
    return [row.load_class() for row in rows if why_not(row) is None]


def scores(backend: Backend, images: Sequence[Image], size: int = 1) -> Batch:
    """Scores of images, ``size`` at a time: uint8 [N, 1, H, W]."""
    return np.concatenate([backend.run(part).score for part in _parts(images, size)])


def _compared(
    reference: Batch,
    given: Batch,
    artifact: Artifact,
    truths: Sequence[tuple[Mask | None, bool | None]],
) -> ScoreComparison:
    found = ScoreComparison(artifact.sidecar.threshold, artifact.sidecar.min_area)
    for (expected,), (score,), (truth, defective) in zip(reference, given, truths, strict=True):
        found.add(score, expected, str(found.images), truth=truth, defective=defective)
    return found


def _defined(figures: Mapping[str, float]) -> dict[str, float]:
    return {name: value for name, value in figures.items() if not math.isnan(value)}


def _parts(images: Sequence[Image], size: int) -> Iterator[Batch]:
    for start in range(0, len(images), size):
        yield np.stack(images[start : start + size])[:, None]


def _size(contract: Contract) -> tuple[int, int]:
    return contract.height, contract.width
