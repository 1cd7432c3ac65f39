"""tinyunet accept refuses what it cannot judge, in one line; the rest is in tests/quality."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.data.small_images import SPOT, grey, put
from tests.quality.shadow.test_report import REPORT
from tinyunet_deploy.cli import run, tinyunet


@pytest.fixture
def parts(tmp_path: Path) -> Path:
    root = tmp_path / "parts"
    for name, mask in (("a", SPOT), ("b", grey(0))):
        put(root / "images" / f"{name}.png", grey(100))
        put(root / "masks" / f"{name}.png", mask)
    return root


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    code = run(tinyunet, ["accept", *arguments])
    shown = capsys.readouterr()
    assert shown.out == ""
    return code, shown.err.strip().splitlines()[-1]


def test_either_data_or_an_earlier_result_is_needed(
    parts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = tmp_path / "acceptance.json"
    result.write_text("{}")
    for arguments in ((), (str(parts), "--from", str(result))):
        code, line = refused(capsys, *arguments)
        assert (code, "Give either DATA" in line) == (2, True)


@pytest.mark.parametrize(
    ("option", "content", "what"),
    [
        ("--line", {"kind": "benchmark"}, "is not a result of line-sim: its kind is not line-sim"),
        ("--line", {"kind": "line-sim"}, "is not a result of line-sim: it has no 'line'"),
        ("--repeats", {"schema_version": 1}, "is not a repeatability study"),
        ("--shadow", {"schema_version": 2}, "is not a valid shadow report: schema_version 2"),
        ("--requirements", {"a": 1}, "is not a TOML file"),
        ("--from", {"kind": "acceptance", "schema_version": 2}, "has schema_version 2"),
    ],
)
def test_evidence_that_is_something_else_is_refused_before_the_model_runs(
    parts: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    option: str,
    content: dict[str, object],
    what: str,
) -> None:
    path = tmp_path / "evidence.json"
    path.write_text(json.dumps(content))
    data = [] if option == "--from" else [str(parts)]
    output = tmp_path / "acceptance"
    code, line = refused(capsys, *data, option, str(path), "-o", str(output))
    assert (code, line.startswith(f"error: {path}: {what}")) == (4, True), line
    assert not (output / "acceptance.html").exists()


def test_a_shadow_run_of_another_model_is_refused_before_the_model_runs(
    parts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report, output = tmp_path / "shadow.json", tmp_path / "acceptance"
    report.write_text(json.dumps(REPORT.as_fields()))
    code, line = refused(capsys, str(parts), "--shadow", str(report), "-o", str(output))
    wanted = f"error: {report}: has the challenger b.onnx (bbbbbbbbbbbb...), but the model to "
    assert (code, line.startswith(wanted)) == (4, True), line
    assert not (output / "acceptance.html").exists()


def test_a_missing_model_is_refused(
    parts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tmp_path / "none.onnx"
    code, line = refused(capsys, str(parts), "-m", str(model), "-o", str(tmp_path / "out"))
    assert (code, line.startswith(f"error: {model}: does not exist")) == (4, True), line
