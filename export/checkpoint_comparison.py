"""Gate of an exported file: its scores must be those of its checkpoint in PyTorch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np

from export.calibration_images import best_tile, synthetic_image
from tinyunet_deploy.artifacts.sidecar import Artifact
from tinyunet_deploy.backends.onnxruntime import ONNXRuntimeBackend
from tinyunet_deploy.contract import Batch, Contract, Image
from tinyunet_deploy.data import synthetic
from tinyunet_deploy.data.bit_depth import BitDepth
from tinyunet_deploy.data.decoding import IMAGE_SUFFIXES, read_image, require_content
from tinyunet_deploy.errors import DataError, GateFailed
from tinyunet_deploy.quality.batch_check import check_batches
from tinyunet_deploy.quality.comparison import ScoreComparison
from tinyunet_deploy.quality.parity_limits import read_limits

__all__ = ["compare_with_checkpoint", "comparison_images"]

IMAGES: Final = 10
"""Largest number of images that are read from a folder."""
_BATCH: Final = 3
"""Batch size of the comparison, images."""


def comparison_images(
    contract: Contract, folder: Path | None, bits: int | None = None
) -> list[Image]:
    """Read up to ten images of a folder, or draw one synthetic image of each class.

    Of an image of another size than the contract's, the padded image or the tile with the most
    contrast is taken.

    Args:
        bits: depth of 16-bit files, 8..16; None leaves it to the files.

    Returns:
        uint8 [H, W] each, of the contract's size.

    Raises:
        DataError: the folder contains no images, or one has a single grey value throughout.
        ImageError: one of the folder's first ten images cannot be used.
    """
    if folder is None:
        return [
            synthetic_image(contract, class_id, 1, defective=True).image
            for class_id in synthetic.CLASSES
        ]
    paths = sorted(p for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES)
    depth = BitDepth(bits)
    images = []
    for path in paths[:IMAGES]:
        image = read_image(path, bits=depth.bits, on_shallow=depth.on_shallow)
        require_content(image, path)
        images.append(best_tile(image, np.zeros_like(image), contract)[0])
    if not images:
        raise DataError(folder, "contains no images")
    return images


def compare_with_checkpoint(
    expected: Batch, exported: Artifact, images: Sequence[Image]
) -> dict[str, float]:
    """Compare a file in ONNX Runtime with the scores of its checkpoint.

    Args:
        expected: uint8 [N, 1, H, W], the checkpoint's scores.
        images: N images, uint8 [H, W] each.

    Returns:
        ``images`` and the defined figures, named as in ``parity_limits.toml``.

    Raises:
        GateFailed: a limit of ``parity_limits.toml`` is broken. The limits of int8 are for labelled
            images, on which an IoU budget is checked; here its figures are only reported.
    """
    sidecar = exported.sidecar
    comparison = ScoreComparison(sidecar.threshold, sidecar.min_area)
    with ONNXRuntimeBackend(exported) as backend:
        for image, (score,) in zip(images, expected, strict=True):
            given = backend.run(image[None, None]).score[0, 0]
            comparison.add(given, score, str(comparison.images))
        batches = check_batches(backend, images[:_BATCH], _BATCH)
    figures = {**comparison.figures, "batch_steps": batches.worst_steps}
    if sidecar.precision != "int8":
        for limit, value, holds in read_limits().check(figures, sidecar.precision):
            if not holds:
                raise GateFailed(
                    exported.path,
                    f"{limit.figure} beside the checkpoint is {value:.6g}, but must be {limit}",
                    "nothing was written",
                )
    defined = {name: value for name, value in figures.items() if not math.isnan(value)}
    return {"images": len(images), **defined}
