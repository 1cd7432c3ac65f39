from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tinyunet_deploy.contract import defect_mask
from tinyunet_deploy.defects import Defect, find_defects, verdict

Uint8 = NDArray[np.uint8]


def clean(height: int = 64, width: int = 96) -> Uint8:
    return np.full((height, width), 3, np.uint8)


def test_a_clean_image_is_ok() -> None:
    assert find_defects(clean(), 0.5, 1) == []
    assert verdict([]) == "OK"


def test_a_defect_says_where_how_large_and_how_sure() -> None:
    score = clean()
    score[10:14, 20:25] = 200
    score[10, 20] = 240
    (defect,) = find_defects(score, 0.5, 1)
    assert defect == Defect(bbox=(20, 10, 5, 4), area_px=20, max_score=240, mean_score=202.0)
    assert verdict([defect]) == "NG"


def test_the_background_does_not_leak_into_a_defect() -> None:
    score = clean()
    score[10:13, 10:13] = 200
    score[11, 11] = 127  # a hole, at the threshold
    (defect,) = find_defects(score, 0.5, 1)
    assert (defect.area_px, defect.max_score, defect.mean_score) == (8, 200, 200.0)


@pytest.mark.parametrize(("level", "found"), [(128, 0), (129, 1)])
def test_only_scores_above_the_threshold_count(level: int, found: int) -> None:
    score = clean()
    score[5, 5] = level
    assert len(find_defects(score, 0.5, 1)) == found


def test_regions_that_touch_at_a_corner_are_one_defect() -> None:
    score = clean()
    score[10:12, 10:12] = 200
    score[12:14, 12:14] = 200
    (defect,) = find_defects(score, 0.5, 1)
    assert (defect.area_px, defect.bbox) == (8, (10, 10, 4, 4))


def test_min_area_is_the_smallest_defect() -> None:
    score = clean()
    score[0, 0:5] = 200
    score[20, 0:6] = 200
    assert [d.area_px for d in find_defects(score, 0.5, 5)] == [6, 5]
    assert [d.area_px for d in find_defects(score, 0.5, 6)] == [6]
    assert find_defects(score, 0.5, 7) == []


def test_the_largest_comes_first_and_ties_go_from_top_left() -> None:
    score = clean()
    for y, x in [(30, 5), (2, 40), (2, 7), (30, 90)]:
        score[y, x] = 200
    score[50:52, 50:52] = 200
    corners = [d.bbox[:2] for d in find_defects(score, 0.5, 1)]
    assert corners == [(50, 50), (7, 2), (40, 2), (5, 30), (90, 30)]


@given(st.integers(0, 2**32 - 1), st.floats(0, 1), st.integers(1, 6))
def test_defects_account_for_every_pixel_of_the_mask(
    seed: int, threshold: float, min_area: int
) -> None:
    random = np.random.default_rng(seed)
    score = random.integers(0, 256, (24, 40), dtype=np.uint8)
    score[random.random(score.shape) < 0.6] = 0
    every = find_defects(score, threshold, 1)
    assert sum(d.area_px for d in every) == np.count_nonzero(defect_mask(score, threshold))
    total = sum(d.mean_score * d.area_px for d in every)
    assert total == pytest.approx(score[defect_mask(score, threshold) > 0].sum())
    assert find_defects(score, threshold, min_area) == [d for d in every if d.area_px >= min_area]
    for d in every:
        x, y, width, height = d.bbox
        box = score[y : y + height, x : x + width]
        assert box.shape == (height, width)
        assert d.max_score in box
        assert d.mean_score <= d.max_score
        assert max(width, height) <= d.area_px <= width * height
