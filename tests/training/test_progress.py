from __future__ import annotations

import dataclasses
import io
import logging
from pathlib import Path

import pytest

from tests.training.small_runs import SMALL
from training import progress
from training.curve_picture import read_curve
from training.curves import VALIDATION
from training.progress import TrainingProgress
from training.validation import OperatingPoint


def test_a_log_is_never_quiet_for_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Steps of three seconds: a line at the first, the fifth, every third, and the last."""
    now = 0.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    recipe = dataclasses.replace(SMALL, steps=9)
    caplog.set_level(logging.INFO)
    with TrainingProgress(recipe, tmp_path, 0, first=True) as training:
        for step in range(1, 10):
            now += 3.0
            training.report(step, loss=0.5, dice=0.25, learning_rate=1e-3)
    logged = [record.getMessage().split("  ")[0] for record in caplog.records]
    assert logged == [f"step {step} of 9" for step in (1, 4, 5, 8, 9)]
    assert caplog.messages[-1] == "step 9 of 9  loss 0.5000  dice 0.250  1.3 images/s"


def test_the_time_to_the_end_counts_validations_but_not_the_slow_first_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    now = 0.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    recipe = dataclasses.replace(SMALL, steps=106, validate_every=10)
    caplog.set_level(logging.INFO)
    point = OperatingPoint(0.35, 8, 40, 14, 0.7125, 2, 3)

    def steps(*numbers: int) -> None:
        nonlocal now
        for step in numbers:
            now += 60.0 if step == 1 else 1.0
            training.report(step, loss=0.5, dice=0.25, learning_rate=1e-3)

    with TrainingProgress(recipe, tmp_path, 0, first=True) as training:
        steps(*range(1, 11))
        assert caplog.messages[1].endswith("  about 1 min 41 s left without validation")
        now += 30.0
        training.validated(10, point, 30.0)
        steps(11)
    reached = "validation at step 10: iou_defective 0.713, escapes 2 of 14, overkills 3 of 26"
    assert caplog.messages[-2] == reached
    # 95 steps of one second, and ten validations of 30: at 20, 30, ... 100 and at the end
    assert caplog.messages[-1].endswith(f"  0.6 images/s  about 6 min 35 s left  {reached}")
    for name, value in zip(VALIDATION, (0.7125, 2.0, 3.0), strict=True):
        steps_of_curve, values = read_curve(tmp_path, name)
        assert steps_of_curve == [10] and values == [pytest.approx(value)]


def test_a_run_that_may_end_early_has_a_longest_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A resumed run validates before its first step, which its steps do not pay for."""
    now = 0.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    recipe = dataclasses.replace(SMALL, steps=100, validate_every=50, patience=1)
    caplog.set_level(logging.INFO)
    with TrainingProgress(recipe, tmp_path, 50, first=True) as training:
        now += 30.0
        training.validated(50, OperatingPoint(0.35, 8, 40, 14, 0.5, 2, 3), 30.0)
        for step in range(51, 56):
            now += 1.0
            training.report(step, loss=0.5, dice=0.25, learning_rate=1e-3)
    assert "  at most about 1 min 15 s left" in caplog.messages[-1]


def test_a_run_without_validation_images_reports_none(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    with TrainingProgress(SMALL, tmp_path, 0, first=True) as training:
        training.validated(6, OperatingPoint(), 0.0)
    assert caplog.messages == []


class Terminal(io.StringIO):
    """Takes the place of a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("first", [True, False])
def test_a_terminal_has_a_bar_with_the_last_validation_in_the_first_process(
    first: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = Terminal()
    monkeypatch.setattr(progress.sys, "stderr", terminal)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("TERM", "xterm")
    with TrainingProgress(SMALL, tmp_path, 0, first=first) as training:
        training.report(1, loss=0.5, dice=0.25, learning_rate=1e-3)
        training.validated(1, OperatingPoint(0.35, 8, 40, 14, 0.7125, 2, 3), 0.0)
    shown = "validation at step 1: iou_defective 0.713" in terminal.getvalue()
    assert shown == first
    assert first or not terminal.getvalue()
