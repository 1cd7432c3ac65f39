from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.agreement import agreement
from tinyunet_deploy.cli import run

MEAN = {
    "iou_defective": 0.8, "iou_global": 0.7, "escape_rate": 0.1, "overkill_rate": 0.0,
    "auroc": None,
}  # fmt: skip


def written(path: Path, **changes: float | None) -> str:
    path.write_text(json.dumps({"mean": MEAN | changes}))
    return str(path)


def test_results_agree_up_to_a_thousandth(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = written(tmp_path / "1.json")
    assert run(agreement, [first, written(tmp_path / "2.json", iou_global=0.7009)]) == 0
    assert "2 results agree" in capsys.readouterr().out
    assert run(agreement, [first, written(tmp_path / "3.json", iou_global=0.7011)]) == 6
    assert "iou_global: differs by 0.0011" in capsys.readouterr().err


def test_a_figure_that_only_some_results_give_is_no_agreement(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = [written(tmp_path / "1.json"), written(tmp_path / "2.json", auroc=0.9)]
    assert run(agreement, results) == 6
    assert "auroc: is given by 1 of 2 results" in capsys.readouterr().err
