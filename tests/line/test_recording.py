from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tinyunet_deploy.errors import DataError
from tinyunet_deploy.line.belt import Belt
from tinyunet_deploy.line.recording import Recording, read_recording


def test_times_are_split_where_the_belt_stopped_and_dropped_images_left_out(
    tmp_path: Path,
) -> None:
    path = tmp_path / "result.json"
    path.write_text(json.dumps({"line": {"processes": 2}, "service_ms": [1, None, 2, 3]}))
    recording = read_recording(path)
    assert recording.service_ms.tolist() == [1, 2, 3]
    assert recording.idle and recording.processes == 2
    stops = {"go_parts": 1, "cameras": 2}
    path.write_text(json.dumps({"line": stops, "service_ms": [1, 2, None, None, 5, None]}))
    assert [times.tolist() for times in read_recording(path).stretches] == [[1, 2], [5]]


def test_the_first_image_after_a_stop_has_a_median_of_its_own() -> None:
    stretches = (np.array([50.0, 1]), np.array([30.0, 2]), np.array([20.0, 3]))
    assert Recording("test", stretches).medians_ms() == (25, 2.5)
    first_ms, others_ms = Recording("test", stretches[:1]).medians_ms()
    assert np.isnan(first_ms) and others_ms == 25.5


def test_differences_between_belt_and_recording_are_warnings() -> None:
    times = np.ones(3)
    one = Recording("test", (times,), processes=1, idle=True)
    stops = Belt(600, 100, go_parts=2, stop_ms=500)
    assert one.warnings(Belt(600, 100)) == []
    assert one.warnings(stops) == ["the belt did not stop where the times were recorded"]
    assert Recording("test", (times, times), 1, idle=True).warnings(stops) == []
    (pauses,) = Recording("test", (times,)).warnings(stops)
    assert pauses.startswith("the times were recorded without pauses")
    (processes,) = one.warnings(Belt(600, 100, processes=2))
    assert processes.startswith("recorded with processes: 1; ")


def test_a_benchmark_is_replayed_from_file_to_verdict(tmp_path: Path) -> None:
    def measurement(model: str, batch_size: int, samples: list[float]) -> dict[str, object]:
        series = {"end_to_end": {"samples_ms": samples}, "call": {"samples_ms": [0.1]}}
        where = {"backend": "openvino", "device": "cpu", "batch_size": batch_size}
        return {"model": model, **where, **series}

    path = tmp_path / "benchmark.json"
    rows = [measurement("a.onnx", 1, [1, 2]), measurement("a.onnx", 8, [9])]
    path.write_text(json.dumps({"kind": "benchmark", "measurements": rows}))
    recording = read_recording(path)
    assert recording.service_ms.tolist() == [1, 2]
    assert not recording.idle
    rows.append(measurement("b.onnx", 1, [3]))
    path.write_text(json.dumps({"kind": "benchmark", "measurements": rows}))
    with pytest.raises(DataError, match=r"has 2 measurements of one image.*--model"):
        read_recording(path)
    assert read_recording(path, model="b.onnx").service_ms.tolist() == [3]
    with pytest.raises(DataError, match="has 0"):
        read_recording(path, backend="torch")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[1, 2]",
        "{}",
        '{"service_ms": []}',
        '{"service_ms": [null]}',
        '{"service_ms": 3}',
        '{"service_ms": [[1]]}',
        '{"service_ms": ["a"]}',
        '{"service_ms": [1, -1]}',
        '{"service_ms": [1, Infinity]}',
        '{"service_ms": [1], "line": 3}',
        '{"kind": "benchmark"}',
    ],
)
def test_a_file_without_service_times_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "odd.json"
    path.write_text(text)
    with pytest.raises(DataError, match=r"odd\.json: has .*service"):
        read_recording(path)
    with pytest.raises(DataError, match="cannot be read"):
        read_recording(tmp_path / "nothing.json")
