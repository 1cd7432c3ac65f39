"""Holding a file that is about to be written against the network it was made from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import numpy as np

from tinyunet_deploy import synthetic
from tinyunet_deploy.artifact import Artifact
from tinyunet_deploy.backends import Backend
from tinyunet_deploy.backends.onnxruntime import ONNXRuntimeBackend
from tinyunet_deploy.backends.torch import TorchBackend
from tinyunet_deploy.contract import Batch, Contract, Image
from tinyunet_deploy.errors import DataError, GateFailed
from tinyunet_deploy.images import IMAGE_SUFFIXES, read_image

MAX_STEPS: Final = 1
"""Largest accepted difference of a score, in steps of 1/255: two runtimes sum in another order."""
IMAGES: Final = 10


def comparison_images(contract: Contract, folder: Path | None) -> list[Image]:
    """Up to ten images of a folder, or one synthetic image of each class.

    Raises:
        DataError: the folder holds no image of the contract's size.
    """
    if folder is None:
        side = max(contract.height, contract.width)
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


def compare(checkpoint: Artifact, exported: Artifact, images: Sequence[Image]) -> dict[str, int]:
    """Largest difference between the two over all pixels, one image and several at a time.

    Raises:
        GateFailed: over one step.
    """
    torch_backend, onnx_backend = TorchBackend(checkpoint), ONNXRuntimeBackend(exported)
    batch = np.stack(images)[:, None]
    wanted = _scores(torch_backend, batch, 1)
    largest = 0
    for size in (1, 3):
        difference = np.abs(_scores(onnx_backend, batch, size).astype(np.int16) - wanted)
        largest = max(largest, int(difference.max()))
    if largest > MAX_STEPS:
        raise GateFailed(
            exported.path,
            f"scores differ from the checkpoint's by up to {largest} of 255, {MAX_STEPS} allowed",
            "nothing was written",
        )
    return {"max_difference_steps": largest, "images": len(images)}


def _scores(backend: Backend, batch: Batch, size: int) -> Batch:
    return np.concatenate([backend.run(part).score for part in _parts(batch, size)])


def _parts(batch: Batch, size: int) -> Iterator[Batch]:
    for start in range(0, len(batch), size):
        yield batch[start : start + size]


def _size(contract: Contract) -> tuple[int, int]:
    return contract.height, contract.width
