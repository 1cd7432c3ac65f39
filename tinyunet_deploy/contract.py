"""The contract of a deployable graph, the same on every backend: uint8 images in, scores out.

    image  uint8 [N, 1, H, W]   raw grey values; N dynamic, H and W fixed
    score  uint8 [N, 1, H, W]   round(255 * sigmoid(logit))

A pixel is a defect where ``score > round(255 * threshold)``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]
"""uint8 [H, W]: raw grey values."""
Score = NDArray[np.uint8]
"""uint8 [H, W]: defect probability x 255."""
Mask = NDArray[np.uint8]
"""uint8 [H, W], {0, 255}: 255 is a defect."""
Batch = NDArray[np.uint8]
"""uint8 [N, 1, H, W]: images or scores."""

INPUT_NAME: Final = "image"
OUTPUT_NAME: Final = "score"
INT8_GREY: Final = 128.0
"""Grey value that an int8 file subtracts instead of normalising; int8 represents the result
exactly."""
DEFAULT_SIZE: Final = 512
HIGHEST_SCORE: Final = 255
"""Score of the probability 1."""


@dataclass(frozen=True)
class Contract:
    """Image size and batch limit of one artifact; stored in its sidecar."""

    height: int = DEFAULT_SIZE
    """Rows of an image, pixels."""
    width: int = DEFAULT_SIZE
    """Columns of an image, pixels."""
    max_batch: int | None = None
    """Largest batch, images; None if only memory limits it."""

    def __post_init__(self) -> None:
        for name, value in (("height", self.height), ("width", self.width)):
            if type(value) is not int or value < 1:
                raise ValueError(f"{name} {value!r} is not a positive number of pixels")
        if self.max_batch is not None and (type(self.max_batch) is not int or self.max_batch < 1):
            raise ValueError(f"max_batch {self.max_batch!r} is not a positive number")


def score_threshold(threshold: float) -> int:
    """Return the largest score of a good pixel: round(255 * threshold), half up.

    Args:
        threshold: probability in [0, 1].

    Raises:
        ValueError: the threshold is outside [0, 1].
    """
    if not 0.0 <= threshold <= 1.0:
        raise ValueError(f"threshold {threshold} is outside 0..1")
    return int(255.0 * threshold + 0.5)


def defect_mask(score: Score, threshold: float) -> Mask:
    """Return a uint8 {0, 255} mask of the pixels whose score is above the threshold's."""
    return np.multiply(score > score_threshold(threshold), np.uint8(255), dtype=np.uint8)
