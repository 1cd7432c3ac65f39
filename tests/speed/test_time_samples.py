from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyunet_deploy.speed.time_samples import PERCENTILES, TimeSamples, percentile

times = st.lists(st.floats(0.001, 1e6), min_size=1, max_size=300)


@given(times, st.integers(1, 999))
def test_a_percentile_is_that_of_numpy_or_is_not_given(samples: list[float], share: int) -> None:
    value = percentile(samples, share)
    rank = math.ceil(Fraction(share, 1000) * len(samples))
    if rank == len(samples):
        assert math.isnan(value)
    else:
        exact = np.partition(samples, rank - 1)[rank - 1]
        assert value == exact
        # numpy rounds share * n, so that it may be one rank off where that is a whole number
        if share * len(samples) % 1000:
            assert value == np.quantile(samples, share / 1000, method="inverted_cdf")
        assert sum(sample > value for sample in samples) <= len(samples) * (1 - share / 1000) + 1e-9


@pytest.mark.parametrize(
    ("name", "enough"), [("p50", 2), ("p90", 10), ("p95", 20), ("p99", 100), ("p99_9", 1000)]
)
def test_a_percentile_needs_a_sample_above_it(name: str, enough: int) -> None:
    assert TimeSamples(tuple(map(float, range(enough)))).percentile_ms(name) == enough - 2
    assert math.isnan(TimeSamples(tuple(map(float, range(enough - 1)))).percentile_ms(name))


@given(times)
def test_every_sample_is_kept_and_none_is_clipped(samples: list[float]) -> None:
    series = TimeSamples(tuple(samples))
    assert series.figures()["max_ms"] == max(samples)
    assert series.figures()["n"] == len(samples)
    given_ms = [
        value for name in PERCENTILES if not math.isnan(value := series.percentile_ms(name))
    ]
    assert given_ms == sorted(given_ms)


def test_the_figures_of_a_thousand_samples() -> None:
    figures = TimeSamples(tuple(float(ms) for ms in range(1000, 0, -1))).figures()
    assert figures == {
        "n": 1000, "mean_ms": 500.5, "min_ms": 1, "p50_ms": 500, "p90_ms": 900, "p95_ms": 950,
        "p99_ms": 990, "p99_9_ms": 999, "max_ms": 1000,
    }  # fmt: skip


@pytest.mark.parametrize("thousandths", [-1, 0, 1000])
def test_a_share_outside_the_samples_is_not_a_percentile(thousandths: int) -> None:
    with pytest.raises(ValueError, match="not a percentile"):
        percentile([1.0, 2.0], thousandths)
