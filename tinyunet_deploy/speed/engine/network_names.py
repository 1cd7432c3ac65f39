"""Names that the network gives its layers, and their operations, by the names of ONNX nodes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Final

from tinyunet_deploy.artifacts.onnx_reader import OnnxGraph, OnnxNode, read_graph

__all__ = ["NetworkNames", "network_names"]

_FOLLOWERS: Final = frozenset({
    "Relu", "LeakyRelu", "Clip", "Sigmoid", "BatchNormalization", "Add", "Mul", "Sub", "Div",
    "Cast", "QuantizeLinear", "DequantizeLinear", "Round",
})  # fmt: skip
"""Operators that belong to the layer that makes their input."""


@dataclass(frozen=True)
class NetworkNames:
    """Facts of an ONNX file's nodes. Without an ONNX file both mappings are empty."""

    layers: Mapping[str, str] = field(default_factory=dict)
    """Name of a node -> name of the network's layer, such as ``encoder.0.2``, or
    ``MaxPool after encoder.0.2``."""
    flop: Mapping[str, float] = field(default_factory=dict)
    """Name of a convolution's node -> multiplications and additions for one image."""

    def layer_of(self, nodes: tuple[str, ...]) -> str | None:
        """Return the network's layer that an engine's layer computes.

        Of several fused nodes the first convolution counts, else the first known node.
        """
        known = [node for node in nodes if node in self.layers]
        first = [node for node in known if node in self.flop] or known
        return self.layers[first[0]] if first else None


def network_names(data: bytes) -> NetworkNames:
    """Read the names and operations out of an ONNX file.

    Raises:
        ValueError: the bytes are not an ONNX file.
    """
    graph = read_graph(data)
    producers = {output: node for node in graph.nodes for output in node.outputs}
    layers: dict[str, str] = {}
    names: dict[str, str] = {}  # value -> layer that makes it
    for node in graph.nodes:  # in the order in which they run
        layer = _layer(node, producers, names)
        names.update(dict.fromkeys(node.outputs, layer))
        if node.name:
            layers[node.name] = layer
    return NetworkNames(layers, _flop(graph))


def _layer(node: OnnxNode, producers: Mapping[str, OnnxNode], names: Mapping[str, str]) -> str:
    if node.operator in ("Conv", "ConvTranspose") and len(node.inputs) > 1:
        weight = node.inputs[1]
        while weight in producers and producers[weight].inputs:
            weight = producers[weight].inputs[0]
        match = re.fullmatch(r"(?:network\.)?(.+?)\.weight(?:_\w+)?", weight)
        return match[1] if match else node.name or node.operator
    if node.operator in _FOLLOWERS:
        return next((names[value] for value in node.inputs if value in names), "input")
    before = next((names[value] for value in node.inputs if value in names), "input")
    return f"{node.operator} after {before}"


def _flop(graph: OnnxGraph) -> dict[str, float]:
    convolutions = graph.convolutions()
    nodes = [node for node in graph.nodes if node.operator in ("Conv", "ConvTranspose")]
    if convolutions is None:
        return {}
    flop = {}
    for node, convolution in zip(nodes, convolutions, strict=True):
        places = convolution.image if convolution.transposed else convolution.output
        flop[node.name] = 2.0 * prod(convolution.weight) * prod(places[2:])
    return flop
