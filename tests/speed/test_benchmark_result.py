from __future__ import annotations

import dataclasses
import json
import math
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyunet_deploy.errors import DataError
from tinyunet_deploy.inspection.trace import STAGES
from tinyunet_deploy.speed.benchmark_result import PERCENTILES, Series, percentile, read_benchmark

EXAMPLE = Path(__file__).parent.parent / "fixtures" / "benchmark-example.json"

times = st.lists(st.floats(0.001, 1e6), min_size=1, max_size=300)


@given(times, st.integers(1, 999))
def test_a_percentile_is_that_of_numpy_or_is_not_given(samples: list[float], share: int) -> None:
    found = percentile(samples, share)
    rank = math.ceil(Fraction(share, 1000) * len(samples))
    if rank == len(samples):
        assert math.isnan(found)
    else:
        exact = np.partition(samples, rank - 1)[rank - 1]
        assert found == exact
        # numpy rounds share * n, so that it may be one rank off where that is a whole number
        if share * len(samples) % 1000:
            assert found == np.quantile(samples, share / 1000, method="inverted_cdf")
        assert sum(sample > found for sample in samples) <= len(samples) * (1 - share / 1000) + 1e-9


@pytest.mark.parametrize(
    ("name", "enough"), [("p50", 2), ("p90", 10), ("p95", 20), ("p99", 100), ("p99_9", 1000)]
)
def test_a_percentile_needs_a_sample_above_it(name: str, enough: int) -> None:
    assert Series(tuple(map(float, range(enough)))).percentile_ms(name) == enough - 2
    assert math.isnan(Series(tuple(map(float, range(enough - 1)))).percentile_ms(name))


@given(times)
def test_every_sample_is_kept_and_none_is_clipped(samples: list[float]) -> None:
    series = Series(tuple(samples))
    assert series.summary()["max_ms"] == max(samples)
    assert series.summary()["n"] == len(samples)
    given_ms = [
        value for name in PERCENTILES if not math.isnan(value := series.percentile_ms(name))
    ]
    assert given_ms == sorted(given_ms)


def test_the_example_is_read_as_it_was_written() -> None:
    found = read_benchmark(EXAMPLE)
    assert json.loads(found.as_json()) == json.loads(EXAMPLE.read_text())
    table = found.stages[0]
    assert tuple(row.stage for row in table.rows) == STAGES
    raw = json.loads(EXAMPLE.read_text())["measurements"][0]["end_to_end"]
    assert raw["p50_ms"] == percentile(raw["samples_ms"], 500)
    assert raw["p99_9_ms"] is None


def test_another_schema_version_is_refused(tmp_path: Path) -> None:
    fields = json.loads(EXAMPLE.read_text())
    other = tmp_path / "other.json"
    for change in ({"schema_version": 99}, {"kind": "parity"}, {"measurements": [{}]}):
        other.write_text(json.dumps({**fields, **change}))
        with pytest.raises(DataError, match="no result of tinyunet benchmark"):
            read_benchmark(other)


def test_a_wrong_answer_is_red() -> None:
    found = read_benchmark(EXAMPLE)
    wrong = dataclasses.replace(found.measurements[0].check, outcome="red")
    row = dataclasses.replace(found.measurements[0], check=wrong)
    assert row in dataclasses.replace(found, measurements=(row,)).red
