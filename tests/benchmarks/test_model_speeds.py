from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from benchmarks.model_speeds import model_speeds
from tinyunet_deploy.artifacts.sidecar import DEFAULT_ONNX
from tinyunet_deploy.errors import DataError


def test_each_model_is_timed_against_the_first(
    tiny_onnx: Path, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    output = tmp_path / "speeds.json"
    words = [str(tiny_checkpoint), str(tiny_onnx), "--rounds", "2", "-o", str(output)]
    assert CliRunner().invoke(model_speeds, words, catch_exceptions=False).exit_code == 0
    fields = json.loads(output.read_text())
    first, second = fields["rows"]
    assert (first["backend"], second["backend"]) == ("torch", "openvino")
    assert first["times_as_fast"]["value"] == 1
    ratio = first["median_ms"] / second["median_ms"]
    assert second["times_as_fast"]["value"] == pytest.approx(ratio)
    assert fields["floor"] >= 1


def test_models_of_two_sizes_share_no_image(tiny_onnx: Path, tmp_path: Path) -> None:
    words = [str(tiny_onnx), str(DEFAULT_ONNX), "-o", str(tmp_path / "speeds.json")]
    with pytest.raises(DataError, match=r"have the sizes \[\(\d+, \d+\), \(512, 512\)\]"):
        CliRunner().invoke(model_speeds, words, catch_exceptions=False)
