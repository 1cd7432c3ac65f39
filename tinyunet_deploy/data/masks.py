"""Masks: the defect pixels of an image, from a mask file or from an ellipse."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from tinyunet_deploy.contract import Image, Mask
from tinyunet_deploy.data.dataset import Item
from tinyunet_deploy.data.decoding import read_image
from tinyunet_deploy.errors import DataError, ImageError

__all__ = ["ellipse_mask", "read_mask", "read_mask_file"]


def ellipse_mask(
    a: float, b: float, angle: float, x: float, y: float, shape: tuple[int, int]
) -> Mask:
    """Return the pixels of an :class:`Ellipse` in an image of ``shape`` (height, width).

    Returns:
        uint8 [H, W], {0, 255}.
    """
    dx = np.arange(shape[1]) - (x - 1)
    dy = np.arange(shape[0])[:, None] - (y - 1)
    u = dx * math.cos(angle) + dy * math.sin(angle)
    v = dy * math.cos(angle) - dx * math.sin(angle)
    return np.where((u / a) ** 2 + (v / b) ** 2 <= 1, np.uint8(255), np.uint8(0))


def read_mask(item: Item, shape: tuple[int, int]) -> Mask:
    """Return the defect pixels of an image of ``shape`` (height, width).

    A mask file holds 0 and one other value, which may be 1, 255 or any other.

    Returns:
        uint8 [H, W], {0, 255}.

    Raises:
        DataError: the mask cannot be decoded, has another size or more than two values.
    """
    if not item.defective:
        return np.zeros(shape, np.uint8)
    if item.ellipse is not None:
        return ellipse_mask(*item.ellipse, shape)
    if item.mask is None:
        raise DataError(item.image, "is defective but has no mask")
    mask = read_mask_file(item.mask)
    if mask.shape != shape:
        raise DataError(
            item.mask,
            f"is {mask.shape[1]}x{mask.shape[0]} pixels, its image {shape[1]}x{shape[0]}",
            "a mask has the size of its image",
        )
    defect = mask > 0
    if (mask[defect] != mask.max()).any():
        values = np.unique(mask).tolist()
        shown = ", ".join(map(str, values[:6])) + (", ..." if len(values) > 6 else "")
        raise DataError(
            item.mask,
            f"holds unknown values: {shown}",
            "a mask is 0 where the part is good and one other value at the defect",
        )
    return np.where(defect, np.uint8(255), np.uint8(0))


def read_mask_file(path: Path) -> Image:
    """Return the values of a mask file, uint8 [H, W].

    Raises:
        DataError: it cannot be decoded.
    """
    try:
        return read_image(path)
    except ImageError as error:
        raise DataError(path, f"is not a usable mask: it {error.what}", error.hint) from error
