"""A checkpoint names the images that it saw, and evaluate and tune say so."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.training.small_runs import SMALL
from tinyunet_deploy.artifacts.sidecar import read_sidecar
from tinyunet_deploy.cli import run, tinyunet
from tinyunet_deploy.quality.dataset_scoring import image_digest
from training.loop import train
from training.machine import Machine
from training.sources import read_source


def write_parts(folder: Path, first: int) -> Path:
    """Eight parts of 32x32, every other one defective."""
    rng = np.random.default_rng(first)
    for number in range(first, first + 8):
        image = rng.integers(60, 100, (32, 32), dtype=np.uint8)
        mask = np.zeros((32, 32), np.uint8)
        mask[8:16, 8:16] = 255 * (number % 2)
        image[mask > 0] = 230
        for part, array in (("images", image), ("masks", mask)):
            (folder / part).mkdir(parents=True, exist_ok=True)
            assert cv2.imwrite(str(folder / part / f"{number}.png"), array)
    return folder


def test_trained_and_validated_images_are_known_to_evaluate_and_tune(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = (write_parts(tmp_path / name, n) for name, n in (("a", 0), ("b", 8)))
    source = read_source(first, None, SMALL)
    checkpoint = train(SMALL, [source], tmp_path / "run", machine=Machine())
    sidecar = read_sidecar(checkpoint)
    trained = {image_digest(e.item.image) for e in (*source.defective, *source.defect_free)}
    assert set(sidecar.trained_on) == trained and len(trained) == 6
    assert set(sidecar.tuned_on) == {image_digest(e.item.image) for e in source.validation}

    assert run(tinyunet, ["evaluate", str(first), "-m", str(checkpoint), "--format", "json"]) == 0
    shown = capsys.readouterr()
    assert "note: the model was trained on 6 of these 8 images" in shown.err
    assert json.loads(shown.out)["images_trained_on"] == 6
    assert run(tinyunet, ["tune", str(first), "-m", str(checkpoint), "--format", "json"]) == 0
    shown = capsys.readouterr()
    assert "note: the model was trained on 6 of these 8 images" in shown.err
    assert json.loads(shown.out)["images_trained_on"] == 6
    assert run(tinyunet, ["evaluate", str(second), "-m", str(checkpoint)]) == 0
    assert "trained on" not in capsys.readouterr().err

    other = read_source(second, None, SMALL)
    again = train(SMALL, [other], tmp_path / "more", machine=Machine(), init=checkpoint)
    assert set(read_sidecar(again).trained_on) > trained
    assert len(read_sidecar(again).trained_on) == 12
