from __future__ import annotations

import dataclasses
import logging
from pathlib import Path

import pytest

from tests.training.small_runs import SMALL
from training import progress
from training.progress import TrainingProgress


def test_a_log_is_never_quiet_for_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Steps of three seconds: a line at the first, at every third, and at the last."""
    now = 0.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    recipe = dataclasses.replace(SMALL, steps=9)
    caplog.set_level(logging.INFO)
    with TrainingProgress(recipe, tmp_path, 0, first=True) as training:
        for step in range(1, 10):
            now += 3.0
            training.report(step, loss=0.5, dice=0.25, learning_rate=1e-3)
    logged = [record.getMessage().split("  ")[0] for record in caplog.records]
    assert logged == [f"step {step} of 9" for step in (1, 4, 7, 9)]
    assert caplog.messages[-1] == "step 9 of 9  loss 0.5000  dice 0.250  1.3 images/s"
