from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tinyunet_deploy.contract import Score, score_threshold
from tinyunet_deploy.inspection.defects import find_defects, verdict
from tinyunet_deploy.quality.part_score import (
    area_profile,
    deciding_score,
    largest_region,
    part_at,
    score_part,
)

SCORES = arrays(np.uint8, (7, 9), elements=st.sampled_from([0, 1, 5, 120, 121, 254, 255]))


@given(SCORES, st.integers(1, 20))
def test_the_deciding_score_rejects_where_the_inspection_does(score: Score, min_area: int) -> None:
    deciding = deciding_score(score, min_area)
    for step in (0, 1, 4, 5, 119, 120, 121, 200, 253, 254, 255):
        defects = find_defects(score, step / 255, min_area)
        assert score_threshold(step / 255) == step
        assert (deciding > step) == (verdict(defects) == "NG")


@given(SCORES)
def test_the_profile_is_the_largest_region_at_every_step(score: Score) -> None:
    profile = area_profile(score)
    assert profile.tolist() == [largest_region(score, step) for step in range(256)]


@given(SCORES, st.integers(1, 20), st.floats(0, 1))
def test_a_part_from_its_profile_is_the_part_from_its_score(
    score: Score, min_area: int, threshold: float
) -> None:
    measured = score_part(score, threshold, min_area, name="a", defective=True)
    profile = area_profile(score)
    assert part_at(profile, threshold, min_area, name="a", defective=True) == measured
    assert measured.largest_px == max(
        (defect.area_px for defect in find_defects(score, threshold, 1)), default=0
    )


@pytest.mark.parametrize(
    ("min_area", "deciding"), [(1, 250), (2, 250), (3, 90), (5, 90), (6, 0), (64, 0)]
)
def test_the_deciding_score_is_the_weakest_pixel_of_the_best_region(
    min_area: int, deciding: int
) -> None:
    score = np.zeros((8, 8), np.uint8)
    score[0, 0] = score[1, 1] = 250  # diagonal neighbours are one region
    score[5, 1:6] = 90
    assert deciding_score(score, min_area) == deciding
