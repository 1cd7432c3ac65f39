from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyunet_deploy.inspection.defects import find_defects
from tinyunet_deploy.quality.confidence import clopper_pearson_upper
from tinyunet_deploy.quality.threshold_sweep import (
    ESCAPE_COST,
    THRESHOLDS,
    Sweep,
    SweepPoint,
    largest_defects,
    sweep,
)


@given(st.integers(0, 2**32 - 1), st.integers(1, 30))
def test_the_sweep_counts_what_the_verdicts_would_be(seed: int, min_area: int) -> None:
    random = np.random.default_rng(seed)
    scores = random.integers(0, 256, (6, 16, 24), dtype=np.uint8)
    scores[random.random(scores.shape) < 0.7] = 0
    defective = random.random(6) < 0.5
    thresholds = (0.1, 0.5, 0.9)
    sizes = [largest_defects(score, thresholds) for score in scores]
    swept = sweep(sizes, defective.tolist(), thresholds, [min_area])
    for at, threshold in enumerate(thresholds):
        rejected = np.array([bool(find_defects(s, threshold, min_area)) for s in scores])
        choice = swept.at(at, 0)
        assert (choice.threshold, choice.min_area) == (threshold, min_area)
        assert choice.escapes == (defective & ~rejected).sum()
        assert choice.overkills == (~defective & rejected).sum()


@given(st.integers(0, 2**32 - 1), st.floats(0.05, 1), st.floats(0.5, 40))
def test_a_choice_is_never_worse_than_another_pair(seed: int, rate: float, cost: float) -> None:
    random = np.random.default_rng(seed)
    sizes = -np.sort(-random.integers(0, 500, (20, 5)), axis=1)
    swept = sweep(sizes.tolist(), (random.random(20) < 0.5).tolist(), THRESHOLDS[:5])
    costs = cost * swept.escapes + swept.overkills
    chosen = swept.cheapest(cost)
    assert cost * chosen.escapes + chosen.overkills == costs.min()
    assert chosen.escapes == swept.escapes[costs == costs.min()].min()
    within = swept.within(rate)
    if within is not None:
        allowed = swept.escapes <= within.escapes
        assert within.overkills == swept.overkills[allowed].min()
    curve = swept.best_for_each_escape_count()
    for escapes, overkills in zip(swept.escapes.flat, swept.overkills.flat, strict=True):
        assert any(c.escapes <= escapes and c.overkills <= overkills for c in curve)


def table(escapes: list[list[int]], overkills: list[list[int]], defective: int = 100) -> Sweep:
    """Mistakes [thresholds, min_areas]; the pairs are numbered from 0.01 and from 1."""
    shape = np.shape(escapes)
    return Sweep(
        thresholds=tuple((np.arange(shape[0]) + 1) / 100),
        min_areas=tuple(range(1, shape[1] + 1)),
        escapes=np.array(escapes),
        overkills=np.array(overkills),
        defective=defective,
        good=100,
    )


def test_of_equal_cost_the_fewest_escapes_are_chosen() -> None:
    """Letting one defect through costs as much as 20 overkills, and there are more such pairs."""
    swept = table([[1, 1, 1, 0]], [[0, 0, 0, 20]])
    assert swept.cheapest() == SweepPoint(0.01, 4, escapes=0, overkills=20)
    assert swept.cheapest(ESCAPE_COST - 1).escapes == 1
    assert swept.cheapest(ESCAPE_COST + 1).escapes == 0


@pytest.mark.parametrize(
    ("equal", "threshold", "min_area"),
    [
        (["....", ".xx.", ".xx.", ".xx."], 3, 2),
        (["xxxxx", "xxxxx", "xxxxx", "....."], 2, 2),
        (["x....", "xxx..", "xxx..", "xxx.."], 3, 2),
        (["..x..", "..x.."], 2, 3),
    ],
)
def test_the_middle_of_equal_pairs_is_furthest_from_a_worse_one(
    equal: list[str], threshold: int, min_area: int
) -> None:
    """Then the smallest min_area, then the median threshold."""
    overkills = [[0 if mark == "x" else 1 for mark in row] for row in equal]
    chosen = table([[0] * len(row) for row in overkills], overkills).cheapest()
    assert (chosen.threshold, chosen.min_area) == (threshold / 100, min_area)


def test_within_keeps_the_target_with_confidence() -> None:
    swept = table([[0, 1, 2, 3]], [[9, 7, 5, 3]])
    for escapes in range(4):
        bound = clopper_pearson_upper(escapes, 100)
        chosen = swept.within(bound)
        assert chosen is not None and chosen.escapes == escapes
    assert swept.within(clopper_pearson_upper(0, 100) - 1e-9) is None
    strict = swept.within(clopper_pearson_upper(2, 100), confidence=0.99)
    assert strict is not None and strict.escapes < 2
    assert table([[2]], [[0]]).within(clopper_pearson_upper(1, 100)) is None


def test_the_curve_leaves_out_escapes_that_save_nothing() -> None:
    swept = table([[0, 1, 2, 2, 3]], [[5, 5, 4, 6, 4]])
    curve = [(point.escapes, point.overkills) for point in swept.best_for_each_escape_count()]
    assert curve == [(0, 5), (2, 4)]


def test_a_defect_of_exactly_min_area_rejects_the_part() -> None:
    swept = sweep([[10]], [True], [0.5], [9, 10, 11])
    assert swept.escapes.tolist() == [[0, 0, 1]]
    swept = sweep([[10]], [False], [0.5], [9, 10, 11])
    assert swept.overkills.tolist() == [[1, 1, 0]]


def test_the_largest_defect_counts_connected_pixels_above_the_threshold() -> None:
    score = np.zeros((8, 8), np.uint8)
    score[0, :5] = 128  # not above round(255 * 0.5)
    score[2, 0] = score[3, 1] = score[4, 2] = 129  # 8-connected
    score[6, 5:7] = 255
    assert largest_defects(score, [0.4, 0.5, 0.6, 1.0]) == [5, 3, 2, 0]
