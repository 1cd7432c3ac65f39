from __future__ import annotations

import json
from pathlib import Path

from tests.benchmarks.made_up_results import made_up_line, markdown_of


def test_a_promise_that_was_not_kept_is_no_safe_speed(tmp_path: Path) -> None:
    line = made_up_line(tmp_path / "line.json")
    fields = json.loads(line.read_text())
    tried = {"kept": False, "line": fields["line"], "time_to_verdict_ms": [1.0], "shown": False}
    fields["verified"] = tried | {"outcome": fields["outcome"] | {"missed": 63, "parts": 6098}}
    line.write_text(json.dumps(fields))
    text = markdown_of(line, tmp_path)
    assert "No safe line speed: 345 parts per minute were predicted" in text
    assert "live 63 of 6,098 parts were late" in text
    assert "may run at" not in text.split("## 1.")[0] and "345 / min" not in text


def test_a_promise_that_was_lowered_tells_the_first(tmp_path: Path) -> None:
    line = made_up_line(tmp_path / "line.json")
    fields = json.loads(line.read_text())
    tried = {key: fields[key] for key in ("line", "outcome")}
    fields["verified"] = tried | {"kept": True}
    faster = tried | {"line": fields["line"] | {"parts_per_minute": 3049.0}, "kept": False}
    fields["not_kept"] = [faster]
    line.write_text(json.dumps(fields))
    text = markdown_of(line, tmp_path)
    assert "may run at 345 parts per minute" in text
    assert "3,049 were predicted before and did not hold." in text
    assert "| tried live, not kept | 3,049 |" in text
