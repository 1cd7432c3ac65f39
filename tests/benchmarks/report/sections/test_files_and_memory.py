from __future__ import annotations

from pathlib import Path

from tests.benchmarks.made_up_results import made_up_pipeline, markdown_of


def test_memory_is_that_of_the_round_in_which_it_grew_most(tmp_path: Path) -> None:
    result = made_up_pipeline(tmp_path / "pipeline.json")
    text = markdown_of(result, tmp_path)
    row = "| tiny · OpenVINO | 1000 | 3 | 9.00 | 8.90 | 0.989 | 300 | 400 | 412 |"
    assert row in text.splitlines()
