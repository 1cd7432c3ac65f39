"""The ONNX graph that the matrix rate of a runtime is measured with."""

from __future__ import annotations

from typing import Final, assert_never

import numpy as np
from numpy.typing import NDArray

from tinyunet_deploy.artifacts.onnx_writer import FLOAT, UINT8, End, node, onnx_model, tensor
from tinyunet_deploy.artifacts.precision import Precision
from tinyunet_deploy.contract import INPUT_NAME, OUTPUT_NAME

__all__ = ["BLOCK", "CHANNELS", "matrix_flop", "matrix_graph"]

CHANNELS: Final = 256
"""Input and output channels of each convolution."""
BLOCK: Final = 16
"""Side of the square of pixels whose grey values become the 256 channels."""


def matrix_flop(size: int) -> float:
    """Return the multiplications and additions of one convolution of :func:`matrix_graph`."""
    return 2.0 * 9 * CHANNELS**2 * (size // BLOCK) ** 2


def matrix_graph(precision: Precision, size: int, layers: int) -> bytes:
    """Build an ONNX graph that keeps the contract and does next to nothing but convolve.

    uint8 [N, 1, size, size] -> 256 channels of every 16 x 16 pixels -> ``layers`` 3x3 convolutions
    256 -> 256 with ReLU -> back to uint8 [N, 1, size, size].

    Args:
        precision: ``fp32``, or ``int8`` with symmetric Q/DQ before every convolution.
        size: side of the image, pixels, a multiple of 16.
        layers: number of convolutions.
    """
    random = np.random.default_rng(0)
    constants: list[bytes] = []

    def constant(name: str, value: NDArray[np.generic] | np.generic) -> str:
        constants.append(tensor(name, np.asarray(value)))
        return name

    zero, scale = constant("zero", np.int8(0)), constant("scale", np.float32(255 / 127))
    nodes = [
        node("Cast", [INPUT_NAME], "grey", to=FLOAT),
        node("SpaceToDepth", ["grey"], "x0", blocksize=BLOCK),
    ]
    # He et al. 2015: keeps the variance of the values from layer to layer.
    spread = np.float32(np.sqrt(2 / (9 * CHANNELS)))
    for layer in range(layers):
        weight = random.standard_normal((CHANNELS, CHANNELS, 3, 3)).astype(np.float32) * spread
        x, y = f"x{layer}", f"x{layer + 1}"
        w = f"w{layer}"
        match precision:
            case "fp32":
                constant(w, weight)
            case "fp16":
                raise ValueError("CPUs compute fp16 files in float32")
            case "int8":
                scales = np.abs(weight).max(axis=(1, 2, 3)) / np.float32(127)
                quantized = np.rint(weight / scales[:, None, None, None]).astype(np.int8)
                zeros = constant(f"zeros{layer}", np.zeros(CHANNELS, np.int8))
                weights = [constant(f"{w} int8", quantized), constant(f"{w} scale", scales), zeros]
                nodes += [
                    node("QuantizeLinear", [x, scale, zero], f"{x} int8"),
                    node("DequantizeLinear", [f"{x} int8", scale, zero], f"{x} again"),
                    node("DequantizeLinear", weights, w, axis=0),
                ]
                x = f"{x} again"
            case _:
                assert_never(precision)
        nodes += [
            node("Conv", [x, w], f"{y} signed", pads=[1, 1, 1, 1]),
            node("Relu", [f"{y} signed"], y),
        ]
    limits = [constant("black", np.float32(0)), constant("white", np.float32(255))]
    nodes += [
        node("DepthToSpace", [f"x{layers}"], "flat", blocksize=BLOCK),
        node("Clip", ["flat", *limits], "clipped"),
        node("Cast", ["clipped"], OUTPUT_NAME, to=UINT8),
    ]
    image, score = (End(name, UINT8, ("N", 1, size, size)) for name in (INPUT_NAME, OUTPUT_NAME))
    return onnx_model("ceiling", nodes, constants, [image], [score], opset=18, ir_version=10)
