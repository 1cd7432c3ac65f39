"""Draw annotated areas as masks."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from tinyunet_deploy.data.conversion.model import Annotation, Bitmap, Outline

__all__ = ["OUTSIDE_PX", "Unfit", "cropped", "draw", "require_pixels"]

OUTSIDE_PX: Final = 1.0
"""Distance by which a corner may lie outside its image, pixels: tools round, and let a corner be
dragged onto the edge."""


class Unfit(ValueError):
    """An annotation does not fit its image; the text continues its name."""


def cropped(pixels: NDArray[np.bool_], left: int, top: int) -> Bitmap:
    """Return a mask without its empty border, as most of it is empty.

    Args:
        pixels: [h, w].
        left, top: place of its first pixel in the image.

    Raises:
        Unfit: the mask has no pixel.
    """
    rows, columns = (np.flatnonzero(pixels.any(axis=axis)) for axis in (1, 0))
    if not rows.size:
        raise Unfit("covers no pixel")
    y, x = int(rows[0]), int(columns[0])
    part = pixels[y : int(rows[-1]) + 1, x : int(columns[-1]) + 1]
    return Bitmap(part.copy(), left + x, top + y)


def require_pixels(corners: NDArray[np.float64]) -> None:
    """Refuse corners of an annotation that are shares of the image's size instead of pixels.

    The outline of the pixel in the corner of an image lies within 0..1, too; it has whole and half
    numbers, and passes.

    Args:
        corners: x, y of all corners, [N, 2].

    Raises:
        Unfit: all lie within 0..1, and one is neither a whole nor a half number.
    """
    within = corners.min() >= 0 and corners.max() <= 1
    if within and (2 * corners != np.rint(2 * corners)).any():
        raise Unfit(
            "has all corners within 0..1, as shares of the image's size: pixels are expected, "
            "x * width and y * height"
        )


def draw(annotation: Annotation, shape: tuple[int, int]) -> Bitmap:
    """Return the pixels of an annotation in an image of ``shape`` (height, width).

    A pixel belongs to an outline if its centre lies inside, by the even-odd rule. An outline too
    thin to contain the centre of any pixel keeps the pixels through which it passes, so that a
    scratch never vanishes.

    Raises:
        Unfit: an area leaves the image, an outline by more than :data:`OUTSIDE_PX`.
    """
    parts = [
        _inside(area, shape) if isinstance(area, Bitmap) else _fill(area, shape)
        for area in annotation.areas
    ]
    left, top = min(part.left for part in parts), min(part.top for part in parts)
    bottom = max(part.top + part.pixels.shape[0] for part in parts)
    right = max(part.left + part.pixels.shape[1] for part in parts)
    union = np.zeros((bottom - top, right - left), np.bool_)
    for pixels, x, y in parts:
        union[y - top :, x - left :][: pixels.shape[0], : pixels.shape[1]] |= pixels
    return Bitmap(union, left, top)


def _inside(area: Bitmap, shape: tuple[int, int]) -> Bitmap:
    height, width = area.pixels.shape
    bottom, right = area.top + height, area.left + width
    if area.top < 0 or area.left < 0 or bottom > shape[0] or right > shape[1]:
        raise Unfit(
            f"has pixels in columns {area.left}..{right - 1} and rows {area.top}..{bottom - 1}, "
            f"but its image is {shape[1]}x{shape[0]}"
        )
    return area


def _fill(area: Outline, shape: tuple[int, int]) -> Bitmap:
    limit = np.array(shape[::-1], np.float64)
    outside = np.maximum(-area.corners, area.corners - limit).max(axis=1)
    if not outside.max() <= OUTSIDE_PX:  # also true for NaN
        x, y = area.corners[int(np.argmax(outside))]
        raise Unfit(f"has a corner at x={x:g}, y={y:g}, but its image is {shape[1]}x{shape[0]}")
    corners = np.clip(area.corners, 0, limit)
    left, top = (int(value) for value in np.minimum(corners.min(axis=0), limit - 1))
    right, bottom = (int(value) for value in np.ceil(corners.max(axis=0)))
    height, width = max(bottom - top, 1), max(right - left, 1)
    corners -= (left, top)
    # Each crossing of an edge with the centre line of a row toggles all pixels to its right.
    toggles = np.zeros((height, width + 1), np.int32)
    for (x0, y0), (x1, y1) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        rows = np.arange(int(np.ceil(min(y0, y1) - 0.5)), int(np.ceil(max(y0, y1) - 0.5)))
        if rows.size:
            crossings = x0 + (rows + 0.5 - y0) * ((x1 - x0) / (y1 - y0))
            columns = np.clip(np.ceil(crossings - 0.5).astype(np.intp), 0, width)
            np.add.at(toggles, (rows, columns), 1)
    pixels: NDArray[np.bool_] = np.cumsum(toggles, axis=1)[:, :-1] % 2 == 1
    return Bitmap(pixels if pixels.any() else _trace(corners, (height, width)), left, top)


def _trace(corners: NDArray[np.float64], shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Return the pixels through which the edges pass, at steps of half a pixel."""
    mask = np.zeros(shape, np.bool_)
    for start, end in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        steps = int(np.ceil(2 * np.abs(end - start).max())) + 1
        points = np.linspace(start, end, steps)
        columns, rows = np.minimum(points.astype(np.intp), np.array(shape[::-1]) - 1).T
        mask[rows, columns] = True
    return mask
