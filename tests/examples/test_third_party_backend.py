"""The example of a backend in another package: found, run and judged without an edit of ours."""

from __future__ import annotations

import json
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from tests.conftest import REPOSITORY
from tinyunet_deploy.artifacts.sidecar import Sidecar, digest, write_artifact
from tinyunet_deploy.backends.base import Backend
from tinyunet_deploy.backends.registry import open_backend
from tinyunet_deploy.cli import run, tinyunet
from tinyunet_deploy.contract import Contract
from tinyunet_deploy.data.encoding import write_png
from tinyunet_deploy.errors import TinyUNetError
from tinyunet_deploy.quality.parity_limits import read_limits
from tinyunet_deploy.speed.benchmark import Effort, run_benchmark
from tinyunet_deploy.testing.backend_contract import BackendContract

EXAMPLE = REPOSITORY / "examples" / "third_party_backend"


def brightness_graph() -> bytes:
    """Scores are the grey values: bright pixels are defects."""
    nodes = [
        helper.make_node("Cast", ["image"], ["grey"], to=TensorProto.FLOAT),
        helper.make_node("Cast", ["grey"], ["score"], to=TensorProto.UINT8),
    ]
    ends = [
        helper.make_tensor_value_info(name, TensorProto.UINT8, ["N", 1, 16, 32])
        for name in ("image", "score")
    ]
    graph = helper.make_graph(nodes, "brightness", ends[:1], ends[1:])
    opset = [helper.make_opsetid("", 18)]
    data: bytes = helper.make_model(graph, opset_imports=opset, ir_version=10).SerializeToString()
    onnx.checker.check_model(data)
    return data


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "brightness.onnx"
    data = brightness_graph()
    write_artifact(path, data, Sidecar("onnx", "fp32", digest(data), None, Contract(16, 32)))
    return path


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The example as an installer leaves it: the module and its entry points on the path."""
    project = tomllib.loads((EXAMPLE / "pyproject.toml").read_text())["project"]
    folder = tmp_path / "site"
    info = folder / "onnx_reference_backend-0.1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: 1\n")
    lines = []
    for group, entries in project["entry-points"].items():
        lines += [f"[{group}]", *(f"{name} = {value}" for name, value in entries.items())]
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n")
    module = "onnx_reference_backend"
    (folder / f"{module}.py").write_text((EXAMPLE / f"{module}.py").read_text())
    monkeypatch.syspath_prepend(folder)
    yield
    sys.modules.pop(module, None)


@pytest.mark.usefixtures("installed")
class TestReferenceBackend(BackendContract):
    steps = 0

    @pytest.fixture
    def backend(self, installed: None, model: Path) -> Iterator[Backend]:
        with open_backend(model, "onnx-reference") as backend:
            yield backend


def test_every_verb_runs_it(
    installed: None, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = tmp_path / "images"
    images.mkdir()
    image = np.tile(np.arange(32, dtype=np.uint8), (16, 1))
    write_png(images / "good.png", image)
    image[4:8, 4:8] = 255
    write_png(images / "defect.png", image)
    choice = ["-m", str(model), "--backend", "onnx-reference"]
    assert run(tinyunet, ["infer", str(images), "-o", str(tmp_path / "out"), *choice]) == 0
    rows = (tmp_path / "out" / "report.jsonl").read_text().splitlines()
    assert sorted(json.loads(row).get("verdict", "") for row in rows)[-2:] == ["NG", "OK"]
    capsys.readouterr()
    words = ["parity", str(images), *choice, "--reference", str(model), "--format", "json"]
    assert run(tinyunet, words) == 0, capsys.readouterr().err
    assert "onnx-reference" in capsys.readouterr().out
    result, _ = run_benchmark(
        [model],
        [images / "defect.png"],
        limits=read_limits(),
        command="test",
        reference=model,
        backends=["onnx-reference"],
        effort=Effort(samples=2),
        ceilings=lambda device: iter([(device, TinyUNetError(device, "is not measured"))]),
    )
    (row,) = result.measurements
    assert (row.backend, row.check.images) == ("onnx-reference", 1)
    assert not result.red
