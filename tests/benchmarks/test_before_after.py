from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.before_after import before_after
from tinyunet_deploy.cli import run

BEFORE: dict[str, Any] = {
    "backend": "torch",
    "mean": {
        "iou_defective": 0.05, "iou_global": 0.05, "escape_rate": 0.0, "overkill_rate": 1.0,
        "auroc": 0.5,
    },
    "all": {
        "iou_defective": 0.05, "auroc": 0.5, "images": 10, "defective": 4, "escapes": 0,
        "overkills": 6,
    },
    "per_image": [{"name": f"{n}.png", "defective": n < 4} for n in range(10)],
}  # fmt: skip


def result(folder: Path, name: str, backend: str = "torch", **figures: float) -> str:
    """A result like BEFORE, with other figures."""
    fields = copy.deepcopy(BEFORE) | {"backend": backend}
    for part in (fields["mean"], fields["all"]):
        part |= {key: value for key, value in figures.items() if key in part}
    path = folder / f"{name}.json"
    path.write_text(json.dumps(fields))
    return str(path)


AFTER = {"iou_defective": 0.71, "iou_global": 0.7, "auroc": 1.0, "escapes": 1, "overkills": 0}


def test_what_training_changed_is_said_in_one_last_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before, after = result(tmp_path, "before"), result(tmp_path, "after", **AFTER)
    same = result(tmp_path, "same", "openvino", **AFTER)
    assert run(before_after, [before, after, same]) == 0
    *table, last = capsys.readouterr().out.splitlines()
    assert [line.split()[-6:] for line in table[-3:]] == [
        ["0", "of", "4", "1", "of", "4"],
        ["6", "of", "6", "0", "of", "6"],
        ["0.5", "is", "a", "guess", "0.500", "1.000"],
    ]
    assert last == (
        "shown: training from random weights raised the IoU on 10 unseen synthetic parts from 0.05 "
        "to 0.71; the network now rejects 3 of 4 defective parts and 0 of 6 good ones, the same on "
        "torch, openvino"
    )


@pytest.mark.parametrize(
    "worse",
    [{"iou_defective": 0.04}, {"escapes": 4, "overkills": 2}, {"escapes": 0, "overkills": 6}],
)
def test_no_improvement_is_a_failed_gate(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], worse: dict[str, float]
) -> None:
    before, after = result(tmp_path, "before"), result(tmp_path, "after", **AFTER | worse)
    assert run(before_after, [before, after]) == 6
    captured = capsys.readouterr()
    assert "no better than the untrained network" in captured.err
    assert "shown" not in captured.out


def test_backends_that_differ_are_a_failed_gate(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before, after = result(tmp_path, "before"), result(tmp_path, "after", **AFTER)
    other = result(tmp_path, "other", **AFTER | {"iou_global": 0.69})
    assert run(before_after, [before, after, other]) == 6
    assert "iou_global: differs by 0.0100" in capsys.readouterr().err


def test_other_images_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before, after = result(tmp_path, "before"), result(tmp_path, "after", **AFTER)
    fields = json.loads(Path(after).read_text())
    fields["per_image"].pop()
    Path(after).write_text(json.dumps(fields))
    assert run(before_after, [before, after]) == 4
    assert "is not of the same images" in capsys.readouterr().err
