import dataclasses
import io
import math
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import PIL.Image
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tests.data.small_images import SHAPE, SPOT, grey, put
from tinyunet_deploy.data.dataset import Item, MaskRule
from tinyunet_deploy.data.masks import decode_mask, ellipse_mask, read_mask
from tinyunet_deploy.errors import DataError


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


def saved(array: np.ndarray, kind: str = "PNG", mode: str | None = None, **options) -> bytes:
    """A mask file as another program writes it."""
    file = io.BytesIO()
    picture = PIL.Image.fromarray(array, mode) if mode else PIL.Image.fromarray(array)
    picture.save(file, kind, **options)
    return file.getvalue()


def palette(indices: np.ndarray, *colours: tuple[int, int, int], kind: str = "PNG") -> bytes:
    picture = PIL.Image.fromarray(indices.astype(np.uint8), "P")
    picture.putpalette([part for colour in colours for part in colour])
    file = io.BytesIO()
    picture.save(file, kind)
    return file.getvalue()


def two(good: Any, defect: Any, kind: type = np.uint8) -> np.ndarray:
    """The spot in two values, or in two colours."""
    marked = SPOT[..., None] > 0 if np.ndim(good) else SPOT > 0
    return np.where(marked, np.array(defect, kind), np.array(good, kind))


def refusal(data: bytes, rule: MaskRule | None = None) -> str:
    with pytest.raises(DataError) as caught:
        decode_mask(data, Path("mask.png"), rule)
    return str(caught.value)


BLACK, WHITE, RED, GREEN = (0, 0, 0), (255, 255, 255), (255, 0, 0), (0, 255, 0)


@pytest.mark.parametrize(
    "data",
    [
        saved(two(0, 1, np.uint16)),
        saved(two(0, 65535, np.uint16)),
        saved(two(0, 1, np.uint16), "TIFF"),
        saved(two(0, 255, np.uint16), "TIFF", compression="tiff_lzw"),
        saved(two(7, 9)),
        saved(two(9, 7)),
        saved(two(255, 200)),
        saved(SPOT > 0),
        saved(SPOT > 0, "TIFF"),
        saved(SPOT > 0, "PPM"),
        saved(SPOT > 0, "BMP"),
        palette(SPOT > 0, BLACK, RED),
        palette(SPOT > 0, BLACK, (0, 0, 1)),
        palette(SPOT > 0, BLACK, BLACK),
        palette(SPOT == 0, RED, BLACK),
        palette(SPOT == 0, WHITE, BLACK),
        palette(SPOT > 0, WHITE, BLACK),
        palette(two(3, 5), *[BLACK] * 3, GREEN, GREEN, RED),
        palette(SPOT > 0, BLACK, RED, kind="BMP"),
        palette(SPOT > 0, BLACK, RED, kind="TIFF"),
        saved(two(BLACK, (0, 0, 1))),
        saved(two(BLACK, RED)),
        saved(two(WHITE, RED)),
        saved(two(GREEN, RED), "BMP"),
        saved(two(GREEN, RED), "TIFF"),
        saved(two((0, 0, 0, 255), (255, 0, 0, 255))),
        saved(two((0, 0, 0, 0), (255, 255, 255, 255))),
        saved(two((255, 255, 255, 0), (255, 255, 255, 255))),
        saved(two((0, 0, 0, 0), (0, 0, 0, 255))),
        saved(two((0, 0), (0, 255)), mode="LA"),
        saved(two((5, 255), (0, 255)), mode="LA"),
        saved(two(BLACK, RED), "WEBP", lossless=True),
        saved(two(WHITE, BLACK)),
    ],
)
def test_two_values_are_good_and_defect_whatever_they_are(data):
    """Zero, black or transparent is good; in a picture of which neither is clear, the border."""
    mask = decode_mask(data, Path("mask.png"))
    assert mask.dtype == np.uint8
    inverted = data in (saved(two(WHITE, BLACK)), saved(two((5, 255), (0, 255)), mode="LA"))
    assert (mask == (255 - SPOT if inverted else SPOT)).all()


@pytest.mark.parametrize(
    "data",
    [
        saved(grey(0)),
        saved(np.zeros(SHAPE, np.uint16)),
        saved(np.zeros((*SHAPE, 3), np.uint8)),
        saved(np.full((*SHAPE, 4), (0, 0, 0, 255), np.uint8)),
        saved(np.zeros((*SHAPE, 4), np.uint8)),
        palette(grey(0), BLACK, RED),
        saved(SPOT > 300),
    ],
)
def test_one_value_of_zero_is_a_good_part(data):
    assert not decode_mask(data, Path("mask.png")).any()


@pytest.mark.parametrize(
    "data",
    [
        saved(grey(1)),
        saved(np.ones(SHAPE, np.uint16)),
        saved(np.full((*SHAPE, 3), RED, np.uint8)),
        saved(np.full((*SHAPE, 4), (0, 255, 0, 255), np.uint8)),
        palette(grey(1), BLACK, RED),
    ],
)
def test_one_value_that_is_not_zero_is_a_defect_everywhere_only_if_a_rule_says_so(data):
    """A part that is defective all over, or a good one in an inverted set: the file cannot say."""
    assert "throughout: good or defect?" in refusal(data)
    assert "non_zero = true" in refusal(data)
    assert (decode_mask(data, Path("mask.png"), MaskRule(non_zero=True)) == 255).all()
    inverted = MaskRule(non_zero=True, inverted=True)
    assert not decode_mask(data, Path("mask.png"), inverted).any()


