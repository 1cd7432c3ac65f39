"""Ten grey textures; each renders its image under the weight map of a defect.

A texture takes a generator and a weight map float32 [size, size] in [0, 1], and returns grey values
float32 [size, size]. Where the map is 0 the image is free of defects.
"""

from __future__ import annotations

import cv2
import numpy as np

from tinyunet_deploy.data.synthetic.drawing import draw_disc, draw_polyline
from tinyunet_deploy.data.synthetic.noise import (
    FloatImage,
    Rng,
    crop,
    emboss,
    layered_noise,
    stroke_tile,
)

__all__ = [
    "bands",
    "blotches",
    "cloth",
    "funnel",
    "grain",
    "moire",
    "speckle",
    "star",
    "streaks",
    "strokes",
]


def moire(rng: Rng, weight: FloatImage) -> FloatImage:
    """Aliased chirps of two quadratic phases around one centre; the defect is a flat blot."""
    size = len(weight)
    centre_x, centre_y = rng.uniform(0.05, 0.95, 2) * size
    square_x, square_y = (np.arange(size) - centre_x) ** 2, (np.arange(size) - centre_y) ** 2
    wave = np.zeros((size, size))
    for gain, mirror in ((0.8, 1.0), (0.7, rng.uniform(0, 1))):
        chirp = np.pi * rng.integers(1, 6) / 3 + rng.choice((-1, 1)) * rng.uniform(0.001, 0.008)
        x, y = chirp * square_x, chirp * rng.choice((0.5, 1.0, 1.0, 1.0)) * square_y
        even, odd = np.outer(np.cos(y), np.cos(x)), np.outer(np.sin(y), np.sin(x))
        wave += gain * (even - mirror * odd)
    glow = layered_noise(rng, size, (80, 80, 1.0))
    fine = layered_noise(rng, size, (0.5, 0.5, 1.0))
    field = wave.astype(np.float32) * (1.2 + 0.3 * glow) + 0.5 * fine
    grey = np.square(np.maximum(8.05 + 1.65 * field + 0.25 * glow, 0))
    return np.asarray(grey + (65 + 3 * glow - grey) * weight)


def streaks(rng: Rng, weight: FloatImage) -> FloatImage:
    """Narrow, nearly vertical streaks; the defect is a dark line."""
    level = rng.uniform(8.2, 9.8)
    field = layered_noise(rng, len(weight), (0.01, 7, 1.0), slant=rng.uniform(-0.12, 0.12))
    grey = np.square(np.maximum(level + 28 / level * field, 0))
    return np.asarray(grey * (1 - 0.9 * weight))


def cloth(rng: Rng, weight: FloatImage) -> FloatImage:
    """Soft noise with broad vertical bands; the defect is a cluster of white grains."""
    field = layered_noise(
        rng,
        len(weight),
        (0.4, 0.4, 0.05),
        (1.6, 1.6, 0.14),
        (6, 4.5, 0.27),
        (20, 14, 0.06),
        (60, 300, 0.44),
        (0.7, 30, 0.012),
        (12, 1.2, 0.02),
    )
    grey = 128 + 32 * field
    return grey + (250 - grey) * weight


def star(rng: Rng, weight: FloatImage) -> FloatImage:
    """An embossed star of rays in a dark frame; the defect is a dark line."""
    size = len(weight)
    centre = size / 2 + rng.normal(6, 8, 2)
    rays = np.zeros((size, size), np.uint8)
    steps = np.linspace(0, 1, 12)
    for angle in rng.uniform(0, 2 * np.pi, 190):
        radius = steps * rng.uniform(60, 340)
        turn = angle + rng.normal(0.05, 0.1) * steps**2
        points = centre + np.stack([np.cos(turn), np.sin(turn)], 1) * radius[:, None]
        draw_polyline(rays, points, int(rng.integers(30, 230)), 1)
    rise = np.asarray(cv2.GaussianBlur(rays, (0, 0), 1.1), np.float32)
    grain = layered_noise(rng, size, (1.2, 1.2, 0.7), (5, 2, 0.3))
    level = 181 + rng.normal(0, 6) + 3 * layered_noise(rng, size, (80, 80, 1.0))
    grey = level + 0.65 * emboss(rise) + 9 * emboss(grain)
    hub = np.zeros((size, size), np.uint8)
    draw_disc(hub, centre, 9)
    core = cv2.GaussianBlur(hub.astype(np.float32) / 255, (0, 0), 2)
    grey += (108 - grey) * core
    grey *= 1 - 0.35 * weight
    for edge in (grey[0], grey[-1], grey[:, 0], grey[:, -1]):
        edge[:] = 40
    return grey


def grain(rng: Rng, weight: FloatImage) -> FloatImage:
    """Noise of several scales; the defect is a patch of dark stripes."""
    layers = ((0.01, 0.01, 0.08), (1.5, 1.5, 0.52), (7, 7, 0.17), (30, 30, 0.23))
    field = layered_noise(rng, len(weight), *layers)
    return np.asarray(120 + 29 * field - 85 * np.maximum(weight - 0.3, 0))


def speckle(rng: Rng, weight: FloatImage) -> FloatImage:
    """Hard black and white speckle; the defect is a dark band."""
    field = layered_noise(rng, len(weight), (1.3, 1.3, 0.75), (5, 4, 0.18), (30, 30, 0.07))
    return 255 / (1 + np.exp(0.7 - 1.65 * (field - 1.4 * weight)))


def strokes(rng: Rng, weight: FloatImage) -> FloatImage:
    """Tapered strokes of one direction; the defect is a patch of another direction."""
    size = len(weight)
    field = crop(stroke_tile(70, 24, 20000), rng, size)
    other = crop(stroke_tile(10, 10, 24000), rng, size)
    glow = layered_noise(rng, size, (0.8, 0.8, 0.5), (80, 80, 0.5))
    return 112 + 24 * (field + (other - field) * weight) + 7 * glow - 9 * weight


def bands(rng: Rng, weight: FloatImage) -> FloatImage:
    """Vertical bands; the defect is a short dark path."""
    layers = ((0.7, 0.7, 0.15), (2, 30, 0.2), (10, 300, 0.55), (30, 30, 0.1))
    return 125 + 27 * layered_noise(rng, len(weight), *layers) - 58 * weight


def blotches(rng: Rng, weight: FloatImage) -> FloatImage:
    """Two-tone blotches; the defect is a bright ring."""
    size = len(weight)
    field = layered_noise(rng, size, (5, 5, 0.8), (16, 16, 0.2))
    fine = layered_noise(rng, size, (0.8, 0.8, 1.0))
    return 118 + 34 * field / np.sqrt(1 + field**2) + 9 * fine + 45 * weight


def funnel(rng: Rng, weight: FloatImage) -> FloatImage:
    """An embossed funnel; the defect is a thin dark line."""
    size = len(weight)
    centre = size / 2 + rng.normal(0, 12, 2)
    dx, dy = np.arange(size) - centre[0], (np.arange(size) - centre[1])[:, None]
    radius = np.sqrt(dx**2 + dy**2 + 60).astype(np.float32)
    light = ((dx + dy) / radius).astype(np.float32) * np.exp(-radius / 110)
    relief = emboss(layered_noise(rng, size, (3, 3, 0.6), (1, 1, 0.4)))
    grey = 150 + 55 * light + 22 * relief + 4 * layered_noise(rng, size, (80, 80, 1.0))
    return np.asarray(grey - 55 * weight)
