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
    models = [f"{tiny_checkpoint}@pytorch-eager", str(tiny_checkpoint), str(tiny_onnx)]
    words = [*models, "--rounds", "2", "-o", str(output)]
    assert CliRunner().invoke(model_speeds, words, catch_exceptions=False).exit_code == 0
    fields = json.loads(output.read_text())
    first, second, third = fields["rows"]
    backends = [row["backend"] for row in (first, second, third)]
    assert backends == ["pytorch-eager", "torch", "openvino"]
    assert first["model_sha256"] == second["model_sha256"] and set(first["versions"]) == {"torch"}
    assert " tiny.safetensors@pytorch-eager tiny.safetensors " in fields["command"]
    assert first["times_as_fast"]["value"] == 1
    ratio = first["median_ms"] / third["median_ms"]
    assert third["times_as_fast"]["value"] == pytest.approx(ratio)
    assert fields["floor"] >= 1


def test_models_of_two_sizes_share_no_image(tiny_onnx: Path, tmp_path: Path) -> None:
    words = [str(tiny_onnx), str(DEFAULT_ONNX), "-o", str(tmp_path / "speeds.json")]
    with pytest.raises(DataError, match=r"have the sizes \[\(\d+, \d+\), \(512, 512\)\]"):
        CliRunner().invoke(model_speeds, words, catch_exceptions=False)


@pytest.mark.parametrize("peer", ["pytorch-lazy", "benchmark_app"])
def test_a_peer_that_is_unknown_or_times_itself_is_refused(
    peer: str, tiny_onnx: Path, tmp_path: Path
) -> None:
    words = [f"{tiny_onnx}@{peer}", "-o", str(tmp_path / "speeds.json")]
    result = CliRunner().invoke(model_speeds, words)
    assert result.exit_code == 2 and "pytorch-eager" in result.output
