"""Corners of polygons that stand for ellipses and turned boxes."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

__all__ = ["ellipse_corners", "turned"]


def ellipse_corners(x: float, y: float, rx: float, ry: float) -> NDArray[np.float64]:
    """Return a polygon for an ellipse with axes along the image's, [N, 2].

    It has a corner for each two pixels of the outline, at most 4096, so that it deviates from the
    ellipse by less than a tenth of a pixel up to a radius of 1000.
    """
    corners = int(np.clip(math.pi * max(rx, ry, 0), 16, 4096))
    angles = np.linspace(0, 2 * math.pi, corners, endpoint=False)
    return np.stack([x + rx * np.cos(angles), y + ry * np.sin(angles)], axis=1)


def turned(
    corners: NDArray[np.float64], centre: tuple[float, float], degrees: float
) -> NDArray[np.float64]:
    """Return corners turned around a centre, clockwise as seen in the image."""
    angle = math.radians(degrees)
    matrix = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    middle = np.array(centre)
    result: NDArray[np.float64] = (corners - middle) @ matrix + middle
    return result
