"""``tinyunet verify``, and what ``info`` and ``infer`` say of the same files."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from export.graph import onnx_graph
from tinyunet_deploy.artifacts.checkpoint import save_checkpoint
from tinyunet_deploy.artifacts.golden import write_golden
from tinyunet_deploy.artifacts.network import TinyUNet
from tinyunet_deploy.artifacts.sidecar import Sidecar, digest, sidecar_path, write_artifact
from tinyunet_deploy.backends.registry import open_backend
from tinyunet_deploy.cli import run, tinyunet
from tinyunet_deploy.contract import Contract
from tinyunet_deploy.data.encoding import write_png
from tinyunet_deploy.testing.fake_backend import FakeBackend

CONTRACT = Contract(64, 64)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("engines")
    torch.manual_seed(1)
    network = TinyUNet().eval()
    checkpoint = folder / "net.safetensors"
    parent = save_checkpoint(checkpoint, network, CONTRACT, origin={}).sha256
    data = onnx_graph(network, CONTRACT)
    sidecar = Sidecar("onnx", "fp32", digest(data), parent, CONTRACT)
    write_artifact(folder / "net.onnx", data, sidecar)
    with open_backend(checkpoint) as reference:
        write_golden(folder / "net.onnx", reference.score_alone)
    return folder


@pytest.fixture
def engines(exported: Path, tmp_path: Path) -> Path:
    return shutil.copytree(exported, tmp_path / "engines")


def findings(
    capsys: pytest.CaptureFixture[str], *arguments: str, code: int
) -> list[dict[str, Any]]:
    capsys.readouterr()
    assert run(tinyunet, ["verify", *arguments, "--format", "json"]) == code
    found: list[dict[str, Any]] = json.loads(capsys.readouterr().out)["findings"]
    return found


def test_a_whole_lineage_is_walked_and_every_backend_tested(
    engines: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = findings(capsys, str(engines / "net.onnx"), "--strict", code=0)
    done = [row for row in rows if row["outcome"] != "skipped"]
    assert [(row["file"], row["check"], row["outcome"]) for row in done] == [
        ("net.onnx", "sha256", "ok"),
        ("net.safetensors", "sha256", "ok"),
        ("net.onnx", "openvino", "ok"),
        ("net.onnx", "onnxruntime", "ok"),
    ]
    assert run(tinyunet, ["verify", str(engines / "net.onnx")]) == 0
    assert "golden" in capsys.readouterr().out


def test_a_parent_that_is_not_here_is_told_and_refused_only_if_strict(
    engines: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    archive = tmp_path / "archive"
    archive.mkdir()
    for name in ("net.safetensors", "net.safetensors.json"):
        (engines / name).rename(archive / name)
    model = str(engines / "net.onnx")
    rows = findings(capsys, model, code=0)
    assert [row["outcome"] for row in rows if row["check"] == "lineage"] == ["missing"]
    findings(capsys, model, "--strict", code=4)
    findings(capsys, model, "--strict", "--search", str(archive), code=0)
    assert run(tinyunet, ["info", model]) == 0
    assert "not found:" in capsys.readouterr().out


def test_a_changed_parent_is_refused(engines: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint = engines / "net.safetensors"
    data = bytearray(checkpoint.read_bytes())
    data[-1] ^= 1
    checkpoint.write_bytes(data)
    assert run(tinyunet, ["verify", str(engines / "net.onnx")]) == 4
    assert f"error: {checkpoint}: is not the file" in capsys.readouterr().err


def test_an_edited_sidecar_is_refused_with_the_command_that_helps(
    engines: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = sidecar_path(engines / "net.onnx")
    where.write_text(where.read_text().replace('"threshold": 0.5', '"threshold": 0.4'))
    assert run(tinyunet, ["verify", str(engines / "net.onnx")]) == 4
    told = capsys.readouterr().err
    assert "was edited" in told and "python -m export" in told


def test_other_answers_are_refused_by_verify_and_by_infer(
    engines: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = engines / "net.onnx"
    write_png(tmp_path / "image.png", np.zeros((64, 64), np.uint8))
    infer = ["infer", str(tmp_path / "image.png"), "-m", str(model), "--self-test"]
    assert run(tinyunet, [*infer, "-o", str(tmp_path / "good")]) == 0
    write_golden(model, FakeBackend(contract=CONTRACT).score_alone)
    rows = findings(capsys, str(model), code=4)
    assert [row["outcome"] for row in rows].count("refused") == 2
    assert run(tinyunet, [*infer, "-o", str(tmp_path / "bad")]) == 4
    assert "fails its self-test" in capsys.readouterr().err
    assert not (tmp_path / "bad").exists()


def test_info_shows_the_chain(engines: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tinyunet, ["info", str(engines / "net.onnx")]) == 0
    told = capsys.readouterr().out
    assert "net.safetensors" in told and "golden images" in told
