from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.__main__ import benchmarks
from benchmarks.operators import operators
from tinyunet_deploy.cli import run


def test_the_operators_take_what_the_network_takes(tiny_onnx: Path, tmp_path: Path) -> None:
    output = tmp_path / "operators.json"
    assert run(operators, [str(tiny_onnx), "--calls", "5", "-o", str(output)]) == 0
    fields = json.loads(output.read_text())
    assert str(tmp_path) not in output.read_text(), "names, no folders of this machine"
    (found,) = fields["results"]
    assert (found["model"], found["backend"]) == (tiny_onnx.name, "openvino")
    convolutions = [each for each in found["operators"] if each["kind"] == "Convolution"]
    assert len(convolutions) == 23, "of the network"
    assert all(each["ms"] >= 0 and each["kernel"] for each in found["operators"])
    together = sum(each["ms"] for each in found["operators"])
    # The two are timed one after the other, on a machine that may be busy: this is for the unit.
    assert 0.01 * found["call_ms"] < together < 100 * found["call_ms"]
    report = tmp_path / "report.md"
    assert run(benchmarks, ["report", str(output), "-o", str(report)]) == 0
    part = report.read_text().partition("Which operators take the time")[2].partition("\n## ")[0]
    rows = [line.split(" | ") for line in part.splitlines() if line.startswith("| ")][2:]
    times = [float(row[3]) for row in rows]
    assert times[:12] == sorted(times[:12], reverse=True)
    assert times[-1] == pytest.approx(together, abs=0.01)
    assert sum(times[:-1]) == pytest.approx(times[-1], abs=0.1)