@pytest.mark.parametrize(
    "data",
    [
        palette(grey(0), WHITE, BLACK),
        palette(grey(1), WHITE, BLACK),
        saved(np.full((*SHAPE, 4), (255, 255, 255, 0), np.uint8)),
    ],
)
def test_one_value_that_may_mean_either_is_refused(data):
    assert "throughout: good or defect?" in refusal(data)


def test_two_values_of_which_neither_fills_the_border_are_refused():
    halves = grey(7)
    halves[:, :8] = 9
    assert "has the values 7 and 9, and neither" in refusal(saved(halves))
    assert "has the values 0 and 1, and neither" in refusal(palette(halves == 9, WHITE, BLACK))


def test_more_than_two_values_are_refused_with_their_names():
    classes = SPOT // 255
    classes[0, 0] = 2
    assert "has 3 values: 0, 1, 2 (" in refusal(saved(classes))
    assert "has 3 values: 0, 1, 2 (" in refusal(palette(classes, BLACK, RED, RED))
    many = np.arange(384, dtype=np.uint16).reshape(SHAPE)
    assert "has 384 values: 0, 1, 2, 3, 4, 5, ..." in refusal(saved(many))
    colours = two(BLACK, RED)
    colours[0, 0] = GREEN
    message = refusal(saved(colours))
    assert "has 3 values: (0, 0, 0), (0, 255, 0), (255, 0, 0)" in message


def test_a_rule_decides_where_values_do_not():
    classes = SPOT // 255
    classes[0, :3] = 2
    by_value = decode_mask(saved(classes), Path("m"), MaskRule(values=frozenset({1})))
    assert (by_value == SPOT).all()
    above = decode_mask(saved(classes), Path("m"), MaskRule(threshold=1))
    assert np.count_nonzero(above) == 3
    grey_rgb = np.dstack([classes] * 3)
    assert (decode_mask(saved(grey_rgb), Path("m"), MaskRule(threshold=1)) == above).all()
    assert "for grey masks" in refusal(saved(two(BLACK, RED)), MaskRule(threshold=1))
    with pytest.raises(ValueError, match="has one of"):
        MaskRule()


@pytest.mark.parametrize(
    ("kind", "options"), [("JPEG", {"quality": 95}), ("WEBP", {"quality": 80})]
)
def test_lossy_masks_are_refused_without_a_threshold(kind, options):
    data = saved(SPOT if kind == "JPEG" else np.dstack([SPOT] * 3), kind, **options)
    assert "lossy compression" in refusal(data)
    assert "lossy compression" in refusal(data, MaskRule(values=frozenset({255})))
    if kind == "JPEG":
        assert (decode_mask(data, Path("m"), MaskRule(threshold=127)) == SPOT).all()


@given(
    arrays(np.uint16, SHAPE, elements=st.sampled_from([0, 1, 256, 65280])),
    st.sampled_from([1, 3, 4]),
)
def test_a_mask_with_a_value_above_zero_is_never_empty(values, channels):
    array = values if channels == 1 else np.dstack([values] * channels)
    ok, data = cv2.imencode(".png", array)
    assert ok
    try:
        mask = decode_mask(data.tobytes(), Path("mask.png"))
    except DataError:
        return
    assert mask.any() == values.any()


@pytest.mark.parametrize("value", [1, 38, 255])
def test_a_mask_may_hold_any_one_value_beside_zero(tmp_path, value):
    item = defective_item(put(tmp_path / "mask.png", SPOT // 255 * value))
    assert (read_mask(item, SHAPE) == SPOT).all()


def test_a_mask_of_a_defective_part_that_marks_nothing_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"mask\.png: marks nothing, but its image counts as def"):
        read_mask(defective_item(put(tmp_path / "mask.png", grey(0))), SHAPE)


def test_a_wrong_mask_is_refused(tmp_path):
    three = SPOT.copy()
    three[0, :3] = 7, 128, 7
    with pytest.raises(DataError, match=r"three\.png: has 4 values: 0, 7, 128, 255"):
        read_mask(defective_item(put(tmp_path / "three.png", three)), SHAPE)
    small = defective_item(put(tmp_path / "small.png", SPOT[:, :8]))
    with pytest.raises(DataError, match=r"small\.png: is 8x24 pixels, but its image is 16x24"):
        read_mask(small, SHAPE)
    with pytest.raises(DataError, match=r"absent\.png: is not a usable mask"):
        read_mask(defective_item(tmp_path / "absent.png"), SHAPE)


@pytest.mark.parametrize("empty", [grey(0)[:, :8], grey(0).T])
def test_a_mask_of_a_good_part_has_the_size_of_its_image_too(tmp_path, empty):
    good = dataclasses.replace(defective_item(put(tmp_path / "mask.png", empty)), defective=False)
    height, width = empty.shape
    wanted = rf"mask\.png: is {width}x{height} pixels, but its image is 16x24"
    with pytest.raises(DataError, match=wanted):
        read_mask(good, SHAPE)
    put(tmp_path / "mask.png", grey(0))
    assert not read_mask(good, SHAPE).any()
    (tmp_path / "mask.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"mask\.png: is not a usable mask: it is an empty file"):
        read_mask(good, SHAPE)
    assert not read_mask(dataclasses.replace(good, mask=None), SHAPE).any()
