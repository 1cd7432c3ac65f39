from __future__ import annotations

import numpy as np
import pytest

from tinyunet_deploy.data.conversion.ellipses import ellipse_corners, turned


@pytest.mark.parametrize(("rx", "ry"), [(1000.0, 300.0), (8.0, 8.0), (0.5, 900.0)])
def test_the_edges_of_the_polygon_stay_near_the_ellipse(rx, ry):
    corners = ellipse_corners(5.0, -3.0, rx, ry)
    middles = (corners + np.roll(corners, -1, axis=0)) / 2 - (5.0, -3.0)
    radii = np.hypot(middles[:, 0] / rx, middles[:, 1] / ry)
    assert ((1 - radii) * max(rx, ry)).max() < 0.1
    assert len(corners) <= 4096


def test_corners_turn_clockwise_as_seen():
    right = np.array([[2.0, 0.0]])
    np.testing.assert_allclose(turned(right, (0, 0), 90), [[0, 2]], atol=1e-12)  # y counts down
