"""The wheel with ``[cpu]`` in an environment of its own, without torch and onnx.

That is what a station has.
Every Python from 3.11 on that is found on this machine is tried; ``make wheel-smoke`` runs it. The
packages come from the index that pip is configured for.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

pytestmark = pytest.mark.nightly

Tinyunet = Callable[..., subprocess.CompletedProcess[str]]


def interpreter(version: str) -> str | None:
    """Return a Python of this version: this one, one in PATH, or one that pyenv keeps."""
    if version == f"{sys.version_info.major}.{sys.version_info.minor}":
        return sys.executable
    kept = sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/python3"))
    return str(kept[-1]) if kept else shutil.which(f"python{version}")


@pytest.fixture(scope="module", params=["3.11", "3.12", "3.13", "3.14"])
def station(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Tinyunet]:
    python = interpreter(request.param)
    if python is None:
        pytest.skip(f"no Python {request.param} on this machine")
    root = tmp_path_factory.mktemp(f"station-{request.param}-")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", root / "dist"]
    subprocess.run(build, cwd=REPOSITORY, check=True, capture_output=True)
    (wheel,) = (root / "dist").iterdir()
    subprocess.run([python, "-m", "venv", root / "venv"], check=True)
    install = [root / "venv/bin/pip", "install", "-q", "-c", REPOSITORY / "constraints.txt"]
    subprocess.run([*install, f"{wheel}[cpu]"], check=True, capture_output=True)

    def tinyunet(*words: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        command = [root / "venv/bin/tinyunet", *words]
        done = subprocess.run(command, cwd=root, capture_output=True, text=True)
        assert done.returncode == code, f"{words}\n{done.stdout}\n{done.stderr}"
        return done

    counts = ("--classes", "1,2", "--train", "8", "--test", "8", "--defective", "0.5")
    tinyunet("data", "synthesize", "data", *counts)
    for number in (1, 2):
        tinyunet("infer", f"data/Class{number}/Test", "-o", f"out{number}", "--overlays")
    return root, tinyunet


def test_neither_torch_nor_onnx_is_there(station: tuple[Path, Tinyunet]) -> None:
    root, _ = station
    for module in ("torch", "onnx"):
        python = root / "venv/bin/python"
        assert subprocess.run([python, "-c", f"import {module}"], capture_output=True).returncode


def test_images_are_inspected_and_evaluated(station: tuple[Path, Tinyunet]) -> None:
    root, tinyunet = station
    for folder in ("masks", "overlays"):
        files = [path for path in (root / "out1" / folder).rglob("*") if path.is_file()]
        assert len(files) == 8
    result = json.loads(tinyunet("evaluate", "data", "--format", "json").stdout)
    assert result["all"]["iou_defective"] > 0.5


def test_the_gates_work_and_say_their_reference(station: tuple[Path, Tinyunet]) -> None:
    root, tinyunet = station
    tinyunet("verify", "--strict")
    tinyunet("parity", "data", "-o", "parity")
    reference = json.loads((root / "parity/parity.json").read_text())["reference"]
    assert reference["role"] == "golden-images"
    assert "torch is not installed" in reference["reason"]
    assert reference["golden_largest_steps"] <= 1


def test_the_speed_and_the_limit_of_the_machine_are_measured(
    station: tuple[Path, Tinyunet],
) -> None:
    root, tinyunet = station
    tinyunet("benchmark", "--images", "2", "--samples", "3", "-o", "benchmark.json")
    result = json.loads((root / "benchmark.json").read_text())
    assert result["notes"] == [] or all("above the limit" in note for note in result["notes"])
    assert {row["backend"] for row in result["measurements"]} == {"openvino", "onnxruntime"}
    assert all(row["roofline"] is not None for row in result["measurements"])
    assert {"float32 openvino", "int8 onnxruntime"} <= {row["name"] for row in result["ceilings"]}


def test_threshold_drift_and_belt(station: tuple[Path, Tinyunet]) -> None:
    root, tinyunet = station
    tinyunet("tune", "data", "-o", "tuned")
    assert (root / "tuned/tune.svg").stat().st_size > 1000
    drift = [root / "venv/bin/tinyunet", "drift", "out1", "--against", "out2", "-o", "drift.svg"]
    assert subprocess.run(drift, cwd=root, capture_output=True).returncode in (0, 6)
    assert (root / "drift.svg").stat().st_size > 1000
    belt = ("--parts-per-minute", "6", "--deadline-ms", "9000", "--max-miss-rate", "1")
    tinyunet("line-sim", "data/Class1/Test", *belt, "--seconds", "10", "-o", "line.json")
    assert json.loads((root / "line.json").read_text())
