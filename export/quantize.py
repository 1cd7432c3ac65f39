"""Turn a float32 graph into an int8 graph with explicit Q/DQ, the same for TensorRT and CPUs.

Weights are int8 per output channel, activations int8 per tensor, both symmetric with zero point 0;
biases and everything after the logit stay float32. One Q/DQ pair follows each ReLU, which then
fuses with the convolution before it, so pooling, resizing and concatenation move bytes. Another
pair stands right before each convolution, which makes TensorRT compute it in int8. All scales are
1, so the second of two pairs changes nothing.

The same numbers can also be stored as uint8, which no activation behind a ReLU needs a sign for.
ONNX Runtime fuses a convolution with its ReLU only then, and computes it in integers; TensorRT
refuses such a file.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from export.equalize import LEVELS, MOVES
from export.graph import file_of
from tinyunet_deploy.contract import INT8_GREY

__all__ = ["RECIPE", "UNSIGNED", "convolutions", "quantize", "rounded", "weight_counts"]

RECIPE: Final = {
    "activations": "int8 per tensor, scale 1, zero point 0",
    "weights": "int8 per output channel, zero point 0",
    "biases": "float32",
}
"""Description for the sidecar."""
UNSIGNED: Final = {
    **RECIPE,
    "activations": f"uint8 per tensor, scale 1, zero point 0; the image's is {INT8_GREY:g}",
}
"""Description of a file with unsigned activations, for the sidecar."""
_STEP: Final = "step"
_ZERO: Final = "zero"
_IMAGE_ZERO: Final = "zero.image"


def convolutions(model: onnx.ModelProto) -> dict[str, str]:
    """Return name of a convolution in the network, such as ``encoder.0.2`` -> name of its node."""
    return {_name(node): node.name for node in model.graph.node if node.op_type == "Conv"}


def weight_counts(model: onnx.ModelProto) -> dict[str, int]:
    """Return name of a convolution in the network -> number of its weights."""
    sizes = {tensor.name: math.prod(tensor.dims) for tensor in model.graph.initializer}
    return {
        _name(node): sizes[node.input[1]] for node in model.graph.node if node.op_type == "Conv"
    }


def quantize(
    model: onnx.ModelProto, keep: Collection[str] = (), *, unsigned: bool = False
) -> bytes:
    """Return the bytes of the int8 ONNX file of a float32 graph.

    Args:
        model: a graph whose activations are counted in int8 steps, from
            :func:`export.equalize.in_steps`.
        keep: convolutions that stay in float32, by their names in :func:`convolutions`.
        unsigned: store activations as uint8, for CPUs. They then reach to 255 instead of 127 of the
            same steps; the image keeps its grey values by a zero point.
    """
    quantized = onnx.ModelProto()
    quantized.CopyFrom(model)
    graph = quantized.graph
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    graph.initializer.append(numpy_helper.from_array(np.array(1.0, np.float32), _STEP))
    kind = np.uint8 if unsigned else np.int8
    graph.initializer.append(numpy_helper.from_array(np.array(0, kind), _ZERO))
    if unsigned:
        grey = numpy_helper.from_array(np.array(INT8_GREY, np.uint8), _IMAGE_ZERO)
        graph.initializer.append(grey)
    integer = {
        node.name for node in graph.node if node.op_type == "Conv" and _name(node) not in keep
    }
    """Nodes that read int8: convolutions, and the operators that move numbers to them."""
    wanted = {node.input[0] for node in graph.node if node.name in integer}
    first = next(node.input[0] for node in graph.node if node.op_type == "Conv")
    """The image, in grey levels above or below the middle."""
    for node in reversed(graph.node):
        if node.op_type in MOVES and node.output[0] in wanted:
            integer.add(node.name)
            wanted.update(node.input)
    nodes: list[onnx.NodeProto] = []
    twins: dict[str, str] = {}
    """Activation -> the same activation after Q/DQ."""

    def pair(activation: str) -> str:
        """Append a Q/DQ pair and return the name of its output."""
        names = [activation, f"{activation}.int8", f"{activation}.dequantized"]
        zero = _IMAGE_ZERO if unsigned and activation == first else _ZERO
        for operator, before, after in zip(
            ("QuantizeLinear", "DequantizeLinear"), names, names[1:], strict=False
        ):
            nodes.append(helper.make_node(operator, [before, _STEP, zero], [after], after))
        twins[activation] = names[-1]
        return names[-1]

    for node in list(graph.node):
        if node.name in integer:
            for place, name in enumerate(node.input):
                node.input[place] = twins.get(name, name)
            if node.op_type == "Conv":
                if node.input[0] not in twins.values():
                    node.input[0] = pair(node.input[0])
                nodes.append(_dequantized(graph, tensors[node.input[1]]))
                node.input[1] = nodes[-1].output[0]
        nodes.append(node)
        if node.op_type == "Relu" and node.output[0] in wanted:
            pair(node.output[0])
    del graph.node[:]
    graph.node.extend(nodes)
    return file_of(quantized)


def rounded(weight: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Round weights to int8.

    Args:
        weight: float32 [C_out, C_in, H, W].

    Returns:
        int8 [C_out, C_in, H, W] in -127..127, and float32 [C_out], the step of each output channel.
    """
    peak = np.abs(weight).max(axis=(1, 2, 3))
    step = np.where(peak > 0, peak / LEVELS, 1.0).astype(np.float32)
    steps = np.rint(weight / step[:, None, None, None])
    return steps.clip(-LEVELS, LEVELS).astype(np.int8), step


def _dequantized(graph: onnx.GraphProto, weight: onnx.TensorProto) -> onnx.NodeProto:
    """Replace a weight of the graph by int8, and return the node that dequantises it."""
    name = weight.name
    values, step = rounded(numpy_helper.to_array(weight))
    weight.CopyFrom(numpy_helper.from_array(values, f"{name}.int8"))
    graph.initializer.append(numpy_helper.from_array(step, f"{name}.step"))
    graph.initializer.append(numpy_helper.from_array(np.zeros_like(step, np.int8), f"{name}.zero"))
    inputs = [f"{name}.{part}" for part in ("int8", "step", "zero")]
    return helper.make_node("DequantizeLinear", inputs, [name], f"{name}.dequantized", axis=0)


def _name(node: onnx.NodeProto) -> str:
    weight: str = node.input[1]
    return weight.removeprefix("network.").removesuffix(".weight")
