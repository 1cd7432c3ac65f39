from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from benchmarks import foreign_networks
from benchmarks.foreign_networks import Network, write_photos
from benchmarks.page_tables import accuracy
from tests.foreign_networks import SIDE, rgb_logits
from tinyunet_deploy.artifacts.adoption.form import NORMALIZATIONS
from tinyunet_deploy.cli import run
from tinyunet_deploy.data.decoding import read_image
from tinyunet_deploy.errors import DataError


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Ten photos with masks, 1 to 10; that of 2 is turned by 90 degrees, and that of 3 is gone."""
    folder = tmp_path / "photos"
    random = np.random.default_rng(0)
    for name in ("Training_Images", "Ground_Truth"):
        (folder / name).mkdir(parents=True)
    for number in range(1, 11):
        photo = random.integers(0, 256, (90, 120, 3), np.uint8)
        mask = np.zeros((120, 90) if number == 2 else (45, 60), np.uint8)
        mask[10:20, 10:30] = 255
        if number != 3:
            cv2.imwrite(str(folder / "Training_Images" / f"{number}.jpg"), photo)
        cv2.imwrite(str(folder / "Ground_Truth" / f"{number}.png"), mask)
    return folder


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(foreign_networks, "CALIBRATING", 3)


def test_photos_with_masks_of_another_aspect_are_left_out(photos: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    write_photos(photos, data, 32, 4)
    names = {
        split: sorted(int(p.stem) for p in (data / split / "images").iterdir())
        for split in ("train", "test")
    }
    assert names == {"train": [1, 4, 5], "test": [6, 7, 8, 9]}
    mask = read_image(data / "test" / "masks" / "6.png")
    assert mask.shape == (32, 32) and set(np.unique(mask)) == {0, 255}
    with pytest.raises(DataError, match="has 8 photos with masks"):
        write_photos(photos, tmp_path / "more", 32, 6)


@pytest.mark.nightly
def test_the_result_is_the_table_of_the_page(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "net.onnx").write_bytes(rgb_logits())
    network = Network("Small", "net.onnx", SIDE, NORMALIZATIONS["imagenet"], None, "a test")
    monkeypatch.setattr(foreign_networks, "NETWORKS", (network,))
    result = tmp_path / "result.json"
    words = [str(tmp_path), str(photos), "--evaluated", "4", "-o", str(result)]
    assert run(foreign_networks.foreign_networks, words) == 0
    monkeypatch.setattr(accuracy, "read_result", lambda _: json.loads(result.read_text()))
    (row,) = accuracy.foreign_networks()[1:]
    assert row[:4] == ["Small", "a test", f"{SIDE}x{SIDE}", "free"]
    (stored,) = json.loads(result.read_text())["networks"]
    assert row[5] == f"{stored['files']['fp32']['iou_defective']:.3f}"
    assert len(stored["files"]) + len(stored["refused"]) == 3
