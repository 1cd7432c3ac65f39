from __future__ import annotations

import numpy as np

from tinyunet_deploy.inspection.overlays import overlay


def test_the_overlay_outlines_the_mask_in_red_and_leaves_the_rest() -> None:
    image = np.full((64, 64), 100, np.uint8)
    mask = np.zeros((64, 64), np.uint8)
    mask[20:40, 20:40] = 255
    picture = overlay(image, mask)
    assert picture.shape == (64, 64, 3)
    blue, green, red = picture[20, 30].astype(int)
    assert red > 200 > 100 > max(blue, green)
    assert (picture[30, 30] == 100).all(), "the defect itself can be seen"
    assert (picture[50:, 50:] == 100).all()
    assert (overlay(image, np.zeros_like(mask)) == 100).all()
