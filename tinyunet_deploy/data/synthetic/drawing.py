"""Anti-aliased lines, polygons and discs on a uint8 canvas."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

__all__ = ["draw_disc", "draw_polyline"]


def draw_polyline(
    canvas: NDArray[np.uint8],
    points: NDArray[np.float64],
    value: int,
    thickness: int,
    *,
    fill: bool = False,
) -> None:
    """Draw an anti-aliased line, or fill a polygon, through points [n, 2] of (x, y)."""
    fixed = [np.rint(points * 16).astype(np.int32)]
    if fill:
        cv2.fillPoly(canvas, fixed, value, cv2.LINE_AA, 4)
    else:
        cv2.polylines(canvas, fixed, False, value, thickness, cv2.LINE_AA, 4)


def draw_disc(
    canvas: NDArray[np.uint8], centre: NDArray[np.float64], radius: float, thickness: int = -1
) -> None:
    """Draw an anti-aliased circle, filled by default."""
    x, y = (round(16 * float(c)) for c in centre)
    cv2.circle(canvas, (x, y), round(16 * radius), 255, thickness, cv2.LINE_AA, 4)
