"""A long line scan with the real network: the same answer as untiled, in the memory of a tile."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.conftest import REPOSITORY
from tinyunet_deploy.artifacts.checkpoint import load_checkpoint
from tinyunet_deploy.artifacts.network import DeployableGraph
from tinyunet_deploy.artifacts.sidecar import DEFAULT_CHECKPOINT, DEFAULT_ONNX, read_artifact
from tinyunet_deploy.contract import Image, Mask, defect_mask
from tinyunet_deploy.data import synthetic
from tinyunet_deploy.data.decoding import read_image
from tinyunet_deploy.data.encoding import write_png

WIDTH, LENGTH = 512, 20_000
BYTES_A_PIXEL = 24
"""Memory that one image needs beside the run itself, as docs/how-to/large-images.md says; one layer
of the network on the whole scan would take 128."""
_RUN = """
import resource, sys
from tinyunet_deploy.cli import run, tinyunet
code = run(tinyunet, sys.argv[1:])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, file=sys.stderr)
sys.exit(code)
"""


def scan(length: int) -> tuple[Image, Mask]:
    """Parts of one class one below the other, every third with a defect."""
    samples = [
        synthetic.sample(7, number, defective=number % 3 == 1, size=WIDTH)
        for number in range(-(-length // WIDTH))
    ]
    good = np.zeros((WIDTH, WIDTH), np.uint8)
    truths = [good if sample.truth is None else sample.truth for sample in samples]
    image = np.concatenate([sample.image for sample in samples])
    return image[:length], np.concatenate(truths)[:length]


def peak_bytes(*arguments: object) -> int:
    """Run a command in a process of its own; return the largest memory that it had."""
    done = subprocess.run(
        [sys.executable, "-c", _RUN, *map(str, arguments)],
        cwd=REPOSITORY, text=True, capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return int(done.stderr.split()[-1])


@pytest.mark.nightly
def test_a_long_scan_is_inspected_and_evaluated_as_if_untiled(tmp_path: Path) -> None:
    image, truth = scan(LENGTH)
    for name, length in (("long", LENGTH), ("short", 2 * WIDTH)):
        for folder in ("images", "masks"):
            (tmp_path / name / folder).mkdir(parents=True)
        write_png(tmp_path / name / "images/scan.png", image[:length])
        write_png(tmp_path / name / "masks/scan.png", truth[:length])
    network, _ = load_checkpoint(DEFAULT_CHECKPOINT)
    with torch.inference_mode():
        untiled = DeployableGraph(network)(torch.from_numpy(image)[None, None])[0, 0].numpy()

    peaks = {
        name: peak_bytes(
            *("infer", tmp_path / name / "images", "-m", DEFAULT_CHECKPOINT, "--scores"),
            *("-o", tmp_path / f"{name}-out"),
        )
        for name in ("short", "long")
    }
    score = read_image(tmp_path / "long-out/scores/scan.png")
    assert np.abs(score.astype(int) - untiled).max() <= 1
    sidecar = read_artifact(DEFAULT_CHECKPOINT).sidecar
    threshold, _ = sidecar.decision(None, None)
    mask = read_image(tmp_path / "long-out/masks/scan.png")
    wanted = defect_mask(untiled, threshold)
    assert ((mask != 0) != (wanted != 0)).mean() < 1e-5, "only pixels on the very threshold"
    assert (mask != 0).any()
    line = json.loads((tmp_path / "long-out/report.jsonl").read_text().splitlines()[0])
    assert line["verdict"] == "NG"
    assert peaks["long"] - peaks["short"] < BYTES_A_PIXEL * image.size

    figures = tmp_path / "figures.json"
    evaluated = {
        name: peak_bytes("evaluate", tmp_path / name, "-m", DEFAULT_ONNX, "-o", figures)
        for name in ("short", "long")
    }
    assert evaluated["long"] - evaluated["short"] < BYTES_A_PIXEL * image.size
    both, either = (truth != 0) & (wanted != 0), (truth != 0) | (wanted != 0)
    reached = json.loads(figures.read_text())["all"]["iou_defective"]
    assert reached == pytest.approx(both.sum() / either.sum(), abs=1e-3)
