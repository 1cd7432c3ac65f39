from __future__ import annotations

from pathlib import Path

from tests.benchmarks.made_up_results import markdown_of
from tests.conftest import REPOSITORY


def test_the_choice_of_an_operating_point_is_shown(tmp_path: Path) -> None:
    stored = REPOSITORY / "benchmarks" / "results" / "tune-class1.json"
    text = markdown_of(stored, tmp_path)
    part = text.partition("Threshold and min_area")[2].partition("\n## ")[0]
    assert "least cost, escape : overkill = 20 : 1" in part
    rows = [line for line in part.splitlines() if line.startswith("| chosen")]
    assert rows == ["| chosen | 0.52 | 48 | 0 / 33 | 8.7 % | 0 / 22 | 12.7 % |"]
