"""Small segmentation networks as engineers bring them: not ours, made with ``onnx.helper``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

SIDE = 64
"""Height and width of their images, pixels."""


class Graph:
    """Nodes and constants of a network that is being written down."""

    def __init__(self, seed: int = 0) -> None:
        self.nodes: list[NodeProto] = []
        self.constants: list[TensorProto] = []
        self.random = np.random.default_rng(seed)

    def add(self, operator: str, *inputs: str, name: str = "", **attributes: Any) -> str:
        output = name or f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, list(inputs), [output], **attributes))
        return output

    def constant(self, values: Any, dtype: Any = np.float32) -> str:
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.array(values, dtype), name))
        return name

    def weights(self, *shape: int, gain: float = 1.0) -> str:
        fan = int(np.prod(shape[1:]))
        return self.constant(self.random.normal(0, gain * (2 / fan) ** 0.5, shape))

    def conv(self, x: str, channels: int, into: int, side: int = 3, **attributes: Any) -> str:
        w, b = (
            self.weights(into, channels, side, side),
            self.constant(self.random.normal(0, 0.1, into)),
        )
        pads = [side // 2] * 4
        return self.add("Conv", x, w, b, **{"kernel_shape": [side] * 2, "pads": pads, **attributes})

    def model(
        self,
        image: tuple[str, int, list[int | str]],
        result: tuple[str, int, list[int | str]],
        opset: int = 17,
    ) -> bytes:
        ends = [helper.make_tensor_value_info(*end) for end in (image, result)]
        graph = helper.make_graph(self.nodes, "g", ends[:1], ends[1:], self.constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
        model.ir_version = 8
        onnx.checker.check_model(model)
        data: bytes = model.SerializeToString()
        return data


def u_net(g: Graph, x: str, channels: int, out: int) -> str:
    """A U-Net of one level: batch norm that is not folded, a pool, a ConvTranspose, a skip."""
    first = g.conv(x, channels, 4)
    norm = [g.constant(g.random.uniform(0.5, 1.5, 4)) for _ in range(4)]
    first = g.add("Relu", g.add("BatchNormalization", first, *norm))
    low = g.add("MaxPool", first, kernel_shape=[2, 2], strides=[2, 2])
    low = g.add("Relu", g.conv(low, 4, 6))
    up = g.add("ConvTranspose", low, g.weights(6, 4, 2, 2), kernel_shape=[2, 2], strides=[2, 2])
    return g.conv(g.add("Concat", up, first, axis=1), 8, out)


def rgb_logits(side: int | str = SIDE, batch: int | str = "batch") -> bytes:
    """RGB NCHW in, logits out."""
    g = Graph(1)
    sides = [side, side] if isinstance(side, int) else ["h", "w"]
    g.add("Identity", u_net(g, "pixels", 3, 1), name="logits")
    return g.model(
        ("pixels", TensorProto.FLOAT, [batch, 3, *sides]),
        ("logits", TensorProto.FLOAT, [batch, 1, *sides]),
    )


def rgb_sigmoid_nhwc() -> bytes:
    """RGB NHWC in, probability NHWC out, as TensorFlow's converter writes it."""
    g = Graph(2)
    x = g.add("Transpose", "image_in", perm=[0, 3, 1, 2])
    y = g.add("Sigmoid", u_net(g, x, 3, 1))
    g.add("Transpose", y, name="y", perm=[0, 2, 3, 1])
    return g.model(
        ("image_in", TensorProto.FLOAT, ["n", SIDE, SIDE, 3]),
        ("y", TensorProto.FLOAT, ["n", SIDE, SIDE, 1]),
        opset=13,
    )


def grey_softmax() -> bytes:
    """Grey in, softmax over five classes out; named as our own ends, which so collide."""
    g = Graph(3)
    g.add("Softmax", u_net(g, "image", 1, 5), name="score", axis=1)
    return g.model(
        ("image", TensorProto.FLOAT, ["N", 1, SIDE, SIDE]),
        ("score", TensorProto.FLOAT, ["N", 5, SIDE, SIDE]),
    )


