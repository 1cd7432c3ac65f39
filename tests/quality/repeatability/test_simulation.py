from __future__ import annotations

import cv2
import numpy as np

from tests.conftest import part
from tinyunet_deploy.quality.repeatability.simulation import simulated_photograph
from tinyunet_deploy.quality.repeatability.study import Simulation

STILL = Simulation(shift_px=0, gain_grey=0, offset_grey=0, noise_grey=0)


def test_the_seed_makes_a_photograph_and_another_makes_another() -> None:
    image = part(2)
    first = simulated_photograph(image, Simulation(), 3, 1)
    assert (first == simulated_photograph(image, Simulation(), 3, 1)).all()
    for other in (
        simulated_photograph(image, Simulation(), 3, 2),
        simulated_photograph(image, Simulation(), 4, 1),
        simulated_photograph(image, Simulation(seed=1), 3, 1),
    ):
        assert (first != other).mean() > 0.3


def test_without_changes_the_photograph_is_the_image() -> None:
    image = part(2)
    assert (simulated_photograph(image, STILL, 0, 1) == image).all()


def test_the_noise_has_the_stated_size() -> None:
    image = np.full((256, 256), 120, np.uint8)
    noisy = simulated_photograph(image, Simulation(10, 0, 0, 0, 4.0), 0, 1).astype(float)
    # rounding adds 1/12; the deviation of 65536 values is known to 0.3 %
    assert abs(noisy.std() - (16 + 1 / 12) ** 0.5) < 0.06
    assert abs(noisy.mean() - 120) < 0.1


def test_gain_and_offset_stay_within_three_grey_values() -> None:
    bright, dark = np.full((16, 16), 250, np.uint8), np.full((16, 16), 5, np.uint8)
    lamp = Simulation(shift_px=0, noise_grey=0)
    changes = []
    for repeat in range(60):
        low, high = (int(simulated_photograph(i, lamp, 0, repeat)[0, 0]) for i in (dark, bright))
        changes.append((low - 5, high - low - 245))
    offsets, gains = (np.array(values) for values in zip(*changes, strict=True))
    assert abs(offsets).max() == 3 and abs(gains).max() in (3, 4)
    assert offsets.min() < 0 < offsets.max() and gains.min() < 0 < gains.max()


def test_the_part_moves_by_less_than_a_pixel() -> None:
    image = np.zeros((64, 64), np.uint8)
    cv2.circle(image, (32, 32), 9, 200, -1)
    image = cv2.GaussianBlur(image, (0, 0), 2)
    y, x = np.mgrid[:64, :64]
    places = []
    for repeat in range(40):
        moved = simulated_photograph(image, Simulation(10, 0.5, 0, 0, 0), 0, repeat).astype(float)
        places.append(
            (float((moved * x).sum() / moved.sum()), float((moved * y).sum() / moved.sum()))
        )
    shifts = np.array(places) - 32
    assert 0.3 < abs(shifts).max() < 0.55
    assert (shifts.min(axis=0) < -0.2).all() and (shifts.max(axis=0) > 0.2).all()
