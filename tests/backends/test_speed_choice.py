from __future__ import annotations

import logging
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tinyunet_deploy.artifacts.sidecar import Artifact, read_artifact, write_artifact
from tinyunet_deploy.artifacts.speed_facts import RuntimeSpeed, SpeedFacts
from tinyunet_deploy.backends import registry
from tinyunet_deploy.backends.registry import open_backend
from tinyunet_deploy.backends.table import BackendRow, why_not
from tinyunet_deploy.host import processor_name


def speed(processor: str | None = None, **speedups: float) -> SpeedFacts:
    runtimes = (RuntimeSpeed(name, x, x, x, 1.0) for name, x in speedups.items())
    return SpeedFacts("fp32", processor or processor_name(), 2, 1.02, tuple(runtimes))


@pytest.fixture
def model(tiny_onnx: Path, tmp_path: Path) -> Any:
    """Write the tiny file as an int8 file with a measured speed; the graph does not matter."""

    def write(name: str, facts: SpeedFacts | None, **changes: Any) -> Path:
        tiny = read_artifact(tiny_onnx)
        sidecar = replace(tiny.sidecar, precision="int8", speed=facts, **changes)
        write_artifact(tmp_path / name, tiny.data, sidecar)
        return tmp_path / name

    return write


def chosen(path: Path, caplog: pytest.LogCaptureFixture, **options: Any) -> tuple[str, list[str]]:
    """The backend that opens a file, and the notices."""
    with caplog.at_level(logging.WARNING), open_backend(path, **options) as backend:
        assert isinstance(backend.artifact, Artifact)
        return f"{backend.name} {backend.artifact.path.name}", caplog.messages


def test_a_backend_on_which_the_file_does_not_pay_comes_last(
    model: Any, caplog: pytest.LogCaptureFixture
) -> None:
    path = model("a.int8.onnx", speed(openvino=0.9, onnxruntime=1.5))
    assert chosen(path, caplog) == ("onnxruntime a.int8.onnx", [])


def test_a_gain_inside_the_noise_changes_nothing(
    model: Any, caplog: pytest.LogCaptureFixture
) -> None:
    facts = speed(openvino=1.5, onnxruntime=1.6)
    noisy = replace(facts.runtimes[0], floor=2.0)
    path = model("n.int8.onnx", replace(facts, runtimes=(noisy, facts.runtimes[1])))
    assert chosen(path, caplog) == ("openvino n.int8.onnx", [])


def test_on_another_processor_the_measurement_is_a_hint(
    model: Any, caplog: pytest.LogCaptureFixture
) -> None:
    path = model("b.int8.onnx", speed("Other 1", openvino=0.9, onnxruntime=1.5))
    backend, notices = chosen(path, caplog)
    assert backend == "openvino b.int8.onnx", "the usual order"
    assert notices == [
        f"{path}: int8 is not faster than fp32 on openvino: 0.90 times as fast when it was "
        "exported on another processor, Other 1; 1.50 times as fast on onnxruntime"
    ]


def test_whoever_names_a_slow_backend_gets_it_and_one_line(
    model: Any, caplog: pytest.LogCaptureFixture
) -> None:
    path = model("c.int8.onnx", speed(openvino=3.1, onnxruntime=0.55))
    model("c.int8-cpu.onnx", speed(onnxruntime=2.4), unsigned_activations=True)
    line = (
        f"{path}: int8 is not faster than fp32 on onnxruntime: 0.55 times as fast when it was "
        "exported on this processor; 3.10 times as fast on openvino"
    )
    for _ in range(2):
        assert chosen(path, caplog, backend="onnxruntime") == (
            "onnxruntime c.int8.onnx",
            [line],
        ), "once for a file"
    caplog.clear()
    assert chosen(path, caplog) == ("openvino c.int8.onnx", [])


@pytest.fixture
def no_openvino(monkeypatch: pytest.MonkeyPatch) -> None:
    def without(row: BackendRow) -> str | None:
        return "is not installed" if row.name == "openvino" else why_not(row)

    monkeypatch.setattr(registry, "why_not", without)


@pytest.mark.usefixtures("no_openvino")
def test_where_only_a_slow_backend_is_left_the_twin_for_cpus_is_taken_and_said(
    model: Any, caplog: pytest.LogCaptureFixture
) -> None:
    path = model("d.int8.onnx", speed(openvino=3.1, onnxruntime=0.55))
    model("d.int8-cpu.onnx", speed(onnxruntime=2.4), unsigned_activations=True)
    assert chosen(path, caplog) == (
        "onnxruntime d.int8-cpu.onnx",
        [
            f"{path}: d.int8-cpu.onnx is taken instead: the same int8 network, which is faster on "
            "onnxruntime"
        ],
    )


@pytest.mark.usefixtures("no_openvino")
@pytest.mark.parametrize(
    ("name", "facts", "changes"),
    [
        ("slow", {"onnxruntime": 0.9}, {}),
        ("elsewhere", {"processor": "Other 1", "onnxruntime": 2.4}, {}),
        ("signed", {"onnxruntime": 2.4}, {"unsigned_activations": False}),
        ("parent", {"onnxruntime": 2.4}, {"parent": "0" * 64}),
        ("tuned", {"onnxruntime": 2.4}, {"threshold": 0.7}),
        ("depth", {"onnxruntime": 2.4}, {"bits": 12}),
        ("damaged", {"onnxruntime": 2.4}, {}),
    ],
)
def test_a_twin_that_is_not_the_same_or_not_faster_is_left_alone(
    name: str, facts: Any, changes: Any, model: Any, caplog: pytest.LogCaptureFixture
) -> None:
    path = model(f"{name}.int8.onnx", speed(onnxruntime=0.55))
    twin = model(
        f"{name}.int8-cpu.onnx", speed(**facts), **{"unsigned_activations": True, **changes}
    )
    if name == "damaged":
        twin.write_bytes(b"x")
    backend, notices = chosen(path, caplog)
    assert backend == f"onnxruntime {name}.int8.onnx"
    assert [line for line in notices if "not faster than fp32 on onnxruntime" in line]
    shutil.rmtree(path.parent)
