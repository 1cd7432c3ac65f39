from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyunet_deploy.data.conversion.drawing import Unfit, cropped, draw
from tinyunet_deploy.data.conversion.model import Annotation, Bitmap, Outline

SHAPE = (24, 16)


def drawn(*areas: Outline | Bitmap, shape: tuple[int, int] = SHAPE) -> np.ndarray:
    pixels, left, top = draw(Annotation("scratch", areas, "annotation 1"), shape)
    mask = np.zeros(shape, np.bool_)
    mask[top : top + pixels.shape[0], left : left + pixels.shape[1]] = pixels
    return mask


def outline(*values: float) -> Outline:
    return Outline(np.array(values, np.float64).reshape(-1, 2))


def test_a_rectangle_covers_the_pixels_between_its_corners():
    mask = drawn(outline(4, 3, 12, 3, 12, 9, 4, 9))
    expected = np.zeros(SHAPE, np.bool_)
    expected[3:9, 4:12] = True
    np.testing.assert_array_equal(mask, expected)


def test_the_whole_image_is_covered_by_an_outline_a_pixel_outside_it():
    assert drawn(outline(-1, -1, 17, -1, 17, 25, -1, 25)).all()


@pytest.mark.parametrize("corner", [(-1.1, 3), (17.1, 3), (3, -1.1), (3, 25.1), (float("nan"), 3)])
def test_a_corner_further_outside_is_refused(corner):
    with pytest.raises(Unfit, match="has a corner at"):
        drawn(outline(*corner, 8, 3, 8, 9))


@given(
    st.lists(st.tuples(st.floats(0, 16), st.floats(0, 24)), min_size=3, max_size=8).filter(
        lambda corners: len(set(corners)) > 2
    )
)
def test_an_outline_covers_the_pixels_whose_centres_lie_inside(corners):
    hull = cv2.convexHull(np.array(corners, np.float32))[:, 0]
    mask = drawn(Outline(hull.astype(np.float64)))
    assert mask.any()  # never lost
    centres = np.argwhere(np.ones(SHAPE))[:, ::-1] + 0.5
    depths = np.reshape([cv2.pointPolygonTest(hull, centre, True) for centre in centres], SHAPE)
    clear = np.abs(depths) > 0.01
    if (clear & (depths > 0)).any():
        np.testing.assert_array_equal(mask[clear], depths[clear] > 0)


def test_an_outline_with_a_hole_by_crossing_leaves_the_hole_out():
    mask = drawn(outline(2, 2, 14, 2, 14, 20, 2, 20, 2, 2, 6, 6, 10, 6, 10, 12, 6, 12, 6, 6))
    assert not mask[7:11, 7:9].any()
    assert mask[3, 3]


@pytest.mark.parametrize(
    "thin",
    [(3, 2.6, 13, 2.6, 13, 2.9, 3, 2.9), (5, 5, 5, 5, 5, 5), (16, 24, 16, 24, 16, 24)],
    ids=["scratch", "point", "corner"],
)
def test_an_outline_between_the_centres_keeps_its_pixels(thin):
    mask = drawn(outline(*thin))
    assert mask.any()
    if thin[0] == 3:
        assert np.flatnonzero(mask.any(axis=1)).tolist() == [2]
        assert mask[2, 3:13].all()


def test_areas_of_one_annotation_are_united():
    mask = drawn(outline(0, 0, 2, 0, 2, 2, 0, 2), Bitmap(np.ones((2, 3), np.bool_), 10, 20))
    assert mask.sum() == 4 + 6
    assert mask[20:22, 10:13].all()


@pytest.mark.parametrize(("left", "top"), [(-1, 0), (0, -1), (14, 0), (0, 23)])
def test_a_bitmap_must_lie_in_its_image(left, top):
    with pytest.raises(Unfit, match="but its image is 16x24"):
        drawn(Bitmap(np.ones((2, 3), np.bool_), left, top))


def test_a_mask_is_cropped_to_its_pixels():
    mask = np.zeros((9, 9), np.bool_)
    mask[2:4, 5:8] = True
    pixels, left, top = cropped(mask, 10, 20)
    assert (pixels.all(), pixels.shape, left, top) == (True, (2, 3), 15, 22)
    with pytest.raises(Unfit, match="covers no pixel"):
        cropped(np.zeros((2, 2), np.bool_), 0, 0)
