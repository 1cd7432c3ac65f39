"""Random noise: crops of periodic tiles, which cost little to draw and have no seams."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

__all__ = [
    "FloatImage",
    "Rng",
    "crop",
    "emboss",
    "layered_noise",
    "seed_sequence",
    "stroke_tile",
]

_TILE = 1024
"""Side of a tile, pixels; a power of two for the FFT, and larger than most images."""

FloatImage = NDArray[np.floating[Any]]
"""float32 [size, size]: grey values, weights or heights."""
Rng = np.random.Generator
"""Source of all random draws."""


def seed_sequence(*words: int) -> np.random.SeedSequence:
    """Return a seed that depends on every one of several non-negative integers."""
    return np.random.SeedSequence(words)


def _periodic(noise: NDArray[np.float64], response: NDArray[np.float64]) -> FloatImage:
    """Filter a periodic field by a frequency response and bring it to mean 0, variance 1."""
    field = np.fft.irfft2(np.fft.rfft2(noise) * response, s=noise.shape)
    return np.asarray((field - field.mean()) / field.std(), np.float32)


@lru_cache(maxsize=64)
def _smooth_tile(sigma_x: float, sigma_y: float) -> FloatImage:
    """Draw white noise, smoothed by a Gaussian of these sigmas in pixels; float32 [1024, 1024]."""
    rng = np.random.default_rng(seed_sequence(round(1000 * sigma_x), round(1000 * sigma_y)))
    fx, fy = np.fft.rfftfreq(_TILE), np.fft.fftfreq(_TILE)[:, None]
    response = np.exp(-2 * np.pi**2 * ((sigma_x * fx) ** 2 + (sigma_y * fy) ** 2))
    return _periodic(rng.standard_normal((_TILE, _TILE)), response)


@lru_cache(maxsize=16)
def stroke_tile(degrees: int, length: int, count: int) -> FloatImage:
    """Scatter tapered strokes of one direction at random, float32 [1024, 1024].

    Args:
        degrees: direction of the strokes.
        length: length of a stroke, pixels.
        count: number of strokes.
    """
    rng = np.random.default_rng(seed_sequence(degrees, length, count))
    dots = np.zeros((_TILE, _TILE))
    dots[tuple(rng.integers(0, _TILE, (2, count)))] = rng.normal(0.4, 1.0, count)
    kernel = np.zeros((_TILE, _TILE))
    angle = np.deg2rad(degrees)
    for t in np.linspace(0, 1, 4 * length):
        row, col = length * t * np.sin(angle), length * t * np.cos(angle)
        kernel[round(row), round(col)] += t * (1 - t) ** 0.5
    kernel = np.asarray(np.fft.irfft2(np.fft.rfft2(kernel), s=kernel.shape))
    fx, fy = np.fft.rfftfreq(_TILE), np.fft.fftfreq(_TILE)[:, None]
    soften = np.exp(-2 * np.pi**2 * (fx**2 + fy**2))
    return _periodic(dots, np.asarray(np.fft.rfft2(kernel) * soften))


def crop(tile: FloatImage, rng: Rng, size: int, slant: float = 0.0) -> FloatImage:
    """Cut a square from a tile, randomly placed and flipped, sheared by ``slant`` columns per
    row."""
    y, x = rng.integers(0, _TILE, 2)
    flip_y, flip_x = rng.choice((-1, 1), 2)
    steps = np.arange(size)
    rows, cols = (y + flip_y * steps) % _TILE, (x + flip_x * steps) % _TILE
    if slant == 0:
        return np.asarray(tile.take(rows, 0).take(cols, 1))
    shift = np.rint(slant * steps).astype(np.int64)[:, None]
    return np.asarray(tile[rows[:, None], (cols + shift) % _TILE])


def layered_noise(
    rng: Rng, size: int, *layers: tuple[float, float, float], slant: float = 0.0
) -> FloatImage:
    """Sum independent layers of noise, float32 [size, size].

    Args:
        layers: (sigma x, sigma y, variance) of each layer; sigmas in pixels.
        slant: shear, columns per row.
    """
    total = np.zeros((size, size), np.float32)
    for sigma_x, sigma_y, variance in layers:
        layer = crop(_smooth_tile(sigma_x, sigma_y), rng, size, slant)
        total += np.float32(variance**0.5) * layer
    return total


def emboss(height: FloatImage) -> FloatImage:
    """Light a height map from the upper left."""
    kernel = np.array([[1, 1, 0], [1, 0, -1], [0, -1, -1]], np.float32) / 3
    return np.asarray(cv2.filter2D(height, -1, kernel, borderType=cv2.BORDER_REPLICATE))
