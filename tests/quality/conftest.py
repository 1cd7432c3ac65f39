"""A data set, a checkpoint and its ONNX files, for tests of parity."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
import torch

from export.calibrate import histograms, ranges
from export.equalize import channel_peaks, equalize, in_steps
from export.graph import onnx_graph
from export.quantize import quantize
from tinyunet_deploy.artifacts.network import TinyUNet
from tinyunet_deploy.artifacts.sidecar import Sidecar, digest, write_artifact
from tinyunet_deploy.contract import Contract
from tinyunet_deploy.data.decoding import read_image
from tinyunet_deploy.data.encoding import write_png

SIZE = 64
CONTRACT = Contract(SIZE, SIZE)
PRECISIONS = {"fp32": "net.onnx", "fp16": "net.fp16.onnx", "int8": "net.int8.onnx"}


def brightness_network() -> TinyUNet:
    """Finds bright spots: one channel carries the image, all others add a little of theirs."""
    torch.manual_seed(3)
    network = TinyUNet()
    with torch.no_grad():
        first, second = network.encoder[0][0], network.encoder[0][2]
        last = network.decoder[-1]
        network.ups[-1].conv.weight *= 0.2
        for conv, channel in ((first, 0), (second, 0), (last[0], 16), (last[2], 0)):
            conv.weight *= 0.3
            conv.weight[0] = 0.0
            conv.weight[0, channel, 1, 1] = 1.0
        first.bias[0] = 1.0  # grey 0..255 is now 0..2
        network.logit.weight *= 0.02
        network.logit.weight[0, 0] = 6.0
        network.logit.bias[0] = -6.0 * 1.2
    return network.eval()


def write_images(root: Path) -> None:
    rng = np.random.default_rng(5)
    for split, count in (("Train", 12), ("Test", 6)):
        folder = root / "Class1" / split
        (folder / "Label").mkdir(parents=True)
        rows = ["1"]
        for index in range(1, count + 1):
            noise = rng.normal(0, 60, (SIZE, SIZE)).astype(np.float32)
            image = cv2.GaussianBlur(noise, (0, 0), 2) + 70
            mask = np.zeros((SIZE, SIZE), np.uint8)
            defective = index % 2 == 0
            if defective:
                center = tuple(int(place) for place in rng.integers(18, 46, 2))
                cv2.circle(mask, center, 9, 255, -1)
                image += cv2.GaussianBlur(mask, (0, 0), 2) * 0.6
                write_png(folder / "Label" / f"{index:04}_label.PNG", mask)
            write_png(folder / f"{index:04}.PNG", np.clip(image, 0, 255).astype(np.uint8))
            label = f"{index:04}_label.PNG" if defective else "0"
            rows.append(f"{index:04}\t{int(defective)}\t{index:04}.PNG\t0\t{label}")
        (folder / "Label" / "Labels.txt").write_text("\n".join(rows) + "\n")


def write_onnx(path: Path, data: bytes, precision: Any, parent: str) -> None:
    sidecar = Sidecar("onnx", precision, digest(data), parent, CONTRACT, min_area=8)
    write_artifact(path, data, sidecar)


def quantized(float32: bytes, images: list[Path]) -> bytes:
    """As the exporter makes int8, by the largest values on the images."""
    model = onnx.load_from_string(float32)
    pixels = [read_image(path) for path in images]
    equalized = equalize(model, channel_peaks(model, pixels), 0.5)
    return quantize(in_steps(equalized, ranges(histograms(equalized, pixels), "minmax")))


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set, a checkpoint, and its ONNX files in all precisions."""
    from tinyunet_deploy.artifacts.checkpoint import save_checkpoint

    root = tmp_path_factory.mktemp("station")
    write_images(root / "data")
    network = brightness_network()
    (root / "engines").mkdir()
    checkpoint = root / "engines" / "net.safetensors"
    sidecar = save_checkpoint(checkpoint, network, CONTRACT, min_area=8, origin={})
    float32 = onnx_graph(network, CONTRACT)
    float16 = onnx_graph(copy.deepcopy(network).half(), CONTRACT)
    images = sorted((root / "data" / "Class1" / "Train").glob("*.PNG"))
    made = {"fp32": float32, "fp16": float16, "int8": quantized(float32, images)}
    for precision, data in made.items():
        write_onnx(root / "engines" / PRECISIONS[precision], data, precision, sidecar.sha256)
    return root
