from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from export.calibrate import (
    METHODS,
    entropy,
    histogram,
    histogram_percentile,
    histograms,
    largest,
    ranges,
)
from tests.export.conftest import SIZE, output_of

RESOLUTION = 1 / 128
"""Relative width of a bin of a histogram."""


@given(st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=300), st.floats(1.0, 100.0))
def test_a_percentile_holds_its_share_of_the_values_and_hardly_more(
    values: list[float], percent: float
) -> None:
    sizes = np.abs(np.array(values, np.float32))
    reach = histogram_percentile(histogram(np.array(values, np.float32)), percent)
    assert np.mean(sizes < reach) >= percent / 100 - 1e-9
    exact = np.quantile(sizes, percent / 100, method="inverted_cdf")
    assert exact < reach <= exact * (1 + RESOLUTION) + 1e-30


@given(st.lists(st.floats(-1e6, 1e6, width=32), min_size=1))
def test_minmax_holds_every_value(values: list[float]) -> None:
    top = max(map(abs, values))
    reach = largest(histogram(np.array(values, np.float32)))
    assert top - 1e-40 <= reach <= top * (1 + RESOLUTION) + 1e-30


def test_histograms_of_parts_add_up() -> None:
    values = np.random.default_rng(0).normal(size=1000).astype(np.float32)
    whole = histogram(values)
    assert (whole == histogram(values[:300]) + histogram(values[300:])).all()
    assert whole.sum() == 1000


def test_entropy_drops_rare_outliers_and_keeps_an_even_spread() -> None:
    generator = np.random.default_rng(0)
    normal = generator.normal(size=200_000).astype(np.float32)
    with_outliers = np.append(normal, np.float32([100, 120, 150]))
    assert 2.0 < entropy(histogram(with_outliers)) < 20.0
    even = generator.uniform(-3, 3, 200_000).astype(np.float32)
    assert entropy(histogram(even)) == pytest.approx(3.0, rel=0.1)


def test_dead_activations_do_not_stop_a_calibration() -> None:
    dead = histogram(np.zeros(100, np.float32))
    for method in METHODS.values():
        assert 0.0 <= method(dead) < 1e-30


def test_the_histograms_are_those_of_what_the_relus_give(float32: onnx.ModelProto) -> None:
    image = np.full((SIZE, SIZE), 255, np.uint8)
    counts = histograms(float32, [image, image])
    assert len(counts) == 22
    name, first = next(iter(counts.items()))
    given = output_of(float32, name, [image])
    assert first.sum() == 2 * given.size
    assert largest(first) == pytest.approx(given.max(), rel=RESOLUTION)


@pytest.mark.parametrize("method", METHODS)
def test_a_range_is_never_zero(method: str) -> None:
    mostly_zero = histogram(np.append(np.zeros(10**6), 8.0).astype(np.float32))
    reaches = ranges({"dead": histogram(np.zeros(9, np.float32)), "sparse": mostly_zero}, method)
    assert reaches["dead"] == 1.0
    assert reaches["sparse"] >= 8e-3


def test_each_percentile_is_the_one_of_its_name() -> None:
    shares = {1.0: 9_985_000, 2.0: 13_900, 4.0: 900, 8.0: 180, 16.0: 20}
    counts = sum(
        (count * histogram(np.float32([value])) for value, count in shares.items()),
        start=np.zeros_like(histogram(np.zeros(1, np.float32))),
    )
    expected = {"99.9": 2.0, "99.99": 4.0, "99.999": 8.0, "99.9999": 16.0}
    for percent, value in expected.items():
        reach = METHODS[f"percentile-{percent}"](counts)
        assert reach == pytest.approx(value, rel=RESOLUTION), percent
