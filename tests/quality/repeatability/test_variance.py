from __future__ import annotations

import math

import numpy as np
import pytest

from tinyunet_deploy.quality.repeatability.variance import chi_square_quantile, split_variance


@pytest.mark.parametrize(
    ("probability", "freedom", "quantile"),
    [  # tables, such as Abramowitz & Stegun 26.8
        (0.95, 1, 3.841459),
        (0.95, 10, 18.307038),
        (0.05, 10, 3.940299),
        (0.025, 60, 40.481748),
        (0.975, 60, 83.297675),
        (0.5, 2, 2 * math.log(2)),
    ],
)
def test_quantiles_are_those_of_the_tables(
    probability: float, freedom: int, quantile: float
) -> None:
    assert chi_square_quantile(probability, freedom) == pytest.approx(quantile, rel=1e-5)


@pytest.mark.parametrize("freedom", [300, 531, 5000])
def test_quantiles_of_many_degrees_are_those_of_the_cube_root(freedom: int) -> None:
    """Wilson & Hilferty 1931: the cube root of chi-square / degrees is nearly normal."""
    for probability, normal in ((0.025, -1.959964), (0.975, 1.959964)):
        small = 2 / (9 * freedom)
        approximate = freedom * (1 - small + normal * small**0.5) ** 3
        assert chi_square_quantile(probability, freedom) == pytest.approx(approximate, rel=1e-4)


def test_a_table_by_hand() -> None:
    """Parts 10 and 20, repeats +0 and +2, an interaction of +-1: squares summed by hand."""
    split = split_variance(np.array([[11.0, 11.0], [19.0, 23.0]]), {})
    # means: parts 11, 21, repeats 15, 17, all 16; residuals +-1
    assert split.error == pytest.approx(4.0)
    # MS of parts = 2 * (25 + 25) = 100; of repeats = 2 * (1 + 1) = 4
    assert split.part == pytest.approx((100 - 4) / 2)
    assert split.repeat == 0
    assert split.error_lower == pytest.approx(4 / 5.023886, rel=1e-5)
    assert split.error_upper == pytest.approx(4 / 0.000982069, rel=1e-4)


def test_a_condition_by_hand() -> None:
    """Two lamps, two repeats of each, four parts without errors."""
    repeats = np.array([0.0, 2.0, 10.0, 12.0])
    table = np.array([0.0, 50.0, 100.0, 150.0])[:, None] + repeats
    split = split_variance(table, {"lamp": "aabb", "day": "mmmm"})
    (lamp,) = split.conditions
    assert (lamp.condition, lamp.levels) == ("lamp", 2)
    # of repeats, per part: within = (1 + 1 + 1 + 1) / 2 = 2, between = 2 * (25 + 25) / 1 = 100
    assert lamp.repeat_variance == pytest.approx(2)
    assert lamp.variance == pytest.approx((100 - 2) / 2)
    assert split.error == pytest.approx(0, abs=1e-9)


def test_one_repeat_for_each_value_cannot_be_separated() -> None:
    table = np.array([[0.0, 6.0, 3.0], [10.0, 16.0, 13.0]])
    split = split_variance(table, {"operator": "abc"})
    (operator,) = split.conditions
    assert split.repeat == pytest.approx(9), "the variance of 0, 6 and 3"
    assert math.isnan(operator.repeat_variance)
    assert operator.variance == pytest.approx(9)


def test_components_are_right_on_average_and_intervals_cover_as_often_as_they_claim() -> None:
    """500 studies of 12 parts, two operators with three repeats each, known variances."""
    random = np.random.default_rng(1)
    part, operator, repeat, error = 400.0, 100.0, 25.0, 9.0
    runs, covered = [], 0
    for _ in range(500):
        table = (
            random.normal(0, part**0.5, (12, 1))
            + np.repeat(random.normal(0, operator**0.5, 2), 3)
            + random.normal(0, repeat**0.5, 6)
            + random.normal(0, error**0.5, (12, 6))
        )
        split = split_variance(table, {"operator": "aaabbb"})
        (condition,) = split.conditions
        runs.append((split.part, condition.variance, condition.repeat_variance, split.error))
        covered += split.error_lower <= error <= split.error_upper
    # 0.95 of 500, within four standard deviations of a share of 500
    assert abs(covered / 500 - 0.95) < 4 * (0.95 * 0.05 / 500) ** 0.5
    means = np.mean(runs, axis=0)
    errors = np.std(runs, axis=0) / 500**0.5
    # zero instead of a negative estimate lifts the operator's mean a little
    for mean, deviation, truth in zip(means, errors, (part, operator, repeat, error), strict=True):
        assert abs(mean - truth) < 4 * deviation


def test_too_few_parts_or_repeats_are_refused() -> None:
    for shape in ((1, 5), (5, 1)):
        with pytest.raises(ValueError, match="2 of each"):
            split_variance(np.zeros(shape), {})
