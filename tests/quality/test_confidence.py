from __future__ import annotations

import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyunet_deploy.quality.confidence import clopper_pearson_upper


def binomial_cdf(events: int, trials: int, rate: Fraction) -> Fraction:
    terms = (math.comb(trials, k) * rate**k * (1 - rate) ** (trials - k) for k in range(events + 1))
    return sum(terms, Fraction(0))


@pytest.mark.parametrize(
    ("events", "trials", "confidence", "bound"),
    [
        (0, 71, 0.95, 1 - 0.05 ** (1 / 71)),
        (0, 71, 0.975, 0.050629),  # the upper end of the usual two-sided interval
        (0, 14, 0.95, 0.192636),
        (1, 10, 0.975, 0.445016),
        (5, 10, 0.975, 0.812914),
        (10, 10, 0.95, 1.0),
    ],
)
def test_clopper_pearson_bounds_of_the_tables(
    events: int, trials: int, confidence: float, bound: float
) -> None:
    assert clopper_pearson_upper(events, trials, confidence) == pytest.approx(bound, abs=1e-6)
    assert math.isnan(clopper_pearson_upper(0, 0))


@given(st.integers(1, 60), st.data(), st.sampled_from([0.5, 0.9, 0.95, 0.999]))
def test_at_the_bound_so_few_events_are_as_unlikely_as_they_may_be(
    trials: int, data: st.DataObject, confidence: float
) -> None:
    events = data.draw(st.integers(0, trials - 1))
    bound = clopper_pearson_upper(events, trials, confidence)
    assert events / trials < bound < clopper_pearson_upper(events + 1, trials, confidence)
    exact = float(binomial_cdf(events, trials, Fraction(bound)))
    assert exact == pytest.approx(1 - confidence, rel=1e-9)


def test_the_bound_of_a_large_set_is_that_of_poisson() -> None:
    half_chi_square = 15.507313 / 2  # its 0.95 quantile with 8 degrees of freedom
    assert clopper_pearson_upper(3, 20000) == pytest.approx(half_chi_square / 20000, rel=1e-3)
