from __future__ import annotations

import shutil
from pathlib import Path

from benchmarks.report.results import read_results
from benchmarks.report.summary import summary
from tests.conftest import REPOSITORY


def test_what_must_not_be_shipped_is_said_at_the_top(report: Path) -> None:
    text = report.read_text()
    summary = text[text.index("Summary") : text.index("<h2><span>1</span>")]
    assert "Not to be shipped: tinyunet int8 on OpenVINO: iou_drop is 0.00887" in summary
    assert "Not to be shipped: tiny int8 on OpenVINO: largest_steps of the timed" in summary
    assert "fastest configuration whose answers pass is tiny fp32 on OpenVINO:" in summary
    assert "345 parts per minute" in summary


def test_a_data_set_without_good_parts_is_not_said_to_reject_none(tmp_path: Path) -> None:
    for name in ("public-steel.json", "synthetic-test.json"):
        shutil.copy(REPOSITORY / "benchmarks" / "results" / name, tmp_path)
    steel, synthetic = summary(read_results([tmp_path]))
    assert steel.endswith("lets 0 of 84 defective parts through and met no good one.")
    assert synthetic.endswith("through and rejects 1 of 100 good ones.")
