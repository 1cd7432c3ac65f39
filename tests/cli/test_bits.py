"""Depth of 16-bit images in every verb: ``--bits``, else the data set's, else the sidecar's."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.conftest import SIZE, part
from tinyunet_deploy.artifacts.sidecar import read_artifact, write_sidecar
from tinyunet_deploy.cli import run, tinyunet
from tinyunet_deploy.speed import benchmark

LARGEST = 5000
"""A value of 13 bits, which an image of 12 bits cannot have."""
BELT = "--parts-per-minute 600 --deadline-ms 60000 --seconds 0.3 --max-miss-rate 1"
VERBS = {
    "infer": "infer {data}/images -m {model} -o {out}",
    "evaluate": "evaluate {data} -m {model}",
    "tune": "tune {data} -m {model} -o {out}",
    "parity": "parity {data} -m {model} --reference {reference} --backend onnxruntime",
    "benchmark": "benchmark {data}/images -m {model} --reference {reference} --samples 2 "
    "--backend onnxruntime",
    "line-sim": "line-sim {data}/images -m {model} " + BELT,
}


def write_16_bits(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    ok, data = cv2.imencode(path.suffix, image)
    assert ok
    path.write_bytes(data.tobytes())


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Own images of 13 bits, every other one defective."""
    for number in range(6):
        mask = np.zeros((SIZE, SIZE), np.uint8)
        mask[8:16, 8 : 8 + 8 * (number % 2)] = 255
        image = part(number).astype(np.uint16) * (LARGEST // 255)
        image[0, 0] = LARGEST
        write_16_bits(tmp_path / "data" / "images" / f"{number}.png", image)
        write_16_bits(tmp_path / "data" / "masks" / f"{number}.png", mask)
    return tmp_path / "data"


@pytest.fixture
def words(data: Path, tmp_path: Path, tiny_onnx: Path, tiny_checkpoint: Path) -> dict[str, Path]:
    """A model and its reference whose sidecars declare 12 bits."""
    copies = {}
    for name, path in (("model", tiny_onnx), ("reference", tiny_checkpoint)):
        copies[name] = tmp_path / path.name
        shutil.copy(path, copies[name])
        write_sidecar(copies[name], dataclasses.replace(read_artifact(path).sidecar, bits=12))
    return {"data": data, "out": tmp_path / "out", **copies}


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_takes_the_depth_of_the_sidecar_and_of_the_user(
    verb: str,
    words: dict[str, Path],
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(benchmark, "measure_ceilings", lambda _device: iter(()))  # takes seconds
    arguments = VERBS[verb].format(**words).split()
    assert run(tinyunet, arguments) == 4
    assert "more than 12 bits can hold" in "".join(capfd.readouterr()), "the sidecar's depth"
    shutil.rmtree(words["out"], ignore_errors=True)
    assert run(tinyunet, [*arguments, "--bits", "13"]) in (0, 6), capfd.readouterr().err
    assert "bits can hold" not in "".join(capfd.readouterr())
    shutil.rmtree(words["out"], ignore_errors=True)
    (words["data"] / "dataset.toml").write_text("[images]\nbit_depth = 13\n")
    assert run(tinyunet, arguments) in (0, 6), capfd.readouterr().err
    assert "bits can hold" not in "".join(capfd.readouterr()), "the data set's depth comes first"
