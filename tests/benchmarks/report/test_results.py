from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.__main__ import benchmarks
from benchmarks.report.results import read_results
from tests.benchmarks.made_up_results import made_up_gpu, made_up_line, made_up_pipeline
from tinyunet_deploy.cli import run
from tinyunet_deploy.errors import DataError


def test_a_folder_with_a_report_of_its_own_is_left_to_it(tmp_path: Path) -> None:
    made_up_pipeline(tmp_path / "pipeline.json")
    (tmp_path / "other").mkdir()
    made_up_gpu(tmp_path / "other" / "gpu.json")
    output = tmp_path / "report.md"
    for own, found in ((False, True), (True, False)):
        if own:
            (tmp_path / "other" / "report.md").write_text("a report")
        assert run(benchmarks, ["report", str(tmp_path), "-o", str(output)]) == 0
        assert ("A GPU beside published figures" in output.read_text()) is found


def test_what_is_no_result_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "notes.json"
    path.write_text('{"schema_version": 1}')
    with pytest.raises(DataError, match="not a result that the report knows"):
        read_results([path])
    with pytest.raises(DataError, match="contains no result"):
        read_results([tmp_path])
    made_up_line(tmp_path / "line.json")
    assert run(benchmarks, ["report", str(tmp_path), "-o", str(tmp_path / "report.pdf")]) == 4
