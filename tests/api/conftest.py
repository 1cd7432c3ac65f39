"""Folders on which the package's model is right: what the examples of the docstrings run on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tinyunet_deploy.data import synthetic
from tinyunet_deploy.data.encoding import write_png


@pytest.fixture
def example_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """``photos/``: a defect, a good part, half a file; ``data/``: two images with their masks.

    It is the current folder while the test runs.
    """
    for folder in ("photos", "data/images", "data/masks"):
        (tmp_path / folder).mkdir(parents=True)
    for index in range(2):
        sample = synthetic.sample(4, index, defective=index == 0)
        mask = np.zeros_like(sample.image) if sample.truth is None else sample.truth
        write_png(tmp_path / "photos" / f"{index}.png", sample.image)
        write_png(tmp_path / "data" / "images" / f"{index}.png", sample.image)
        write_png(tmp_path / "data" / "masks" / f"{index}.png", mask)
    whole = (tmp_path / "photos" / "1.png").read_bytes()
    (tmp_path / "photos" / "2.png").write_bytes(whole[: len(whole) // 2])
    monkeypatch.chdir(tmp_path)
    return tmp_path
