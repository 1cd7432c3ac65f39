from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.options import RESULTS
from benchmarks.page_tables import accuracy
from benchmarks.plateau import plateau
from tinyunet_deploy.cli import run


def test_the_plateaus_of_several_runs_keep_the_name_of_their_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = json.loads((RESULTS / "plateau.json").read_text())["plateaus"][0]
    words = []
    for name in ("class1", "synthetic0"):
        pair = {**stored, "sha256": "a" * 64}
        skipped = {"sha256": "b" * 64, "outcome": "skipped"}
        (tmp_path / f"{name}.json").write_text(
            json.dumps({"data": name, "comparisons": [pair, skipped]})
        )
        words.append(str(tmp_path / f"{name}.json"))
    output = tmp_path / "plateau.json"
    assert run(plateau, [*words, "-o", str(output)]) == 0
    monkeypatch.setattr(accuracy, "read_result", lambda _: json.loads(output.read_text()))
    images = stored["plateau"]["images"]
    assert [row[2] for row in accuracy.plateau()[1:]] == [
        f"{images} of class1",
        f"{images} of synthetic0",
    ]
