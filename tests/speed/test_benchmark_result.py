from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from tinyunet_deploy.speed.benchmark_file import read_benchmark

EXAMPLE = Path(__file__).parent.parent / "fixtures" / "benchmark-example.json"


def test_a_wrong_answer_is_red() -> None:
    result = read_benchmark(EXAMPLE)
    wrong = dataclasses.replace(result.measurements[0].check, outcome="red")
    row = dataclasses.replace(result.measurements[0], check=wrong)
    assert row in dataclasses.replace(result, measurements=(row,)).red


def test_the_unaccounted_share_is_that_of_its_own_row() -> None:
    table = read_benchmark(EXAMPLE).stages[0]
    assert table.rows[-1].stage == "unaccounted"
    assert table.unaccounted_share == pytest.approx(
        table.rows[-1].ms_per_image / table.total_ms_per_image
    )
