from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from torchmetrics.classification import BinaryAUROC, BinaryF1Score, BinaryJaccardIndex

from tinyunet_deploy.contract import score_threshold
from tinyunet_deploy.inspection.defects import Verdict
from tinyunet_deploy.quality.confidence import clopper_pearson_upper
from tinyunet_deploy.quality.metrics import (
    BOUNDS,
    FORMULAS,
    REFERENCE_THRESHOLDS,
    ImageCounts,
    MetricSummary,
    Ratios,
    auroc,
    count_image,
    count_pixels,
    mean_of,
    summarize,
)

Uint8 = NDArray[np.uint8]

OPERATING = 0.4


def square(left: int, value: int) -> Uint8:
    """10 rows x 10 columns of `value` in 20x40, at the column `left`."""
    image = np.zeros((20, 40), np.uint8)
    image[5:15, left : left + 10] = value
    return image


def counts(
    score: Uint8, truth: Uint8, verdict: Verdict = "OK", *, defective: bool | None = None
) -> ImageCounts:
    return count_image(
        score,
        truth,
        name="0001.PNG",
        class_id=1,
        defective=bool(truth.any()) if defective is None else defective,
        verdict=verdict,
        threshold=OPERATING,
    )


NOTHING = square(0, 0)
TRUTH = square(10, 255)


@pytest.mark.parametrize(
    ("score", "truth", "iou", "dice"),
    [
        pytest.param(square(10, 255), TRUTH, 1.0, 1.0, id="perfect"),
        pytest.param(square(20, 255), TRUTH, 0.0, 0.0, id="disjoint"),
        pytest.param(square(15, 255), TRUTH, 50 / 150, 100 / 200, id="half overlap"),
        pytest.param(NOTHING, TRUTH, 0.0, 0.0, id="missed"),
        pytest.param(NOTHING, NOTHING, 0.0, 1.0, id="both empty"),
    ],
)
def test_iou_and_dice_of_cases_computed_by_hand(
    score: Uint8, truth: Uint8, iou: float, dice: float
) -> None:
    image = counts(score, truth)
    assert image.iou(OPERATING) == iou
    assert image.dice(OPERATING) == pytest.approx(dice, abs=1e-6)


def test_a_union_of_one_pixel_is_divided_by_one() -> None:
    pixel = NOTHING.copy()
    pixel[3, 4] = 255
    assert counts(pixel, pixel).iou(OPERATING) == 1.0


def test_one_false_pixel_on_a_clean_image_costs_the_whole_reference_dice() -> None:
    score = NOTHING.copy()
    score[0, 0] = 255
    image = counts(score, NOTHING)
    assert image.dice(OPERATING) == pytest.approx(0.0, abs=1.1e-5)
    assert image.dice_nothing() == 1.0


@pytest.mark.parametrize("threshold", [0.0, OPERATING, *REFERENCE_THRESHOLDS, 1.0])
def test_a_pixel_is_predicted_from_one_step_above_the_rounded_threshold(threshold: float) -> None:
    limit = round(255 * threshold)
    at = np.full((16, 16), limit, np.uint8)
    truth = np.full((16, 16), 255, np.uint8)
    assert count_pixels(at, truth, [threshold])[1][threshold] == (0, 0)
    if limit < 255:
        assert count_pixels(at + np.uint8(1), truth, [threshold])[1][threshold] == (256, 256)


pictures = st.tuples(
    st.integers(0, 2**32 - 1), st.integers(1, 40), st.integers(1, 40), st.integers(1, 256)
)


@given(pictures, st.floats(0, 1))
def test_the_histogram_counts_what_comparing_every_pixel_counts(
    picture: tuple[int, int, int, int], threshold: float
) -> None:
    seed, height, width, values = picture
    random = np.random.default_rng(seed)
    score = random.integers(0, values, (height, width), dtype=np.uint8)
    truth = np.where(random.random((height, width)) < random.random(), 255, 0).astype(np.uint8)

    truth_px, pixels = count_pixels(score, truth, (threshold, *REFERENCE_THRESHOLDS))
    assert truth_px == np.count_nonzero(truth)
    for each, (predicted, intersection) in pixels.items():
        above = score > score_threshold(each)
        assert predicted == np.count_nonzero(above)
        assert intersection == np.count_nonzero(above & (truth > 0))
        assert intersection <= min(predicted, truth_px)

    image = count_image(
        score, truth, name="", class_id=None, defective=True, verdict="NG", threshold=threshold
    )
    assert image.max_score == score.max()
    for each in pixels:
        assert 0 <= image.iou(each) <= image.dice(each) <= 1


def test_sizes_that_differ_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(20, 40\).*\(16, 16\)"):
        count_pixels(NOTHING, np.zeros((16, 16), np.uint8), [0.5])


def test_figures_agree_with_torchmetrics() -> None:
    random = np.random.default_rng(7)
    truths = np.zeros((12, 48, 48), np.uint8)
    truths[:7, 10:30, 12:40] = 255
    noise = random.normal(60, 50, truths.shape)
    scores = np.clip(noise + truths * 0.4, 0, 255).astype(np.uint8)
    images = [counts(score, truth) for score, truth in zip(scores, truths, strict=True)]
    summary = summarize(images, OPERATING)

    predicted = torch.from_numpy((scores > 102).astype(np.int64))
    target = torch.from_numpy((truths > 0).astype(np.int64))
    per_image = [BinaryJaccardIndex()(predicted[i], target[i]).item() for i in range(7)]
    assert summary.iou_defective == pytest.approx(np.mean(per_image), abs=1e-6)
    overall = BinaryJaccardIndex()(predicted, target).item()
    assert summary.iou_global == pytest.approx(overall, abs=1e-6)
    f1 = [BinaryF1Score()(predicted[i], target[i]).item() for i in range(7)]
    clean = [1e-5 / (int(predicted[i].sum()) + 1e-5) for i in range(7, 12)]
    assert summary.dice == pytest.approx(np.mean(f1 + clean), abs=1e-6)


