from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tinyunet_deploy.errors import DataError
from tinyunet_deploy.quality.acceptance.line_result import read_line

RESULT: dict[str, Any] = {
    "kind": "line-sim",
    "mode": "live",
    "model_sha256": "a" * 64,
    "backend": "openvino",
    "device": "cpu",
    "machine": {"processor": "a processor"},
    "line": {"parts_per_minute": 600.0, "deadline_ms": 150.0},
    "outcome": {
        "parts": 3000,
        "missed": 2,
        "miss_rate": 0.00067,
        "miss_rate_bound": 0.0021,
        "p50_ms": 5.0,
        "p99_ms": None,
    },
    "fastest_shown_parts_per_minute": None,
}


def written(folder: Path, fields: Any) -> Path:
    path = folder / "line.json"
    path.write_text(json.dumps(fields))
    return path


def test_every_figure_is_read_as_what_it_is(tmp_path: Path) -> None:
    line = read_line(written(tmp_path, RESULT))
    assert (line.parts, line.missed, line.miss_rate, line.miss_rate_bound) == (
        *(3000, 2),
        *(0.00067, 0.0021),
    )
    assert (line.parts_per_minute, line.deadline_ms, line.p50_ms, line.p99_ms) == (
        *(600, 150),
        *(5.0, None),
    )
    assert (line.model_sha256, line.backend, line.device) == ("a" * 64, "openvino", "cpu")
    assert (line.processor, line.mode, line.name) == ("a processor", "live", "line.json")
    assert line.fastest_parts_per_minute is None


def test_a_replay_names_no_model_and_no_machine(tmp_path: Path) -> None:
    replay = {key: value for key, value in RESULT.items() if key not in ("model_sha256", "machine")}
    line = read_line(written(tmp_path, replay | {"mode": "replay"}))
    assert (line.model_sha256, line.processor) == (None, None)


@pytest.mark.parametrize("value", [-1, "12", None, True, float("nan")])
def test_a_rate_that_is_no_number_of_0_or_more_is_refused(tmp_path: Path, value: Any) -> None:
    outcome = RESULT["outcome"] | {"miss_rate_bound": value}
    with pytest.raises(DataError, match="is not a result of line-sim"):
        read_line(written(tmp_path, RESULT | {"outcome": outcome}))
