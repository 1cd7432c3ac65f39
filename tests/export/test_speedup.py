from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from export import speedup
from export.speedup import measure_speedup
from tinyunet_deploy.artifacts.sidecar import Artifact, digest, read_artifact
from tinyunet_deploy.host import processor_count, processor_name

SECONDS = {"wider": [30.0] * 9, "file": [10.0] * 9, "wider, again": [33.0] * 9}


@pytest.fixture
def times(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[float]]:
    """Times of the three series, in place of the clock; each is called once all the same."""

    def in_turns(calls: Mapping[str, Callable[[], object]]) -> dict[str, list[float]]:
        for call in calls.values():
            call()
        return {name: SECONDS[name] for name in calls}

    monkeypatch.setattr(speedup, "time_in_turns", in_turns)
    return SECONDS


IMAGE = np.zeros((64, 64), np.uint8)


@pytest.mark.usefixtures("times")
def test_the_speedup_is_the_wider_precisions_time_divided_by_the_files(tiny_onnx: Path) -> None:
    wider = read_artifact(tiny_onnx)
    file = replace(wider, sidecar=replace(wider.sidecar, precision="int8"))
    lines: list[str] = []
    facts = measure_speedup(file, wider, IMAGE, 1.02, lines.append)
    assert (facts.wider, facts.min_speedup) == ("fp32", 1.02)
    assert (facts.processor, facts.processors) == (processor_name(), processor_count())
    assert [one.backend for one in facts.runtimes] == ["openvino", "onnxruntime"]
    for one in facts.runtimes:
        assert one.speedup == one.low == one.high == pytest.approx(3.0)
        assert one.floor == pytest.approx(1.1)
    assert (
        lines[0] == "tiny.onnx: 3.00 times as fast as fp32 on openvino (3.00 to 3.00, noise 1.10)"
    )
    slow = measure_speedup(file, wider, IMAGE, 3.5, lines.append)
    assert not slow.pays("openvino")
    assert lines[-1].endswith(": not faster")


@pytest.mark.usefixtures("times")
def test_a_file_that_a_runtime_does_not_load_is_not_timed_there(tiny_onnx: Path) -> None:
    wider = read_artifact(tiny_onnx)
    broken = Artifact(Path("broken.onnx"), b"x", replace(wider.sidecar, sha256=digest(b"x")))
    lines: list[str] = []
    assert measure_speedup(broken, wider, IMAGE, 1.02, lines.append).runtimes == ()
    assert [line.split(":")[1] for line in lines] == [
        " is not timed on openvino",
        " is not timed on onnxruntime",
    ]
