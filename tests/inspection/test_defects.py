from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tinyunet_deploy.contract import defect_mask
from tinyunet_deploy.inspection.defects import (
    Defect,
    TrueDefect,
    compare_with_truth,
    find_defects,
    recall_by_size,
    verdict,
)

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


def test_the_outline_has_the_pixels_of_the_edge() -> None:
    score = clean()
    score[10:14, 20:25] = 200
    score[11, 21] = 0  # a hole is inside the outline
    (defect,) = find_defects(score, 0.5, 1, contours=True)
    assert defect.contour is not None
    assert sorted(defect.contour) == [(20, 10), (20, 13), (24, 10), (24, 13)]
    assert find_defects(score, 0.5, 1)[0].contour is None


@given(st.integers(0, 2**32 - 1))
def test_outlines_filled_hold_every_defect_and_no_pixel_outside_their_boxes(seed: int) -> None:
    score = np.random.default_rng(seed).integers(0, 256, (24, 40), dtype=np.uint8)
    filled = np.zeros_like(score)
    for defect in find_defects(score, 0.7, 1, contours=True):
        outline = np.array(defect.contour)
        alone = cv2.fillPoly(np.zeros_like(score), [outline], 255)
        x, y, width, height = defect.bbox
        assert (outline.min(axis=0).tolist(), np.ptp(outline, axis=0).tolist()) == (
            [x, y],
            [width - 1, height - 1],
        )
        filled |= alone
    assert (filled[defect_mask(score, 0.7) > 0] == 255).all()


def test_square_millimetres_are_given_where_the_size_of_a_pixel_is_known() -> None:
    defect = Defect((1, 2, 4, 5), area_px=20, max_score=200, mean_score=150.0)
    assert defect.as_fields(0.5)["area_mm2"] == 5.0
    assert defect.as_fields() == {
        "bbox": (1, 2, 4, 5),
        "area_px": 20,
        "max_score": 200,
        "mean_score": 150.0,
    }


def truth_of(*boxes: tuple[int, int, int, int]) -> Uint8:
    truth = np.zeros((64, 96), np.uint8)
    for x, y, width, height in boxes:
        truth[y : y + height, x : x + width] = 255
    return truth


def test_hit_missed_and_false_defects() -> None:
    truth = truth_of((10, 10, 8, 8), (40, 10, 20, 20), (70, 40, 5, 5))
    score = clean()
    score[17:19, 17:19] = 220  # one pixel of it in the first
    score[15:25, 45:50] = 180  # two in the second
    score[15:25, 52:57] = 190
    score[50, 10:14] = 250  # in none
    score[42, 72] = 250  # in the third, but under min_area
    found = compare_with_truth(score, truth, 0.5, 3)
    assert [d.area_px for d in found.detected] == [50, 50, 4, 4]
    assert [d.bbox for d in found.false] == [(10, 50, 4, 1)]
    assert found.truth == [
        TrueDefect((40, 10, 20, 20), 400, 190, hit=True),
        TrueDefect((10, 10, 8, 8), 64, 220, hit=True),
        TrueDefect((70, 40, 5, 5), 25, 250, hit=False),
    ]
    assert found.missed == found.truth[2:]
    assert found.detected == find_defects(score, 0.5, 3)


def test_recall_is_given_by_the_size_in_the_truth() -> None:
    defects = [
        TrueDefect((0, 0, 1, 1), area, 0, hit=hit)
        for area, hit in [(1, True), (63, False), (64, True), (20000, True), (16384, False)]
    ]
    rows = [(row.from_px, row.below_px, row.truth, row.hit) for row in recall_by_size(defects)]
    assert [row for row in rows if row[2]] == [(1, 64, 2, 1), (64, 256, 1, 1), (16384, None, 2, 1)]
    assert sum(row[2] for row in rows) == len(defects)


@given(st.integers(0, 2**32 - 1), st.integers(1, 6))
def test_every_defect_is_in_the_truth_or_false_and_every_true_one_hit_or_missed(
    seed: int, min_area: int
) -> None:
    random = np.random.default_rng(seed)
    score = random.integers(0, 256, (24, 40), dtype=np.uint8)
    truth = np.where(random.random(score.shape) < 0.05, np.uint8(255), np.uint8(0))
    truth = cv2.dilate(truth, np.ones((2, 3), np.uint8)).astype(np.uint8)
    found = compare_with_truth(score, truth, 0.75, min_area)
    assert found.detected == find_defects(score, 0.75, min_area)
    assert sum(d.area_px for d in found.truth) == np.count_nonzero(truth)
    other = compare_with_truth(truth, np.where(score > 191, np.uint8(255), np.uint8(0)), 0.5, 1)
    if min_area == 1:  # the same the other way round
        assert {d.bbox for d in found.false} == {d.bbox for d in other.truth if not d.hit}
        assert {d.bbox for d in found.missed} == {d.bbox for d in other.false}
