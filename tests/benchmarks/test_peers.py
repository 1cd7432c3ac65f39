from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.peers import RUNNERS, time_cell, why_not_here
from tinyunet_deploy.backends.table import BACKENDS


@pytest.mark.parametrize("runner", ["pytorch-eager", "pytorch-channels-last"])
def test_a_pytorch_peer_answers_as_our_backend(
    tiny_checkpoint: Path, tiny_onnx: Path, runner: str
) -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, 1, 64, 64), dtype=np.uint8)
    how: dict[str, Any] = {"batch": 2, "repetitions": 1, "warm_up": 1}
    measured, scores = time_cell(runner, tiny_checkpoint, images, **how)
    _, ours = time_cell("onnxruntime", tiny_onnx, images, **how)
    assert scores is not None
    assert ours is not None
    assert scores.shape == images.shape
    assert np.abs(scores.astype(int) - ours).max() <= 1
    assert len(measured["samples_ms"]) == 1


def test_benchmark_app_measures_our_file(tiny_onnx: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, 1, 64, 64), dtype=np.uint8)
    measured, scores = time_cell(
        "benchmark_app", tiny_onnx, images, batch=2, repetitions=3, warm_up=1
    )
    assert scores is None
    assert measured["samples_ms"][0] > 0
    assert measured["boundary"] == "its own median of 3 calls"


def test_a_missing_program_is_skipped_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert why_not_here("trtexec") == "trtexec is not on the PATH"
    assert set(BACKENDS) < set(RUNNERS)
