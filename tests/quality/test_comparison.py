"""Scores of an artifact held against its reference's: which pixels, verdicts and IoUs differ."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra.numpy import arrays

from tinyunet_deploy.artifacts.sidecar import Decision
from tinyunet_deploy.contract import Score
from tinyunet_deploy.quality.comparison import (
    WORST,
    ScoreComparison,
    VerdictFlip,
    step_difference,
)

THRESHOLD = 0.5
LIMIT = 128
"""Largest score that is still good at that threshold."""


def comparison(min_area: int = 1) -> ScoreComparison:
    return ScoreComparison(THRESHOLD, min_area)


def scores(*values: int) -> Score:
    """One row of pixels, two apart so that no two defects touch."""
    row = np.zeros((1, 2 * len(values)), np.uint8)
    row[0, ::2] = values
    return row


@pytest.mark.parametrize(
    ("expected", "score", "near", "far"),
    [
        (LIMIT, LIMIT + 1, 1, 0),
        (LIMIT - 8, 255, 1, 0),
        (LIMIT - 9, 255, 0, 1),
        (LIMIT + 8, 0, 1, 0),
        (LIMIT + 9, 0, 0, 1),
        (0, 255, 0, 1),
        (255, 0, 0, 1),
        (0, LIMIT, 0, 0),
        (LIMIT + 1, 255, 0, 0),
    ],
)
def test_a_flipped_pixel_is_near_where_the_reference_was_near(
    expected: int, score: int, near: int, far: int
) -> None:
    result = comparison()
    result.add(scores(score), scores(expected), "a")
    assert (result.flipped_near, result.flipped_far) == (near, far)


def test_pixels_are_summed_over_images() -> None:
    result = comparison()
    for _ in range(2):
        result.add(scores(200, 200, 0), scores(200, 0, LIMIT + 1), "a")
    assert (result.images, result.flipped_near, result.flipped_far) == (2, 2, 2)
    assert (result.intersection_px, result.union_px) == (2, 6)
    assert result.figures["agreement"] == 2 / 6
    assert result.histogram.sum() == 2 * 6
    assert result.histogram[[0, 129, 200]].tolist() == [8, 2, 2]


def test_the_same_scores_agree_in_every_figure() -> None:
    result = comparison()
    result.add(scores(0, 255, 7), scores(0, 255, 7), "a")
    figures = result.figures
    assert math.isnan(figures.pop("iou_drop"))
    assert figures == {
        "largest_steps": 0,
        "p999_steps": 0,
        "agreement": 1.0,
        "flips": 0,
        "flips_defective": 0,
        "lost_defective": 0,
        "new_alarms": 0,
    }
    assert result.worst == []
    assert result.least_agreement == 1.0


def test_without_an_image_nothing_differs() -> None:
    figures = comparison().figures
    assert math.isnan(figures.pop("iou_drop"))
    assert figures.pop("agreement") == 1.0
    assert set(figures.values()) == {0}


def test_images_without_a_defect_in_either_agree() -> None:
    result = comparison()
    result.add(scores(0), scores(1), "a")
    assert (result.union_px, result.figures["agreement"], result.least_agreement) == (0, 1.0, 1.0)


def test_the_least_agreement_is_of_one_image_and_agreement_of_all() -> None:
    result = comparison()
    result.add(scores(255, 255, 255), scores(255, 255, 255), "a")
    result.add(scores(255, 255, 0), scores(255, 0, 255), "b")
    result.add(scores(255, 255), scores(255, 0), "c")
    assert result.least_agreement == 1 / 3
    assert result.figures["agreement"] == 5 / 8


@pytest.mark.parametrize("steps", [1, 40, 255])
@pytest.mark.parametrize(
    ("differing", "seen"), [(0, False), (1, False), (10, False), (11, True), (10_000, True)]
)
def test_p999_leaves_out_one_pixel_in_a_thousand_and_not_one_in_a_hundred(
    differing: int, seen: bool, steps: int
) -> None:
    score = np.zeros((100, 100), np.uint8)
    score.ravel()[:differing] = steps
    result = comparison()
    result.add(score, np.zeros_like(score), "a")
    figures = result.figures
    assert figures["p999_steps"] == steps * seen
    assert figures["largest_steps"] == (steps if differing else 0)


@pytest.mark.parametrize(
    ("score", "expected", "verdicts"), [(255, 0, ("OK", "NG")), (0, 255, ("NG", "OK"))]
)
@pytest.mark.parametrize("defective", [None, False, True])
def test_a_flip_of_the_verdict_counts_by_whether_the_part_is_defective(
    score: int, expected: int, verdicts: tuple[str, str], defective: bool | None
) -> None:
    result = comparison()
    result.add(scores(score), scores(expected), "a", defective=defective)
    truly = expected == 255 if defective is None else defective
    assert result.flips == [VerdictFlip("a", truly, *verdicts)]
    figures = result.figures
    assert figures["flips"] == 1
    assert figures["flips_defective"] == truly
    alarm = 1 if score == 255 else -1
    assert figures["new_alarms"] == (0 if truly else alarm)


def test_alarms_that_went_pay_for_new_ones() -> None:
    result = comparison()
    for score, expected in ((255, 0), (255, 0), (0, 255)):
        result.add(scores(score), scores(expected), "a", defective=False)
    assert (result.figures["flips"], result.figures["new_alarms"]) == (3, 1)


def test_a_defect_under_the_smallest_area_flips_no_verdict() -> None:
    def blob(pixels: int) -> Score:
        image = np.zeros((4, 4), np.uint8)
        image[0, :pixels] = 255
        return image

    result = comparison(min_area=3)
    result.add(blob(2), blob(0), "a")
    assert result.flips == []
    result.add(blob(3), blob(2), "b")
    assert result.flips == [VerdictFlip("b", False, "OK", "NG")]
    result.add(blob(2), blob(3), "c")
    assert result.flips[1:] == [VerdictFlip("c", True, "NG", "OK")]


def test_the_drop_of_the_iou_is_of_defective_images_with_a_truth() -> None:
    truth = scores(1, 1, 0)
    result = comparison()
    result.add(scores(255, 0, 0), scores(255, 255, 0), "a", truth=truth, defective=True)
    result.add(scores(255, 255, 0), scores(255, 255, 255), "b", truth=truth, defective=True)
    result.add(scores(255, 0, 0), scores(0, 0, 0), "good", truth=0 * truth, defective=False)
    result.add(scores(0, 0, 0), scores(255, 0, 0), "no truth")
    assert result.ious == [1 / 2, 1.0]
    assert result.reference_ious == [1.0, 2 / 3]
    assert result.figures["iou_drop"] == pytest.approx((1 + 2 / 3) / 2 - (1 / 2 + 1) / 2)


def test_a_truth_without_a_pixel_gives_an_iou_of_0() -> None:
    result = comparison()
    result.add(scores(0), scores(0), "a", truth=scores(0), defective=True)
    assert (result.ious, result.reference_ious) == ([0.0], [0.0])
    result.add(scores(255), scores(255), "b", truth=scores(1), defective=True)
    assert (result.ious, result.reference_ious) == ([0.0, 1.0], [0.0, 1.0])


def test_the_worst_images_are_those_with_most_flipped_pixels_then_most_difference() -> None:
    result = comparison()
    pairs = [
        (scores(1, 0), scores(0, 0)),  # 1 step
        (scores(255, 0), scores(0, 0)),  # a flip
        (scores(0, 0), scores(0, 0)),  # nothing
        (scores(255, 255), scores(0, 0)),  # two flips
        (scores(100, 100), scores(0, 0)),  # 200 steps, no flip
        (scores(3, 0), scores(0, 0)),
    ]
    for score, expected in pairs:
        result.add(score, expected, "a")
    worst = sorted(result.worst, reverse=True)
    assert len(worst) == WORST == 3
    assert [(w.image_index, w.flipped_px, w.difference) for w in worst] == [
        (3, 2, 510),
        (1, 1, 255),
        (4, 0, 200),
    ]
    assert worst[0].score is pairs[3][0]


@given(arrays(np.uint8, (3, 4)), arrays(np.uint8, (3, 4)))
def test_a_difference_of_bytes_does_not_wrap(one: Score, other: Score) -> None:
    difference = step_difference(one, other)
    assert difference.tolist() == [
        [abs(int(a) - int(b)) for a, b in zip(*rows, strict=True)]
        for rows in zip(one, other, strict=True)
    ]


def test_each_network_decides_by_its_own_rule() -> None:
    """The same score of 100 is a defect for an artifact with a lower threshold of its own."""
    plain = ScoreComparison(THRESHOLD, 1)
    own = ScoreComparison(THRESHOLD, 1, own=Decision(0.3, 1))
    larger = ScoreComparison(THRESHOLD, 1, own=Decision(0.3, 2))
    for result in (plain, own, larger):
        result.add(scores(100), scores(200), "a", truth=scores(255), defective=True)
    assert (plain.figures["lost_defective"], own.figures["lost_defective"]) == (1, 0)
    assert larger.figures["lost_defective"] == 1
    assert (plain.figures["iou_drop"], own.figures["iou_drop"]) == (1.0, 0.0)


def test_a_defect_that_only_the_artifact_finds_is_not_lost() -> None:
    result = comparison()
    result.add(scores(200), scores(0), "found", defective=True)
    result.add(scores(200), scores(0), "alarm", defective=False)
    figures = result.figures
    assert (figures["flips_defective"], figures["lost_defective"]) == (1, 0)
    assert figures["new_alarms"] == 1


def test_the_interval_of_the_drop_holds_the_drop() -> None:
    result = comparison()
    assert result.iou_drop_interval is None
    for expected in (200, 200, 0, 200, 200, 200):
        result.add(scores(200, 0), scores(expected, 200), "a", truth=scores(255, 0), defective=True)
    low, high = result.iou_drop_interval or (1.0, -1.0)
    assert low < result.figures["iou_drop"] < high and low < 0 < 1 > high
    assert result.iou_drop_interval == (low, high)
