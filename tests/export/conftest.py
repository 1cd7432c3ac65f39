"""A small float32 graph and helpers for tests of the exporter."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray

from export.calibrate import watch
from export.graph import onnx_graph
from tinyunet_deploy.artifacts.checkpoint import save_checkpoint
from tinyunet_deploy.artifacts.network import TinyUNet
from tinyunet_deploy.artifacts.sidecar import write_sidecar
from tinyunet_deploy.contract import Contract, Image
from tinyunet_deploy.data import synthetic

SIZE = 64
CONTRACT = Contract(SIZE, SIZE)
TUNED_ON = ("0123456789abcdef",)
"""Digests of the images that chose the checkpoint's threshold."""


@pytest.fixture(scope="session")
def float32() -> onnx.ModelProto:
    """The graph of an untrained network. Not to be changed: copy it."""
    network = TinyUNet()
    network.reset_parameters(torch.Generator().manual_seed(1))
    return onnx.load_from_string(onnx_graph(network, CONTRACT))


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network that was not trained, with decided scores: its logits are spread wide."""
    network = TinyUNet()
    network.reset_parameters(torch.Generator().manual_seed(1))
    with torch.no_grad():
        network.logit.weight *= 20.0
    path = tmp_path_factory.mktemp("checkpoint") / "net.safetensors"
    sidecar = save_checkpoint(path, network, CONTRACT, threshold=0.4, min_area=3, origin={})
    write_sidecar(path, dataclasses.replace(sidecar, tuned_on=TUNED_ON))
    return path


@pytest.fixture(scope="session")
def labelled_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    synthetic.write_dataset(folder, classes=[1], train=16, test=2, size=SIZE, defective=0.5)
    return folder


def uneven(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the network with some small channels and one dead channel in each convolution."""
    other = onnx.ModelProto()
    other.CopyFrom(model)
    generator = np.random.default_rng(0)
    for tensor in other.graph.initializer:
        if tensor.name.endswith(".weight") and "logit" not in tensor.name:
            value = onnx.numpy_helper.to_array(tensor).copy()
            value *= 10 ** generator.uniform(-1, 0.5, (len(value), 1, 1, 1)).astype(np.float32)
            value[3] = 0.0
            tensor.CopyFrom(onnx.numpy_helper.from_array(value, tensor.name))
    return other


def output_of(model: onnx.ModelProto, name: str, images: list[Image]) -> NDArray[np.float32]:
    """Return a tensor inside a graph, float32 [N, C, H, W]."""
    return np.concatenate([values[name] for values in watch(model, [name], images)])
