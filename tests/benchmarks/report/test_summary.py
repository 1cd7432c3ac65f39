from __future__ import annotations

from pathlib import Path


def test_what_must_not_be_shipped_is_said_at_the_top(report: Path) -> None:
    text = report.read_text()
    summary = text[text.index("Summary") : text.index("<h2><span>1</span>")]
    assert "Not to be shipped: tinyunet int8 on OpenVINO: iou_drop is 0.00887" in summary
    assert "Not to be shipped: tiny int8 on OpenVINO: largest_steps of the timed" in summary
    assert "fastest configuration whose answers pass is tiny fp32 on OpenVINO:" in summary
    assert "345 parts per minute" in summary