@given(
    st.lists(st.integers(0, 255), min_size=1, max_size=20),
    st.lists(st.integers(0, 255), min_size=1, max_size=20),
)
def test_auroc_counts_ordered_pairs_and_half_of_the_ties(
    defective: list[int], good: list[int]
) -> None:
    pairs = [(d > g) + 0.5 * (d == g) for d in defective for g in good]
    assert auroc(defective, good) == pytest.approx(np.mean(pairs))
    assert auroc(defective, good) + auroc(good, defective) == pytest.approx(1.0)


def test_auroc_agrees_with_torchmetrics() -> None:
    random = np.random.default_rng(3)
    good, defective = random.integers(0, 60, 50).tolist(), random.integers(30, 90, 30).tolist()
    scores = torch.tensor(good + defective) / 255
    expected = BinaryAUROC(thresholds=None)(scores, torch.tensor([0] * 50 + [1] * 30))
    assert auroc(defective, good) == pytest.approx(expected.item(), abs=1e-6)


def test_summary_of_a_set_computed_by_hand() -> None:
    false_pixel = NOTHING.copy()
    false_pixel[0, 0] = 200
    images = [
        counts(square(10, 250), TRUTH, "NG"),  # I 100, U 100
        counts(square(15, 150), TRUTH, "NG"),  # I 50, U 150
        counts(NOTHING, TRUTH, "OK"),  # I 0, U 100: escapes
        counts(NOTHING, NOTHING, "OK"),
        counts(false_pixel, NOTHING, "NG"),  # I 0, U 1: a false alarm
    ]
    summary = summarize(images, OPERATING)
    assert (summary.images, summary.defective) == (5, 3)
    assert (summary.escapes, summary.overkills) == (1, 1)
    assert (summary.intersection_px, summary.union_px) == (150, 351)
    assert summary.iou_defective == pytest.approx((1 + 1 / 3 + 0) / 3)
    assert summary.iou_global == 150 / 351
    assert summary.dice == pytest.approx((1 + 1 / 2 + 0 + 1 + 0) / 5, abs=1e-5)
    assert summary.dice_nothing == pytest.approx(2 / 5, abs=1e-6)
    assert summary.escape_rate == 1 / 3
    assert summary.overkill_rate == 1 / 2
    assert summary.escape_rate_upper_95 == clopper_pearson_upper(1, 3)
    assert summary.overkill_rate_upper_95 == clopper_pearson_upper(1, 2)
    bounds = {name: getattr(summary, name) for name in BOUNDS}
    assert summary.as_fields() == {**dataclasses.asdict(summary), **bounds}
    # max_score 250 is above 0 and 200, 150 above 0 only, and 0 ties with 0
    assert summary.auroc == pytest.approx((2 + 1 + 0.5) / 6)
    assert tuple(summary.dice_reference) == REFERENCE_THRESHOLDS
    assert summary.dice_reference[0.5] == pytest.approx(summary.dice)
    # at 0.75 (191) the second prediction is gone, at 0.85 (217) so is the false pixel
    assert summary.dice_reference[0.75] == pytest.approx(2 / 5, abs=1e-5)
    assert summary.dice_reference[0.85] == pytest.approx(3 / 5, abs=1e-5)


def test_predicting_nothing_scores_the_share_of_clean_images() -> None:
    images = [counts(NOTHING, TRUTH)] * 3 + [counts(NOTHING, NOTHING)] * 17
    summary = summarize(images, OPERATING)
    assert summary.dice_nothing == pytest.approx(0.85, abs=1e-6)
    assert summary.dice_reference == dict.fromkeys(REFERENCE_THRESHOLDS, summary.dice_nothing)
    assert summary.iou_defective == 0.0


def test_a_defect_with_an_empty_truth_never_counts_as_found() -> None:
    image = counts(NOTHING, NOTHING, defective=True)
    assert summarize([image], OPERATING).iou_defective == 0.0


def test_a_ratio_of_nothing_is_nan() -> None:
    clean = summarize([counts(NOTHING, NOTHING)], OPERATING)
    assert math.isnan(clean.iou_defective)
    assert math.isnan(clean.iou_global)
    assert math.isnan(clean.escape_rate)
    assert math.isnan(clean.auroc)
    assert clean.overkill_rate == 0.0
    assert math.isnan(summarize([counts(TRUTH, TRUTH)], OPERATING).overkill_rate)


def test_the_mean_is_over_the_classes_where_a_ratio_is_defined() -> None:
    found = summarize([counts(square(10, 255), TRUTH, "NG")], OPERATING)
    halved = summarize([counts(square(15, 255), TRUTH, "OK")] * 9, OPERATING)
    clean = summarize([counts(NOTHING, NOTHING)], OPERATING)
    mean = mean_of([found, halved, clean])
    assert mean.iou_defective == pytest.approx((1 + 1 / 3) / 2)
    assert mean.escape_rate == 0.5
    assert mean.overkill_rate == 0.0
    assert mean.dice == pytest.approx((1 + 1 / 2 + 1) / 3, abs=1e-6)
    assert mean.dice_reference[0.99] == pytest.approx(mean.dice)
    assert math.isnan(mean.auroc)
    assert not isinstance(mean, MetricSummary)


def test_every_ratio_has_its_formula() -> None:
    assert list(FORMULAS) == [field.name for field in dataclasses.fields(Ratios)]
