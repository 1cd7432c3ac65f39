from __future__ import annotations

from pathlib import Path

from tests.benchmarks.made_up_results import section_titles


def test_an_engine_that_never_ran_says_so(report: Path) -> None:
    text = report.read_text()
    assert "TensorRT engine tiny.fp16.plan" in section_titles(report)
    assert "Not inspected: built without a GPU: never run on hardware." in text
    assert "was not timed on hardware" in text
    for shown in ("2 Half", "3.00 MiB", "12.5 s", "tinyunet build tiny.fp16.onnx -o engines/"):
        assert shown in text
