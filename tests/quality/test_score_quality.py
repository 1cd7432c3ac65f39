from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyunet_deploy.quality.part_score import PartScore
from tinyunet_deploy.quality.score_quality import Reliability, ScoreQuality, score_counts


def test_the_curve_and_its_error_are_those_counted_by_hand() -> None:
    counts = np.zeros((2, 256), np.int64)
    counts[0, 51], counts[1, 51] = 3, 1  # 0.2 said, 0.25 true
    counts[1, 255] = 4  # 1.0 said, 1.0 true
    counts[0, 204] = 2  # 0.8 said, 0 true
    curve = Reliability.of(counts)
    assert [row.total for row in curve.bins] == [4, 2, 4]
    assert [row.defective for row in curve.bins] == [0.25, 0, 1]
    assert [row.mean_probability for row in curve.bins] == pytest.approx([0.2, 0.8, 1])
    assert curve.expected_calibration_error == pytest.approx((4 * 0.05 + 2 * 0.8 + 0) / 10)


def test_nothing_counted_has_no_error() -> None:
    curve = Reliability.of(np.zeros((2, 256), np.int64))
    assert curve.bins == ()
    assert math.isnan(curve.expected_calibration_error)


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 255)), min_size=1))
def test_the_error_is_that_of_the_definition(scores: list[tuple[bool, int]]) -> None:
    parts = [PartScore("", defective, score, 0) for defective, score in scores]
    quality = ScoreQuality.of(parts, np.zeros((2, 256), np.int64))
    bins: dict[int, list[tuple[bool, float]]] = {}
    for defective, score in scores:
        bins.setdefault(min(score * 10 // 255, 9), []).append((defective, score / 255))
    apart = sum(
        abs(sum(score for _, score in rows) - sum(bad for bad, _ in rows)) for rows in bins.values()
    )
    error = quality.parts.expected_calibration_error
    assert error == pytest.approx(apart / len(scores))
    assert quality.graded_parts == sum(5 <= score <= 250 for _, score in scores)


def test_pixels_are_counted_by_truth_and_score() -> None:
    score = np.array([[0, 255], [7, 7]], np.uint8)
    truth = np.array([[0, 255], [255, 0]], np.uint8)
    counts = score_counts(score, truth)
    assert counts.sum() == 4
    assert counts[0, 0] == counts[1, 255] == counts[0, 7] == counts[1, 7] == 1


def test_scores_at_both_ends_only_are_not_graded() -> None:
    parts = [PartScore("", True, 255, 9), PartScore("", False, 0, 0), PartScore("", True, 251, 9)]
    quality = ScoreQuality.of(parts, np.zeros((2, 256), np.int64))
    assert (quality.graded_parts, quality.images) == (0, 3)
    assert quality.as_fields()["graded_share"] == 0
