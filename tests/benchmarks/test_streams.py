from __future__ import annotations

import json
from pathlib import Path

from click.testing import CliRunner

from benchmarks.streams import streams


def test_every_choice_of_each_use_is_timed_beside_the_backends_own(
    tiny_onnx: Path, tmp_path: Path
) -> None:
    output = tmp_path / "streams.json"
    words = [str(tiny_onnx), "--rounds", "2", "-o", str(output)]
    assert CliRunner().invoke(streams, words, catch_exceptions=False).exit_code == 0
    rows = json.loads(output.read_text())["rows"]
    for use in ("throughput", "latency"):
        for backend, other in (("openvino", "1 streams"), ("onnxruntime", "images side by side")):
            choices = {
                row["choice"]: row["time_ratio"]
                for row in rows
                if (row["use"], row["backend"]) == (use, backend)
            }
            assert {"as chosen", "as chosen, again", other} <= choices.keys()
            assert choices["as chosen"]["value"] == 1.0
