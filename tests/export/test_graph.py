"""The ONNX file of a network on blocks of pixels, in every precision."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from export.calibrate import histograms, ranges
from export.equalize import channel_peaks, equalize, in_steps
from export.graph import onnx_graph
from export.quantize import quantize
from tinyunet_deploy.artifacts.architectures import Architecture
from tinyunet_deploy.artifacts.network import DeployableGraph, Network, make_network
from tinyunet_deploy.artifacts.tensorrt_preflight import check_onnx
from tinyunet_deploy.contract import Batch, Contract

BLOCKS = Architecture(encoder=(8, 8), bottleneck=16, head=8, space_to_depth=4)
CONTRACT = Contract(64, 48)


@pytest.fixture(scope="module")
def network() -> Network:
    torch.manual_seed(0)
    network = make_network("blocks", BLOCKS).eval()
    with torch.no_grad():
        for parameter in network.parameters():  # no bias is zero, which torch would leave out
            if parameter.ndim == 1:
                parameter.uniform_(-0.2, 0.2)
    return network


@pytest.fixture(scope="module")
def images() -> Batch:
    return np.random.default_rng(0).integers(0, 256, (3, 1, 64, 48), dtype=np.uint8)


def scored(data: bytes, images: Batch) -> Batch:
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    scores: Batch = session.run(None, {"image": images})[0]
    return scores


def largest_difference(network: Network, data: bytes, images: Batch) -> int:
    with torch.inference_mode():
        expected = DeployableGraph(network)(torch.from_numpy(images)).numpy()
    assert expected.std() > 10
    return int(np.abs(scored(data, images).astype(int) - expected).max())


@pytest.mark.parametrize(("precision", "steps"), [("fp32", 1), ("fp16", 2)])
def test_blocks_are_single_operators_and_the_scores_exact(
    network: Network, images: Batch, precision: str, steps: int
) -> None:
    data = onnx_graph(network, CONTRACT, precision)  # type: ignore[arg-type]
    model = onnx.load_from_string(data)
    check_onnx(model, "blocks.onnx")
    operators = [node.op_type for node in model.graph.node]
    assert {"Reshape", "Transpose"}.isdisjoint(operators)
    assert (operators.count("SpaceToDepth"), operators.count("DepthToSpace")) == (1, 1)
    assert largest_difference(network, data, images) <= steps


def test_blocks_are_quantised_whole(network: Network, images: Batch) -> None:
    model = onnx.load_from_string(onnx_graph(network, CONTRACT))
    pixels = list(images[:, 0])
    equalized = equalize(model, channel_peaks(model, pixels), 0.5)
    stepped = in_steps(equalized, ranges(histograms(equalized, pixels), "minmax"))
    assert largest_difference(network, stepped.SerializeToString(), images) <= 2  # before rounding
    data = quantize(stepped)
    quantized = onnx.load_from_string(data)
    check_onnx(quantized, "blocks.int8.onnx")
    producers = {node.output[0]: node.op_type for node in quantized.graph.node}
    convolutions = [node for node in quantized.graph.node if node.op_type == "Conv"]
    sources = {producers[name] for node in convolutions for name in node.input[:2]}
    assert len(convolutions) == 13 and sources == {"DequantizeLinear"}
    assert largest_difference(network, data, images) <= 24
