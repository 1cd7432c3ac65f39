"""Read operators, shapes and types out of an ONNX file, without the package ``onnx``.

Use it only on files that :func:`~tinyunet_deploy.artifacts.onnx_guard.check_onnx_file` has
accepted. Field numbers are those of onnx.proto3.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from tinyunet_deploy.artifacts.onnx_writer import INT8
from tinyunet_deploy.artifacts.precision import PRECISIONS, AnyPrecision, precision_facts
from tinyunet_deploy.artifacts.protobuf_wire import Reader, Value, varints

__all__ = ["Convolution", "OnnxGraph", "OnnxNode", "read_graph"]

_SAME_SHAPE: Final = {"Cast", "QuantizeLinear", "DequantizeLinear"}
"""Operators whose output has the shape of their first input."""


@dataclass(frozen=True)
class OnnxNode:
    """One operator of a graph."""

    operator: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    name: str = ""


@dataclass(frozen=True)
class Convolution:
    """Sizes and types of one convolution, on one image."""

    transposed: bool
    image: tuple[int, ...]
    """Shape of its image, [1, C, H, W]."""
    weight: tuple[int, ...]
    """Shape of its weights, [C_out, C_in, H, W], or [C_in, C_out, H, W] if transposed."""
    output: tuple[int, ...]
    """Shape of its output, [1, C, H, W]."""
    element_type: int
    """Number of the type in onnx.proto3 that it computes in: that of its image, or int8 if image
    and weights both come from DequantizeLinear."""


@dataclass
class OnnxGraph:
    """Operators of a graph, and the shapes and types that the file states."""

    nodes: list[OnnxNode] = field(default_factory=list)
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    """Value -> shape; a free first dimension, the batch, is 1. Unknown shapes are left out."""
    types: dict[str, int] = field(default_factory=dict)
    """Value -> number of its element type in onnx.TensorProto."""

    def convolutions(self) -> list[Convolution] | None:
        """List the convolutions in the order of the file.

        Returns:
            None if the file does not state all shapes and types.
        """
        producers = {name: node for node in self.nodes for name in node.outputs}
        convolutions = []
        for node in self.nodes:
            if node.operator not in ("Conv", "ConvTranspose"):
                continue
            names = (*node.inputs[:2], node.outputs[0])
            shapes = [self._shape(name, producers) for name in names]
            dequantized = [
                name in producers and producers[name].operator == "DequantizeLinear"
                for name in node.inputs[:2]
            ]
            element_type = INT8 if all(dequantized) else self.types.get(node.inputs[0])
            if None in shapes or element_type is None:
                return None
            image, weight, output = (shape for shape in shapes if shape is not None)
            convolutions.append(
                Convolution(
                    transposed=node.operator == "ConvTranspose",
                    image=image,
                    weight=weight,
                    output=output,
                    element_type=element_type,
                )
            )
        return convolutions

    def precision(self) -> AnyPrecision:
        """Return the precision in which all convolutions compute, by the type of their weights.

        Returns:
            ``unknown`` if they differ, compute in another type, or read weights that other
            operators make.
        """
        makers = {name: node for node in self.nodes for name in node.outputs}
        types = set()
        for node in self.nodes:
            if node.operator in ("Conv", "ConvTranspose"):
                sources = [makers.get(name) for name in node.inputs[:2]]
                quantized = [
                    source.inputs[0]
                    for source in sources
                    if source is not None and source.operator == "DequantizeLinear"
                ]
                weight = quantized[1] if len(quantized) == 2 else node.inputs[1]
                types.add(self.types.get(weight))
        for name in PRECISIONS:
            if types == {precision_facts(name).onnx_type}:
                return name
        return "unknown"

    def _shape(self, name: str, producers: dict[str, OnnxNode]) -> tuple[int, ...] | None:
        """Return the shape of a value, else of the value that it was cast or dequantised from."""
        seen = set()
        while name not in self.shapes and name in producers and name not in seen:
            seen.add(name)
            node = producers[name]
            if node.operator not in _SAME_SHAPE or not node.inputs:
                return None
            name = node.inputs[0]
        return self.shapes.get(name)


def read_graph(data: bytes) -> OnnxGraph:
    """Read the main graph of an ONNX file.

    Raises:
        ValueError: the file is not a model, or has too many fields.
    """
    reader = Reader()
    graph = OnnxGraph()
    for number, value in reader.fields(reader.merged(memoryview(data), 7)):
        if number == 1:
            graph.nodes.append(_node(value, reader))
        elif number == 5:
            name, element_type, dims = _tensor(value, reader)
            graph.shapes[name], graph.types[name] = dims, element_type
        elif number in (11, 12, 13):
            _add_value(graph, value, reader)
    return graph


def _node(value: Value, reader: Reader) -> OnnxNode:
    texts: dict[int, list[str]] = {1: [], 2: [], 3: [""], 4: [""]}
    for number, part in reader.fields(value):
        if number in texts and not isinstance(part, int):
            texts[number].append(bytes(part).decode("utf-8", "replace"))
    return OnnxNode(texts[4][-1], tuple(texts[1]), tuple(texts[2]), texts[3][-1])


def _tensor(value: Value, reader: Reader) -> tuple[str, int, tuple[int, ...]]:
    """Return name, element type and shape of a constant."""
    name, element_type = "", 0
    dims: list[int] = []
    for number, part in reader.fields(value):
        if number == 1:
            dims += [part] if isinstance(part, int) else varints(part)
        elif number == 2 and isinstance(part, int):
            element_type = part
        elif number == 8 and not isinstance(part, int):
            name = bytes(part).decode("utf-8", "replace")
    return name, element_type, tuple(dims)


def _add_value(graph: OnnxGraph, value: Value, reader: Reader) -> None:
    """Record the type and shape of an input, an output or a value in between."""
    name = ""
    for number, part in reader.fields(value):
        if number == 1 and not isinstance(part, int):
            name = bytes(part).decode("utf-8", "replace")
    tensor_type = reader.merged(reader.merged(value, 2), 1)
    sizes: list[int | None] | None = None
    for number, part in reader.fields(tensor_type):
        if number == 1 and isinstance(part, int):
            graph.types[name] = part
        elif number == 2:
            sizes = [_size(dim, reader) for at, dim in reader.fields(part) if at == 1]
    if sizes is not None:
        shape = [1 if size is None and not place else size for place, size in enumerate(sizes)]
        known = tuple(size for size in shape if size is not None)
        if len(known) == len(shape):
            graph.shapes[name] = known


def _size(value: Value, reader: Reader) -> int | None:
    """Return the size of a dimension; None if it is free."""
    sizes = [part for number, part in reader.fields(value) if number == 1]
    return sizes[-1] if sizes and isinstance(sizes[-1], int) else None
