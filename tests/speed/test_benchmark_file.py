from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from tinyunet_deploy.errors import DataError
from tinyunet_deploy.inspection.trace import STAGES
from tinyunet_deploy.speed.benchmark_file import benchmark_json, read_benchmark
from tinyunet_deploy.speed.time_samples import percentile

EXAMPLE = Path(__file__).parent.parent / "fixtures" / "benchmark-example.json"


def test_the_example_is_read_as_it_was_written() -> None:
    result = read_benchmark(EXAMPLE)
    assert json.loads(benchmark_json(result)) == json.loads(EXAMPLE.read_text())
    table = result.stages[0]
    assert tuple(row.stage for row in table.rows) == STAGES
    raw = json.loads(EXAMPLE.read_text())["measurements"][0]["end_to_end"]
    assert raw["p50_ms"] == percentile(raw["samples_ms"], 500)
    assert raw["p99_9_ms"] is None


def test_a_result_of_an_earlier_release_says_nothing_of_the_choice_of_its_reference(
    tmp_path: Path,
) -> None:
    fields = json.loads(EXAMPLE.read_text())
    for name in ("role", "reason", "golden_largest_steps", "description"):
        del fields["reference"][name]
    earlier = tmp_path / "earlier.json"
    earlier.write_text(json.dumps(fields))
    assert read_benchmark(earlier).reference.role is None
    del fields["reference"]["backend"]
    earlier.write_text(json.dumps(fields))
    with pytest.raises(DataError, match="backend"):
        read_benchmark(earlier)


def test_another_schema_version_is_refused(tmp_path: Path) -> None:
    fields = json.loads(EXAMPLE.read_text())
    other = tmp_path / "other.json"
    for change in ({"schema_version": 99}, {"kind": "parity"}, {"measurements": [{}]}):
        other.write_text(json.dumps({**fields, **change}))
        with pytest.raises(DataError, match="not a result of tinyunet benchmark"):
            read_benchmark(other)


def test_a_file_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read: No such file"):
        read_benchmark(tmp_path / "missing.json")


def test_null_is_read_as_nan() -> None:
    figures = read_benchmark(EXAMPLE).measurements[0].check.figures
    assert math.isnan(figures["iou_drop"])
