"""The example with own images: from a folder of images and masks to pictures of what is found."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import REPOSITORY
from tinyunet_deploy.data import synthetic
from tinyunet_deploy.data.decoding import read_image
from tinyunet_deploy.data.encoding import write_png

SCRIPT = REPOSITORY / "examples" / "own_images" / "own_images.py"


@pytest.mark.nightly
def test_it_goes_from_images_and_masks_to_overlays(tmp_path: Path) -> None:
    for index in range(8):
        split = "test" if index >= 6 else "train"
        sample = synthetic.sample(4, index, defective=index % 2 == 0)
        mask = np.zeros_like(sample.image) if sample.truth is None else sample.truth
        for kind, array in (("images", sample.image), ("masks", mask)):
            path = tmp_path / "parts" / split / kind / f"{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            write_png(path, array)
    done = subprocess.run(
        [sys.executable, SCRIPT, "parts", "out", "--steps", "2"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "<Model parts.onnx: fp32" in done.stdout
    assert "2 images, 1 of them defective: 0 defective parts let through" in done.stdout
    names = sorted(path.name for path in (tmp_path / "out" / "overlays").iterdir())
    assert [name.split("-")[1] for name in names] == ["NG", "OK"]
    picture = read_image(tmp_path / "out" / "overlays" / names[0])
    assert (picture.shape[0] >= 512, picture.shape[1] >= 512) == (True, True)
    sidecar = json.loads((tmp_path / "out" / "engines" / "parts.onnx.json").read_text())
    assert sidecar["parent"]
