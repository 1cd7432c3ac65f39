from __future__ import annotations

from pathlib import Path

from tests.benchmarks.made_up_results import made_up_gpu, markdown_of


def test_a_gpu_stands_beside_what_was_published(tmp_path: Path) -> None:
    text = markdown_of(made_up_gpu(tmp_path / "g.json"), tmp_path)
    lines = text.splitlines()
    assert "| published, A100 FP16 |  | 248.0 | 761.0 |" in lines
    assert "| tiny fp16 · ONNX Runtime | graphs | 101.0 | 801.0 |" in lines
    assert "| tiny fp16 · ONNX Runtime | no graphs | 100.0 | 800.0 |" in lines
