"""Simulate that a camera photographs a part again: another place, lamp and noise."""

from __future__ import annotations

import cv2
import numpy as np

from tinyunet_deploy.contract import Image
from tinyunet_deploy.quality.repeatability.study import Simulation

__all__ = ["simulated_photograph"]


def simulated_photograph(image: Image, simulation: Simulation, part: int, repeat: int) -> Image:
    """Return another photograph of a part; the same numbers give the same photograph.

    The part is shifted by a fraction of a pixel (cubic interpolation, mirrored at the edges), the
    lamp changes gain and offset, and the sensor adds normal noise, which is rounded and clipped.

    Args:
        image: uint8 [H, W].
        part, repeat: numbers of the photograph, which seed it together with the simulation's seed.

    Returns:
        uint8 [H, W].
    """
    random = np.random.default_rng([simulation.seed, part, repeat])
    x, y = random.uniform(-1, 1, 2) * simulation.shift_px
    height, width = image.shape
    moved = cv2.warpAffine(
        image.astype(np.float32),
        np.array([[1, 0, x], [0, 1, y]]),
        (width, height),
        flags=cv2.INTER_CUBIC,
        borderMode=cv2.BORDER_REFLECT_101,
    )
    gain = 1 + random.uniform(-1, 1) * simulation.gain_grey / 255
    offset = random.uniform(-1, 1) * simulation.offset_grey
    noise = random.normal(0, simulation.noise_grey, image.shape)
    return np.clip(np.rint(moved * gain + offset + noise), 0, 255).astype(np.uint8)