def bytes_nhwc() -> bytes:
    """uint8 RGB NHWC in, uint8 [N, H, W] out, with other names."""
    g = Graph(4)
    x = g.add("Cast", "in", to=TensorProto.FLOAT)
    x = g.add("Div", g.add("Transpose", x, perm=[0, 3, 1, 2]), g.constant(255.0))
    y = g.add("Squeeze", g.add("Sigmoid", u_net(g, x, 3, 1)), g.constant([1], np.int64))
    g.add(
        "Cast", g.add("Round", g.add("Mul", y, g.constant(255.0))), name="o", to=TensorProto.UINT8
    )
    return g.model(
        ("in", TensorProto.UINT8, ["N", SIDE, SIDE, 3]), ("o", TensorProto.UINT8, ["N", SIDE, SIDE])
    )


def static_batch(*, freeable: bool) -> bytes:
    """Batch 1 in every shape; channels are mixed by a MatMul that may or may not allow others."""
    g = Graph(5)
    x = g.add("Relu", g.conv("x", 1, 4))
    flat = [1, 4, SIDE * SIDE] if freeable else [4, SIDE * SIDE]
    x = g.add("Reshape", x, g.constant(flat, np.int64))
    x = g.add("MatMul", g.weights(4, 4), x)
    x = g.add("Reshape", x, g.constant([1, 4, SIDE, SIDE], np.int64))
    g.add("Identity", g.conv(x, 4, 1), name="y")
    shape = [1, 1, SIDE, SIDE]
    return g.model(("x", TensorProto.FLOAT, shape), ("y", TensorProto.FLOAT, shape))


def transformer() -> bytes:
    """Patches of 8x8, attention over all of them, and back: every score depends on every pixel."""
    g = Graph(6)
    width, patches = 8, (SIDE // 8) ** 2
    x = g.conv("x", 1, width, 8, strides=[8, 8], pads=[0] * 4)
    x = g.add("Reshape", x, g.constant([0, width, patches], np.int64))
    x = g.add("Transpose", x, perm=[0, 2, 1])
    x = g.add("LayerNormalization", x, g.constant(np.ones(width)), g.constant(np.zeros(width)))
    query, key, value = (g.add("MatMul", x, g.weights(width, width)) for _ in range(3))
    weights = g.add("MatMul", query, g.add("Transpose", key, perm=[0, 2, 1]))
    x = g.add("Add", x, g.add("MatMul", g.add("Softmax", weights, axis=-1), value))
    x = g.add("Transpose", x, perm=[0, 2, 1])
    x = g.add("Reshape", x, g.constant([0, width, SIDE // 8, SIDE // 8], np.int64))
    x = g.add("Resize", x, "", g.constant([1, 1, 8, 8]), mode="linear")
    g.add("Identity", g.conv(x, width, 1), name="y")
    return g.model(
        ("x", TensorProto.FLOAT, ["N", 1, SIDE, SIDE]),
        ("y", TensorProto.FLOAT, ["N", 1, SIDE, SIDE]),
    )


def free_size() -> bytes:
    """H and W free."""
    return rgb_logits("free")


NETWORKS: dict[str, tuple[Callable[[], bytes], list[str]]] = {
    "rgb-logits": (rgb_logits, ["--normalize", "imagenet"]),
    "rgb-sigmoid-nhwc": (rgb_sigmoid_nhwc, ["--scale", "1/127.5", "--mean", "1"]),
    "grey-softmax": (grey_softmax, ["--normalize", "unit", "--defect", "2,3"]),
    "bytes-nhwc": (bytes_nhwc, []),
    "static-freeable": (lambda: static_batch(freeable=True), ["--normalize", "symmetric"]),
    "static": (lambda: static_batch(freeable=False), ["--normalize", "symmetric"]),
    "free-size": (free_size, ["--normalize", "unit", "--size", f"{SIDE}x{SIDE + 32}"]),
    "transformer": (transformer, ["--normalize", "symmetric"]),
}
"""Name -> the network, and the options that ``tinyunet adopt`` needs for it."""
