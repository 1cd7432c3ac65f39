from __future__ import annotations

import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyunet_deploy.quality.confidence import clopper_pearson_upper, trials_to_show


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


@pytest.mark.parametrize(
    ("rate", "events", "confidence", "trials"),
    [
        (0.05, 0, 0.95, 59),  # ln 0.05 / ln 0.95 = 58.4
        (0.01, 0, 0.95, 299),
        (0.001, 0, 0.95, 2995),
        (0.01, 1, 0.95, 473),  # the usual table of acceptance sampling: 299, 473, 628
        (0.01, 2, 0.95, 628),
        (0.03, 0, 0.95, 99),
        (0.01, 0, 0.99, 459),
        (1.0, 3, 0.95, 3),
    ],
)
def test_sample_sizes_of_the_tables(
    rate: float, events: int, confidence: float, trials: int
) -> None:
    assert trials_to_show(rate, events, confidence) == trials


def test_no_sample_proves_a_rate_of_zero() -> None:
    assert trials_to_show(0.0) == math.inf


@given(st.floats(0.004, 0.9), st.integers(0, 5), st.sampled_from([0.5, 0.9, 0.95, 0.999]))
def test_the_sample_proves_the_rate_and_one_part_less_does_not(
    rate: float, events: int, confidence: float
) -> None:
    trials = int(trials_to_show(rate, events, confidence))
    assert clopper_pearson_upper(events, trials, confidence) <= rate
    if trials > events + 1:
        assert clopper_pearson_upper(events, trials - 1, confidence) > rate


@pytest.mark.parametrize(
    ("events", "trials", "confidence", "bound"),
    [  # statsmodels 0.15.0, proportion_confint(..., alpha=2 * (1 - confidence), method="beta")
        (0, 14, 0.95, 0.19263617565),
        (0, 100, 0.95, 0.029513049607),
        (1, 26, 0.95, 0.169831223),
        (3, 1900, 0.95, 0.004075769364),
        (11, 1900, 0.99, 0.011279271467),
        (2, 100, 0.9, 0.05234529018),
        (40, 41, 0.95, 0.998749726284),
        (7, 2000, 0.999, 0.009782152716),
    ],
)
def test_bounds_are_those_of_statsmodels(
    events: int, trials: int, confidence: float, bound: float
) -> None:
    assert clopper_pearson_upper(events, trials, confidence) == pytest.approx(bound, abs=1e-11)


@pytest.mark.parametrize(("events", "trials"), [(0, 100), (3, 100), (11, 1900), (40, 41)])
@pytest.mark.parametrize("confidence", [0.9, 0.95, 0.99])
def test_bounds_are_those_of_scipy(events: int, trials: int, confidence: float) -> None:
    stats = pytest.importorskip("scipy.stats")
    bound = clopper_pearson_upper(events, trials, confidence)
    assert bound == pytest.approx(stats.beta.ppf(confidence, events + 1, trials - events))
