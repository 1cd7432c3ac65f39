from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from tests.training.small_runs import losses
from tinyunet_deploy.cli import run
from training.curve_picture import curve_picture, draw_curves, read_curve
from training.curves import VALIDATION, Curves


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
    assert re.findall(r">(iou_defective|Mistakes), validation images<", text) == [
        "iou_defective",
        "Mistakes",
    ]


def test_a_step_that_was_done_again_counts_once(tmp_path: Path) -> None:
    for first, values in ((1, (0.5, 0.4)), (2, (0.3,))):
        curves = Curves(tmp_path / "tensorboard", first)
        for step, value in enumerate(values, start=first):
            curves.add(step, loss=value, dice=value)
            curves.add(1, again=float(first))
    assert read_curve(tmp_path, "loss")[0] == [1, 2]
    assert read_curve(tmp_path, "loss")[1] == pytest.approx([0.5, 0.3])
    assert read_curve(tmp_path, "again") == ([1], [2.0])
    svg = draw_curves(tmp_path).decode()
    assert "validation" not in svg
    assert draw_curves(tmp_path, "png").startswith(b"\x89PNG")


def test_every_curve_has_its_own_values(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the panel that says so; escapes are red and overkills amber."""
    curves = Curves(tmp_path / "tensorboard", 1)
    curves.add(1, loss=0.5, dice=0.25)
    curves.add(1, **dict(zip(VALIDATION, (0.75, 2.0, 3.0), strict=True)))
    drawn: dict[str, Figure] = {}

    def keep(width: float, height: float, draw: Callable[[Figure], None]) -> bytes:
        draw(drawn.setdefault("figure", Figure((width, height))))
        return b""

    monkeypatch.setattr("training.curve_picture.draw_svg", keep)
    draw_curves(tmp_path)
    values = [
        [list(map(float, line.get_ydata())) for line in axes.get_lines()]
        for axes in drawn["figure"].axes
    ]
    assert values == [[[0.5], [0.5]], [[0.25], [0.25]], [[0.75]], [[2.0], [3.0]]]
    escapes, overkills = drawn["figure"].axes[3].get_lines()
    assert (escapes.get_label(), escapes.get_color()) == ("escapes", "#b3261e")
    assert (overkills.get_label(), overkills.get_color()) == ("overkills", "#c77700")


def test_a_folder_without_curves_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(curve_picture, [str(tmp_path), "-o", str(tmp_path / "curve.svg")]) == 4
    assert "contains no curve loss" in capsys.readouterr().err
