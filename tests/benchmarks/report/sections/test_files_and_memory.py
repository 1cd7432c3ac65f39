from __future__ import annotations

from pathlib import Path

from benchmarks.__main__ import benchmarks
from tests.benchmarks.made_up_results import made_up_pipeline
from tinyunet_deploy.cli import run


def test_memory_is_that_of_the_round_in_which_it_grew_most(tmp_path: Path) -> None:
    output = tmp_path / "report.md"
    result = made_up_pipeline(tmp_path / "pipeline.json")
    assert run(benchmarks, ["report", str(result), "-o", str(output)]) == 0
    row = "| tiny · openvino | 1000 | 3 | 9.00 | 8.90 | 0.989 | 300 | 400 | 412 |"
    assert row in output.read_text().splitlines()
