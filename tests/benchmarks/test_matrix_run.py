from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.benchmarks.made_up_results import run_matrix_in


def test_only_what_is_missing_is_run_again(finished_matrix: Path, tmp_path: Path) -> None:
    shutil.copytree(finished_matrix / "run", tmp_path / "run")
    cells = sorted((tmp_path / "run" / "cells").glob("*.json"))
    kept = {path: path.stat().st_mtime_ns for path in cells[1:]}
    before = cells[0].read_bytes()
    cells[0].unlink()
    shutil.copy(finished_matrix / "matrix.toml", tmp_path)
    assert run_matrix_in(tmp_path) == 0
    assert cells[0].read_bytes() != before
    assert {path: path.stat().st_mtime_ns for path in kept} == kept


@pytest.mark.parametrize(
    ("old", "new", "what"),
    [("repetitions = 2", "repetitions = 3", "matrix"), ("images = 2", "images = 4", "matrix")],
)
def test_another_matrix_is_never_mixed_in(
    finished_matrix: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    old: str,
    new: str,
    what: str,
) -> None:
    shutil.copytree(finished_matrix / "run", tmp_path / "run")
    text = (finished_matrix / "matrix.toml").read_text().replace(old, new)
    (tmp_path / "matrix.toml").write_text(text)
    assert run_matrix_in(tmp_path) == 4
    assert f"contains a run of another {what}" in capsys.readouterr().err


def test_another_version_or_artifact_is_never_mixed_in(
    finished_matrix: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(finished_matrix / "run", tmp_path / "run")
    shutil.copy(finished_matrix / "matrix.toml", tmp_path)
    path = tmp_path / "run" / "identity.json"
    fields = json.loads(path.read_text())
    fields["versions"]["openvino"]["openvino"] = "2020.1"
    fields["artifacts"]["tiny.onnx"]["sha256"] = "0" * 64
    path.write_text(json.dumps(fields))
    assert run_matrix_in(tmp_path) == 4
    assert "other artifacts, versions" in capsys.readouterr().err


def test_a_folder_of_something_else_is_refused(finished_matrix: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.txt").write_text("mine")
    shutil.copy(finished_matrix / "matrix.toml", tmp_path)
    assert run_matrix_in(tmp_path) == 4
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["thesis.txt"]
