"""Gate of an exported file: its scores must be those of its checkpoint in PyTorch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from export.calibration_images import best_tile, read_training_images, synthetic_image
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

__all__ = ["ComparisonImages", "compare_with_checkpoint", "comparison_images"]

IMAGES: Final = 10
"""Largest number of images that are read from a folder without labels."""
TRAINING_IMAGES: Final = 40
"""Largest number of images that are read from data sets, as many as int8 is tested on. Half of them
are defective, if there are as many: 20 defects of 16x16 pixels have 5000, of which the limit of
fp16 lets five differ. With far fewer, a single pixel would decide."""
_BATCH: Final = 3
"""Batch size of the comparison, images."""
_ADVICE: Final = {
    "synthetic images": "nothing was written; a model of another product is unsure on synthetic "
    "images: compare on yours with --data DIR or --images DIR"
}
"""Source of the images -> what to do about a broken limit."""


@dataclass(frozen=True)
class ComparisonImages:
    """Images on which every file is compared with its checkpoint."""

    source: str
    """``images``, ``training images`` or ``synthetic images``."""
    images: list[Image]
    """uint8 [H, W] each, of the contract's size."""


def comparison_images(
    contract: Contract,
    folder: Path | None,
    data: Sequence[Path] = (),
    bits: int | None = None,
) -> ComparisonImages:
    """Read up to ten images of a folder, or forty of data sets, or draw one of each class.

    Of an image of another size than the contract's, the padded image is taken, or the tile with the
    most defect pixels, then with the most contrast.

    Args:
        folder: images without labels, which go before ``data``.
        data: labelled data sets whose training images are read; synthetic images if empty.
        bits: depth of 16-bit files, 8..16; None leaves it to the files.

    Raises:
        DataError: there are no images, or one has a single grey value throughout.
        ImageError: one of the folder's first ten images cannot be used.
    """
    if folder is not None:
        return ComparisonImages("images", _folder_images(contract, folder, bits))
    if data:
        labelled = read_training_images(data, contract, TRAINING_IMAGES, bits)
        return ComparisonImages("training images", [image.image for image in labelled])
    drawn = (synthetic_image(contract, name, 1, defective=True) for name in synthetic.CLASSES)
    return ComparisonImages("synthetic images", [image.image for image in drawn])


def _folder_images(contract: Contract, folder: Path, bits: int | None) -> list[Image]:
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
    expected: Batch, exported: Artifact, compared: ComparisonImages
) -> dict[str, float]:
    """Compare a file in ONNX Runtime with the scores of its checkpoint.

    Args:
        expected: uint8 [N, 1, H, W], the checkpoint's scores of the N images.

    Returns:
        ``images``, ``union_px`` (pixels that are defects in either mask) and the defined figures,
        named as in ``parity_limits.toml``.

    Raises:
        GateFailed: a limit of ``parity_limits.toml`` is broken. The limits of int8 are for labelled
            images, on which an IoU budget is checked; here its figures are only reported.
    """
    sidecar = exported.sidecar
    comparison = ScoreComparison(sidecar.threshold, sidecar.min_area)
    with ONNXRuntimeBackend(exported) as backend:
        for image, (score,) in zip(compared.images, expected, strict=True):
            given = backend.run(image[None, None]).score[0, 0]
            comparison.add(given, score, str(comparison.images))
        batches = check_batches(backend, compared.images[:_BATCH], _BATCH)
    figures = {**comparison.figures, "batch_steps": batches.worst_steps}
    if sidecar.precision != "int8":
        for limit, value, holds in read_limits().check(figures, sidecar.precision):
            if not holds:
                raise GateFailed(
                    exported.path,
                    f"{limit.figure} beside the checkpoint is {value:.6g} on "
                    f"{comparison.images} {compared.source}, but must be {limit}",
                    _ADVICE.get(compared.source, "nothing was written"),
                )
    defined = {name: value for name, value in figures.items() if not math.isnan(value)}
    return {"images": comparison.images, "union_px": comparison.union_px, **defined}
