"""Draw defects on images, for people to look at."""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from tinyunet_deploy.contract import Image

__all__ = ["draw_miss", "overlay"]

_MISS_CONTEXT: Final = 128
"""Smallest side of the crop around a missed defect, pixels of the image."""
_MISS_SIDE: Final = 512
"""Approximate side of the enlarged crop, pixels."""


def overlay(image: Image, mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Draw the outline of ``mask`` in red on ``image``.

    Args:
        image, mask: uint8 [H, W].

    Returns:
        uint8 [H, W, 3] BGR.
    """
    picture = cv2.cvtColor(image, cv2.COLOR_GRAY2BGR)
    outlines, _ = cv2.findContours(mask, cv2.RETR_LIST, cv2.CHAIN_APPROX_SIMPLE)
    cv2.drawContours(picture, outlines, -1, (40, 40, 235), thickness=2)
    return picture.astype(np.uint8, copy=False)


def draw_miss(
    image: Image,
    score: NDArray[np.uint8],
    truth: NDArray[np.uint8],
    bbox: tuple[int, int, int, int],
) -> NDArray[np.uint8]:
    """Draw a missed defect with its surroundings: the image, and beside it the score.

    Args:
        image, score, truth: uint8 [H, W].
        bbox: x, y, width, height of the defect, pixels.

    Returns:
        uint8 [h, w, 3] BGR: the image with the outline of the truth in green, and the score, dark
        0 to bright 255, with the same outline.
    """
    x, y, width, height = bbox
    side = max(2 * width, 2 * height, _MISS_CONTEXT)
    top, left = (
        int(np.clip(centre - side // 2, 0, max(length - side, 0)))
        for centre, length in zip((y + height // 2, x + width // 2), image.shape, strict=True)
    )
    place = slice(top, top + side), slice(left, left + side)
    scale = max(_MISS_SIDE // side, 1)
    outlines, _ = cv2.findContours(truth[place], cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    outlines = [scale * outline + scale // 2 for outline in outlines]
    panels = []
    for panel in (
        cv2.cvtColor(image[place], cv2.COLOR_GRAY2BGR),
        cv2.applyColorMap(np.ascontiguousarray(score[place]), cv2.COLORMAP_INFERNO),
    ):
        large = cv2.resize(panel, None, fx=scale, fy=scale, interpolation=cv2.INTER_NEAREST)
        cv2.drawContours(large, outlines, -1, (80, 220, 80), thickness=1)
        panels.append(large)
    gap = np.full((panels[0].shape[0], 8, 3), 128, np.uint8)
    return np.hstack([panels[0], gap, panels[1]]).astype(np.uint8)
