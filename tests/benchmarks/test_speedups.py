from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.speedups import speedups
from tinyunet_deploy.artifacts.sidecar import read_artifact, write_artifact
from tinyunet_deploy.artifacts.speed_facts import RuntimeSpeed, SpeedFacts
from tinyunet_deploy.cli import run


def test_the_speeds_of_files_are_collected_and_a_file_without_one_is_refused(
    tiny_onnx: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny = read_artifact(tiny_onnx)
    facts = SpeedFacts("fp32", "Example", 2, 1.02, (RuntimeSpeed("openvino", 2.0, 1.9, 2.1, 1.0),))
    write_artifact(tmp_path / "a.onnx", tiny.data, replace(tiny.sidecar, speed=facts))
    output = tmp_path / "speedups.json"
    assert run(speedups, [str(tmp_path / "a.onnx"), "-o", str(output)]) == 0
    (row,) = json.loads(output.read_text())["files"]
    assert (row["model"], row["wider"], row["processor"]) == ("a.onnx", "fp32", "Example")
    assert row["runtimes"][0]["speedup"] == 2.0
    assert run(speedups, [str(tiny_onnx), "-o", str(output)]) != 0
    assert "was not timed by the exporter" in capsys.readouterr().err
