"""Bound the time and memory that an ONNX graph takes for one image, from its shapes alone.

A graph whose bound is small can be loaded in this process. Any other graph, and any graph with an
operator that this module does not know, is first tried in a separate process
(:mod:`tinyunet_deploy.backends.sandbox`). So a rule may be missing here, but no rule may give too
low a bound. Field numbers are those of onnx.proto3, the shapes those of ONNX's operator
definitions.
"""

from __future__ import annotations

import math
import struct
from collections import defaultdict
from typing import Any, Final, NamedTuple

from tinyunet_deploy.artifacts.protobuf_wire import Reader, Value

__all__ = ["MAC_PER_PIXEL", "VALUES_PER_PIXEL", "Work", "is_bounded", "work_of"]

MAC_PER_PIXEL: Final = 8_000_000
"""Largest bound of multiply-accumulates per pixel of the image: ten times those of ``original``,
a hundred times those of ``tiny``."""
VALUES_PER_PIXEL: Final = 16_384
"""Largest bound of intermediate values per pixel, ten times those of ``original``."""

_LEAST_PIXELS: Final = 64 * 64
"""Smallest number of pixels to count for an image; the work that it allows takes a second."""
_MAX_SIDE: Final = 1 << 31
_SAME_SHAPE: Final = {
    "BatchNormalization", "Cast", "Clip", "DequantizeLinear", "Identity", "LeakyRelu",
    "QuantizeLinear", "Relu", "Round", "Sigmoid",
}  # fmt: skip
"""Operators whose output has the shape of the first input."""
_BROADCAST: Final = {"Add", "Div", "Mul", "Sub"}

Shape = tuple[int, ...]


class Work(NamedTuple):
    """Work for one image."""

    mac: int
    """Number of multiply-accumulates and comparisons."""
    values: int
    """Number of values in all intermediate tensors together."""


class _Unknown(Exception):
    """The graph has an operator without a rule here."""


class _Node(NamedTuple):
    operator: str
    inputs: list[str]
    outputs: list[str]
    attributes: dict[str, Any]


def is_bounded(data: bytes, height: int, width: int) -> bool:
    """Return whether the work of a checked file for one image is small enough for this process.

    Args:
        data: a file that :func:`~tinyunet_deploy.artifacts.onnx_guard.check_onnx_file` accepts.
        height, width: size of its images, pixels.
    """
    work = work_of(data, height, width)
    pixels = max(height * width, _LEAST_PIXELS)
    return (
        work is not None
        and work.mac <= MAC_PER_PIXEL * pixels
        and work.values <= VALUES_PER_PIXEL * pixels
    )


def work_of(data: bytes, height: int, width: int) -> Work | None:
    """Return an upper bound of the work for one image; None if a rule is missing."""
    try:
        return _work(memoryview(data), height, width)
    except (_Unknown, ValueError, TypeError, LookupError, struct.error):
        return None


def _work(data: memoryview, height: int, width: int) -> Work:
    reader = Reader()
    fields = list(reader.fields(data))
    if any(number == 25 for number, _ in fields):
        raise _Unknown  # functions
    graphs = [value for number, value in fields if number == 7]
    shapes: dict[str, Shape] = {}
    constants: dict[str, list[float]] = {}
    nodes: list[_Node] = []
    for number, value in reader.fields(graphs[0] if len(graphs) == 1 else 0):
        if number == 1:
            nodes.append(_node(value, reader))
        elif number == 5:
            name, shape, values = _tensor(value, reader)
            _define(name, shape, shapes)
            constants[name] = values
        elif number == 11:
            _define(_text(value, 1, reader), (1, 1, height, width), shapes)
        elif number == 15:
            raise _Unknown  # sparse tensors
    mac = total = 0
    for node in nodes:
        if len(node.outputs) != 1:
            raise _Unknown
        if node.operator == "Constant":
            _, shape, constants[node.outputs[0]] = node.attributes["value"]
        else:
            inputs = [shapes[name] if name else () for name in node.inputs if _known(name, shapes)]
            shape, cost = _output(node, inputs, constants)
            mac += cost * math.prod(shape)
        _define(node.outputs[0], shape, shapes)
        total += math.prod(shape)
    return Work(mac, total)


def _known(name: str, shapes: dict[str, Shape]) -> bool:
    if name and name not in shapes:
        raise _Unknown
    return True


def _define(name: str, shape: Shape, shapes: dict[str, Shape]) -> None:
    if name in shapes or any(not 0 <= side < _MAX_SIDE for side in shape):
        raise _Unknown
    shapes[name] = shape


