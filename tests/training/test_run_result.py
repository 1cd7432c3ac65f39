from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tinyunet_deploy.errors import DataError
from tinyunet_deploy.quality.confidence import clopper_pearson_upper
from training.run_result import describe_result, read_result, write_result
from training.state import Best, State
from training.validation import OperatingPoint


def test_a_finished_run_says_what_it_reached(finished: Path) -> None:
    result = read_result(finished)
    assert result is not None
    sidecar = json.loads((finished / "checkpoint.safetensors.json").read_text())
    point = sidecar["origin"]["operating_point"]
    assert (result["threshold"], result["min_area_px"]) == (point["threshold"], point["min_area"])
    assert (result["step"], result["steps_done"], result["steps"]) == (6, 6, 6)
    reached = result["validation"]
    assert (reached["images"], reached["defective"], reached["good"]) == (4, 2, 2)
    assert reached["escapes"] == point["escapes"] and reached["overkills"] == point["overkills"]
    assert reached["iou_defective"] == point["iou_defective"]
    assert reached["escape_rate_at_most"] == clopper_pearson_upper(point["escapes"], 2)
    assert reached["overkill_rate_at_most"] == clopper_pearson_upper(point["overkills"], 2)
    assert [row["number"] for row in reached["worst"]] == point["worst"]


def made(**changes: Any) -> dict[str, Any]:
    reached = {
        "images": 40, "defective": 14, "good": 26, "iou_defective": 0.7125, "escapes": 0,
        "escape_rate_at_most": 0.1926, "overkills": 1, "overkill_rate_at_most": 0.17,
        "confidence": 0.95, "worst": [],
    }  # fmt: skip
    return {
        "schema_version": 1, "step": 500, "steps_done": 700, "steps": 700, "threshold": 0.35,
        "min_area_px": 8, "validation": {**reached, **changes},
    }  # fmt: skip


def test_the_result_is_said_with_its_bounds() -> None:
    assert describe_result(made()) == [
        "step 500 of 700, threshold 0.35, min_area 8 px, chosen on 40 validation images:",
        "  iou_defective  0.713",
        "  escapes        0 of 14 defective, at most 19.3% with 95 % confidence",
        "  overkills      1 of 26 good, at most 17.0% with 95 % confidence",
        "  They chose the model and so flatter it: `tinyunet evaluate` measures on other images.",
    ]
    stopped = made() | {"steps_done": 600}
    assert describe_result(stopped)[0].startswith("step 500 of 700 (ended after step 600), ")


def test_what_was_not_measured_is_not_said_to_be_good() -> None:
    nothing = made(defective=0, escapes=0, escape_rate_at_most=None, iou_defective=None)
    text = "\n".join(describe_result(nothing))
    assert "escapes        0 of 0 defective, not measured" in text and "iou" not in text
    (line,) = describe_result(made() | {"validation": None})
    assert "not chosen by images" in line and "tinyunet tune" in line


@pytest.mark.parametrize("damage", ["", "[]", '{"schema_version": 2}'])
def test_a_damaged_result_is_refused(tmp_path: Path, damage: str) -> None:
    assert read_result(tmp_path) is None
    (tmp_path / "result.json").write_text(damage)
    with pytest.raises(DataError, match=r"result\.json: is not readable: "):
        read_result(tmp_path)


def test_the_bounds_are_those_of_defective_and_of_good_images(tmp_path: Path) -> None:
    point = OperatingPoint(0.35, 8, 40, 14, 0.7125, 1, 2)
    state = State(None, None, None, 7, Best(5, point, {}))  # type: ignore[arg-type]
    write_result(tmp_path, state, 9, ())
    result = read_result(tmp_path)
    assert result is not None and (result["step"], result["steps_done"]) == (5, 7)
    reached = result["validation"]
    assert (reached["defective"], reached["good"]) == (14, 26)
    assert reached["escape_rate_at_most"] == clopper_pearson_upper(1, 14)
    assert reached["overkill_rate_at_most"] == clopper_pearson_upper(2, 26)
