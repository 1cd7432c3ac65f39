"""The command ``python -m export``, and exports at another size than the checkpoint's."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest

from export import int8
from export.__main__ import export
from export.calibrate import METHODS
from tests.export.conftest import SIZE
from tinyunet_deploy.artifacts.golden import read_golden
from tinyunet_deploy.artifacts.precision import PRECISIONS
from tinyunet_deploy.artifacts.sidecar import read_artifact, write_sidecar
from tinyunet_deploy.backends.registry import open_backend
from tinyunet_deploy.cli import run, tinyunet
from tinyunet_deploy.contract import Contract
from tinyunet_deploy.data import synthetic
from tinyunet_deploy.data.encoding import write_png
from tinyunet_deploy.quality.self_test import self_test


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-o", "net.plan"], "must end in .onnx"),
        (["-o", "net.onnx", "--precision", "bf16"], "'bf16' is not one of fp32, fp16, int8"),
        (["-o", "net.onnx", "--precision", "unknown"], "'unknown' is not one of fp32, fp16, int8"),
        (["-o", "net.onnx", "--precision", "fp16", "--iou-budget", "0.005"], "--precision int8"),
        (["-o", "net.onnx", "--size", "128,64"], "'128,64' is not a size such as 256 or 384x640"),
        (["-o", "net.onnx", "--size", "-64"], "'-64' is not a size such as 256 or 384x640"),
    ],
)
def test_wrong_usage_writes_nothing(
    checkpoint: Path,
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(export, [str(checkpoint), *arguments]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("size", ["100", "0", "128x100"])
def test_a_size_that_the_network_does_not_take_is_refused(
    checkpoint: Path, size: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [str(checkpoint), "-o", str(tmp_path / "net.onnx"), "--size", size]
    assert run(export, words) == 4
    assert "is not a multiple of 16" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_file_that_is_not_a_checkpoint_is_refused(
    tiny_onnx: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(export, [str(tiny_onnx), "-o", str(tmp_path / "net.onnx")]) == 4
    assert "not checkpoint" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module", params=[(96, 96), (48, 112)], ids=["96", "48x112"])
def resized(
    checkpoint: Path, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The files of all precisions, exported for another size than the checkpoint's."""
    height, width = request.param
    folder = tmp_path_factory.mktemp("resized")
    output = folder / f"{height}x{width}.onnx"
    size = f"{height}x{width}" if height != width else str(height)
    command = [str(checkpoint), "-o", str(output), "--size", size]
    with pytest.MonkeyPatch.context() as patch:  # measuring 18 calibrations takes long
        patch.setattr(int8, "ALPHAS", (0.5,))
        patch.setattr(int8, "METHODS", {"minmax": METHODS["minmax"]})
        assert run(export, [*command, "--precision", "fp32,fp16,int8", "--min-speedup", "0"]) == 0
    return output


def size_of(path: Path) -> tuple[int, int]:
    height, width = path.name.partition(".")[0].split("x")
    return int(height), int(width)


def test_files_of_another_size_have_it_in_contract_graph_and_golden_images(resized: Path) -> None:
    size = size_of(resized)
    assert size != (SIZE, SIZE)
    for suffix, precision in (
        (".onnx", "fp32"),
        (".fp16.onnx", "fp16"),
        (".int8.onnx", "int8"),
        (".int8-cpu.onnx", "int8"),
    ):
        path = resized.with_suffix(suffix)
        artifact = read_artifact(path)
        assert artifact.sidecar.precision == precision
        assert artifact.sidecar.contract == Contract(*size)
        image, score = read_golden(artifact)
        assert image.shape == score.shape == (2, 1, *size)
        for name in ("onnxruntime", "openvino"):
            with open_backend(path, name) as backend:
                assert backend.run(np.zeros((2, 1, *size), np.uint8)).score.shape == (2, 1, *size)
                self_test(backend)


def test_files_of_another_size_answer_as_the_checkpoint(
    resized: Path, checkpoint: Path, tmp_path: Path
) -> None:
    height, width = size_of(resized)
    for index in range(4):
        drawn = synthetic.sample(index + 1, 5, defective=index % 2 == 0, size=112).image
        write_png(tmp_path / f"{index}.png", np.ascontiguousarray(drawn[:height, :width]))
    command = ["parity", str(tmp_path), "--reference", str(checkpoint), "-b", "2"]
    for suffix in (".onnx", ".fp16.onnx", ".int8.onnx", ".int8-cpu.onnx"):
        command += ["-m", str(resized.with_suffix(suffix))]
    assert run(tinyunet, command) == 0


def test_the_files_keep_the_depth_of_the_camera_and_the_source_of_the_images(
    checkpoint: Path, labelled_data: Path, tmp_path: Path
) -> None:
    deep = tmp_path / checkpoint.name
    shutil.copy(checkpoint, deep)
    write_sidecar(deep, dataclasses.replace(read_artifact(checkpoint).sidecar, bits=12))
    for words, bits, source in (
        ([], 12, "synthetic images"),
        (["--bits", "10", "--data", str(labelled_data)], 10, "training images"),
    ):
        output = tmp_path / f"{bits}.onnx"
        assert run(export, [str(deep), "-o", str(output), "--precision", "fp32", *words]) == 0
        sidecar = read_artifact(output).sidecar
        assert sidecar.bits == bits
        assert sidecar.origin["parity_with_checkpoint"]["source"] == source


def test_every_precision_is_offered(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(export, ["--help"]) == 0
    assert ",".join(PRECISIONS) in capsys.readouterr().out
