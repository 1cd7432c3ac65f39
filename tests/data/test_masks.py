import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyunet_deploy.data.dataset import Item
from tinyunet_deploy.data.encoding import write_png
from tinyunet_deploy.data.masks import ellipse_mask, read_mask
from tinyunet_deploy.errors import DataError

SHAPE = (24, 16)
SPOT = np.zeros(SHAPE, np.uint8)
SPOT[4:12, 4:12] = 255


def grey(value: int = 0) -> np.ndarray:
    return np.full(SHAPE, value, np.uint8)


def put(path: Path, array: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_png(path, array)
    return path


def test_ellipse_mask_counts_pixels_from_one_and_includes_its_rim():
    mask = ellipse_mask(2.0, 1.0, 0.0, x=4.0, y=3.0, shape=(5, 7))
    expected = [
        "0000000",
        "0001000",
        "0111110",
        "0001000",
        "0000000",
    ]
    assert mask.dtype == np.uint8
    assert (mask == 255 * np.array([list(map(int, row)) for row in expected])).all()


def test_ellipse_mask_turns_from_columns_towards_rows():
    rows, columns = np.nonzero(ellipse_mask(9.0, 1.0, math.pi / 4, x=11.0, y=11.0, shape=(21, 21)))
    assert (rows == columns).sum() == 13
    assert np.abs(rows - columns).max() == 1


ellipses = st.tuples(
    st.floats(0.5, 30), st.floats(0.5, 30), st.floats(-4, 4), st.floats(-5, 30), st.floats(-5, 30)
)


@given(ellipses)
def test_ellipse_mask_is_the_rule_pixel_by_pixel(values):
    a, b, t, x, y = values
    mask = ellipse_mask(*values, shape=(17, 23))
    for row, column in ((0, 0), (5, 9), (9, 5), (16, 22)):
        dx, dy = column - (x - 1), row - (y - 1)
        u, v = dx * math.cos(t) + dy * math.sin(t), -dx * math.sin(t) + dy * math.cos(t)
        distance = (u / a) ** 2 + (v / b) ** 2
        if abs(distance - 1) > 1e-9:
            assert mask[row, column] == (255 if distance < 1 else 0)


@given(
    st.floats(1.2, 8), st.floats(1.2, 8), st.floats(-4, 4), st.integers(1, 40), st.integers(1, 40)
)
def test_ellipse_mask_is_symmetric_and_moves_with_its_centre(a, b, angle, x, y):
    centred = ellipse_mask(a, b, angle, 12, 12, (23, 23))
    assert centred[11, 11] == 255
    assert (centred == centred[::-1, ::-1]).all()
    smaller, larger = (
        ellipse_mask(a * scale, b * scale, angle, 12, 12, (23, 23))
        for scale in (0.999999, 1.000001)
    )
    for same in (
        ellipse_mask(b, a, angle + math.pi / 2, 12, 12, (23, 23)),
        ellipse_mask(a, b, -angle, 12, 12, (23, 23))[::-1],
    ):
        assert (smaller <= same).all()
        assert (same <= larger).all()
    moved = np.pad(ellipse_mask(a, b, angle, x, y, (40, 40)), 11)[y - 1 : y + 22, x - 1 : x + 22]
    clipped = np.pad(np.full((40, 40), 255, np.uint8), 11)[y - 1 : y + 22, x - 1 : x + 22]
    assert (moved == centred & clipped).all()


def defective_item(mask: Path) -> Item:
    return Item(mask, True, mask, None, None, None)


@pytest.mark.parametrize("value", [1, 38, 255])
def test_a_mask_may_hold_any_one_value_beside_zero(tmp_path, value):
    item = defective_item(put(tmp_path / "mask.png", SPOT // 255 * value))
    assert (read_mask(item, SHAPE) == SPOT).all()


def test_a_mask_may_cover_the_whole_image(tmp_path):
    assert (read_mask(defective_item(put(tmp_path / "mask.png", grey(255))), SHAPE) == 255).all()


def test_a_wrong_mask_is_refused(tmp_path):
    three = SPOT.copy()
    three[0, :3] = 7, 128, 7
    with pytest.raises(DataError, match=r"three\.png: has 4 values: 0, 7, 128, 255"):
        read_mask(defective_item(put(tmp_path / "three.png", three)), SHAPE)
    small = defective_item(put(tmp_path / "small.png", SPOT[:, :8]))
    with pytest.raises(DataError, match=r"small\.png: is 8x24 pixels, its image 16x24"):
        read_mask(small, SHAPE)
    with pytest.raises(DataError, match=r"absent\.png: is not a usable mask"):
        read_mask(defective_item(tmp_path / "absent.png"), SHAPE)
