"""Shapes of defects.

A shape takes a generator and the side of the image, and returns a weight map float32 [size, size]
in [0, 1]: 0 outside the defect.
"""

from __future__ import annotations

from functools import partial

import cv2
import numpy as np
from numpy.typing import NDArray

from tinyunet_deploy.data.synthetic.drawing import draw_disc, draw_polyline
from tinyunet_deploy.data.synthetic.noise import FloatImage, Rng

__all__ = [
    "band",
    "blemish",
    "crack",
    "dots",
    "hair",
    "ring",
    "scratch",
    "stain",
    "stripes",
    "thread",
]


def _scale(size: int) -> float:
    """Return the factor on lengths that makes defects fit into images smaller than 256."""
    return min(1.0, size / 256)


def _place(rng: Rng, size: int) -> NDArray[np.float64]:
    """Draw the centre (x, y) of a defect, away from the border."""
    return rng.uniform(0.12 * size, 0.88 * size, 2)


def _weight(canvas: NDArray[np.uint8], blur: float) -> FloatImage:
    """Soften a drawn shape into weights; those below 2 % become zero."""
    weight = np.asarray(cv2.GaussianBlur(canvas.astype(np.float32), (0, 0), blur), np.float32)
    weight = weight / weight.max()
    return np.where(weight < 0.02, np.float32(0), weight)


def _blob(
    rng: Rng,
    size: int,
    low: float,
    high: float,
    stretch: tuple[float, float],
    wobble: float,
    blur: float,
) -> FloatImage:
    """Fill an irregular ellipse with a mean radius in [low, high]."""
    t = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    radius = rng.uniform(low, high) * _scale(size) * np.ones(48)
    for k in (2, 3, 5):
        radius *= 1 + rng.normal(0, wobble / k) * np.cos(k * t + rng.uniform(0, 2 * np.pi))
    long = rng.uniform(*stretch)
    points = np.stack([np.cos(t) * radius * long**0.5, np.sin(t) * radius / long**0.5], 1)
    canvas = np.zeros((size, size), np.uint8)
    draw_polyline(canvas, points @ _rotation(rng) + _place(rng, size), 255, 1, fill=True)
    return _weight(canvas, max(0.6, blur * _scale(size)))


def _rotation(rng: Rng) -> NDArray[np.float64]:
    """Draw a rotation of row vectors, [2, 2]."""
    angle = rng.uniform(0, 2 * np.pi)
    return np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])


def _path(rng: Rng, size: int, low: float, high: float, bend: float) -> FloatImage:
    """Draw an open line with a length in [low, high] that turns by about bend radians."""
    t = np.linspace(-0.5, 0.5, 25)
    heading = rng.normal(0, bend) * t + rng.normal(0, bend / 2) * np.sin(2 * np.pi * t)
    step = rng.uniform(low, high) * _scale(size) / len(t)
    points = np.cumsum(np.stack([np.cos(heading), np.sin(heading)], 1) * step, 0)
    canvas = np.zeros((size, size), np.uint8)
    points = (points - points.mean(0)) @ _rotation(rng) + _place(rng, size)
    draw_polyline(canvas, points, 255, 2)
    return _weight(canvas, 0.8)


def dots(rng: Rng, size: int) -> FloatImage:
    """Scatter small grains along a short random walk."""
    canvas = np.zeros((size, size), np.uint8)
    steps = rng.normal(0, 3.4, (int(rng.integers(20, 70)), 2)) * max(0.5, _scale(size))
    walk = np.cumsum(steps, 0)
    for point in walk - walk.mean(0) + _place(rng, size):
        draw_disc(canvas, point, rng.uniform(0.4, 1.3))
    return _weight(canvas, 0.5)


def stripes(rng: Rng, size: int) -> FloatImage:
    """Fill a rotated rectangle with parallel stripes of weight 1 on a ground of 0.3."""
    half = rng.uniform(10, 24, 2) * max(0.5, _scale(size))
    turn, centre = _rotation(rng), _place(rng, size)
    canvas = np.zeros((size, size), np.uint8)
    corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * half
    draw_polyline(canvas, corners @ turn + centre, 77, 1, fill=True)
    for x in np.arange(-half[0], half[0] + 0.1, rng.uniform(4.5, 6)):
        draw_polyline(canvas, np.array([[x, -half[1]], [x, half[1]]]) @ turn + centre, 255, 2)
    return canvas.astype(np.float32) / 255


def ring(rng: Rng, size: int) -> FloatImage:
    """Draw a thin circle."""
    canvas = np.zeros((size, size), np.uint8)
    draw_disc(canvas, _place(rng, size), rng.uniform(8, 18) * max(0.5, _scale(size)), 2)
    return _weight(canvas, 0.8)


blemish = partial(_blob, low=17, high=34, stretch=(1, 1.8), wobble=0.15, blur=4)
band = partial(_blob, low=38, high=60, stretch=(8, 18), wobble=0.05, blur=3)
stain = partial(_blob, low=22, high=42, stretch=(1, 1.6), wobble=0.2, blur=3)
thread = partial(_path, low=50, high=180, bend=1.8)
scratch = partial(_path, low=90, high=190, bend=0.2)
hair = partial(_path, low=40, high=110, bend=1.8)
crack = partial(_path, low=60, high=150, bend=0.3)