def _output(
    node: _Node, inputs: list[Shape], constants: dict[str, list[float]]
) -> tuple[Shape, int]:
    """Return the largest shape of a node's output, and the work for each of its values."""
    first, attributes = inputs[0], node.attributes
    if node.operator in _SAME_SHAPE:
        return first, 1
    if node.operator in _BROADCAST:
        rank = max(map(len, inputs))
        aligned = [(1,) * (rank - len(shape)) + shape for shape in inputs]
        return tuple(map(max, *aligned)), 1
    if node.operator == "Concat":
        axis = attributes["axis"]
        if axis != 1 or any(len(shape) != 4 for shape in inputs):
            raise _Unknown
        channels = sum(shape[1] for shape in inputs)
        n, _, rows, columns = (max(sides) for sides in zip(*inputs, strict=True))
        return (n, channels, rows, columns), 1
    if node.operator == "Conv":
        kernel = inputs[1]
        sides = _window(first, kernel[2:], attributes)
        return (first[0], kernel[0], *sides), math.prod(kernel[1:])
    if node.operator in ("MaxPool", "AveragePool"):
        kernel = tuple(attributes["kernel_shape"])
        return (*first[:2], *_window(first, kernel, attributes)), math.prod(kernel)
    if node.operator == "Resize":
        if len(node.inputs) != 3 or node.inputs[1] or "axes" in attributes:
            raise _Unknown  # a part of the image, sizes
        scales = constants.get(node.inputs[2], [])
        if len(scales) != len(first) or not all(0 < scale < _MAX_SIDE for scale in scales):
            raise _Unknown
        return tuple(int(s * scale) for s, scale in zip(first, scales, strict=True)), 16
    raise _Unknown


def _window(shape: Shape, kernel: Shape, attributes: dict[str, Any]) -> list[int]:
    """Return rows and columns after a convolution or pooling."""
    if len(shape) != 4 or len(kernel) != 2:
        raise _Unknown
    pads = attributes.get("pads", [0] * 4)
    strides = attributes.get("strides", [1] * 2)
    dilations = attributes.get("dilations", [1] * 2)
    if (len(pads), len(strides), len(dilations)) != (4, 2, 2):
        raise _Unknown
    if not all(0 < number < _MAX_SIDE for number in (*strides, *dilations, *kernel)):
        raise _Unknown
    if attributes.get("auto_pad", b"NOTSET") != b"NOTSET" or not 0 <= min(pads) <= max(pads) < 64:
        raise _Unknown
    more = attributes.get("ceil_mode", 0)
    return [
        max((shape[2 + i] + pads[i] + pads[2 + i] - reach) // strides[i] + 1 + more, 0)
        for i in range(2)
        for reach in [dilations[i] * (kernel[i] - 1) + 1]
    ]


# --- messages -------------------------------------------------------------------------------------


def _node(message: Value, reader: Reader) -> _Node:
    texts: dict[int, list[str]] = defaultdict(list)
    attributes: dict[str, Any] = {}
    for number, value in reader.fields(message):
        if number == 5:
            name, content = _attribute(value, reader)
            if name in attributes:
                raise _Unknown
            attributes[name] = content
        elif not isinstance(value, int):
            texts[number].append(bytes(value).decode())
    if texts[7][-1:] not in ([], [""], ["ai.onnx"]):
        raise _Unknown  # operators of others
    return _Node(texts[4][-1], texts[1], texts[2], attributes)


def _attribute(message: Value, reader: Reader) -> tuple[str, Any]:
    """Return an attribute's name and value: a number, text, list of numbers, or tensor.

    The attribute's type decides which; None for types that no rule needs.
    """
    name = _text(message, 1, reader)
    contents: dict[int, Any] = {2: 0, 3: b"", 7: []}
    kind = 0
    for number, value in reader.fields(message):
        if number in (6, 11, 22, 23):
            raise _Unknown  # graphs and sparse tensors
        if number == 20 and isinstance(value, int):
            kind = value
        elif number == 3 and isinstance(value, int):
            contents[2] = value
        elif number == 4 and not isinstance(value, int):
            contents[3] = bytes(value)
        elif number == 8:
            contents[7] += _integers(value, reader)
    if kind == 4:
        contents[4] = _tensor(reader.merged(message, 5), reader)
    return name, contents.get(kind)


def _tensor(message: Value, reader: Reader) -> tuple[str, Shape, list[float]]:
    """Return a tensor's name and shape, and its values if they are few 32-bit floats."""
    shape: list[int] = []
    values: list[float] = []
    kind = size = 0
    for number, value in reader.fields(message):
        size += 1 if isinstance(value, int) else len(value)
        if number == 1:
            shape += _integers(value, reader)
        elif number == 2 and isinstance(value, int):
            kind = value
        elif number in (4, 9) and not isinstance(value, int) and len(value) <= 64:
            values += struct.unpack(f"<{len(value) // 4}f", value[: len(value) // 4 * 4])
    if math.prod(shape) > 2 * size:  # a byte has at most two values, of int4
        raise _Unknown
    return _text(message, 8, reader), tuple(shape), values if kind == 1 else []


def _integers(value: Value, reader: Reader) -> list[int]:
    """Return a list of numbers, each in its own field or all in one field."""
    return [value] if isinstance(value, int) else reader.varints(value)


def _text(message: Value, number: int, reader: Reader) -> str:
    """Return the text in a field; the last one counts."""
    texts = [v for at, v in reader.fields(message) if at == number and not isinstance(v, int)]
    return bytes(texts[-1]).decode() if texts else ""
