from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.training.small_runs import losses
from tinyunet_deploy.cli import run
from training.curve_picture import curve_picture, read_curve


def test_the_curves_of_a_run_are_drawn(finished: Path, tmp_path: Path) -> None:
    steps, values = read_curve(finished, "loss")
    assert steps == [1, 2, 3, 4, 5, 6]
    assert values == losses(finished)
    assert run(curve_picture, [str(finished), "-o", str(tmp_path / "curve.svg")]) == 0
    text = (tmp_path / "curve.svg").read_text()
    assert re.findall(r">(Loss|Dice of the batch, 1 is perfect)<", text) == [
        "Loss",
        "Dice of the batch, 1 is perfect",
    ]
    assert "mean of 1 batches" in text


def test_a_folder_without_curves_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(curve_picture, [str(tmp_path), "-o", str(tmp_path / "curve.svg")]) == 4
    assert "contains no curve loss" in capsys.readouterr().err
