"""Structure of an ONNX file: all of it but the weights of its convolutions."""

from __future__ import annotations

import hashlib

import onnx
from onnx import numpy_helper

__all__ = ["structure_of", "weights_of"]


def weights_of(model: onnx.ModelProto) -> dict[str, onnx.TensorProto]:
    """Return the weights and biases of the convolutions, by the names of their initializers."""
    names = {name for node in model.graph.node if node.op_type == "Conv" for name in node.input[1:]}
    return {value.name: value for value in model.graph.initializer if value.name in names}


def structure_of(model: onnx.ModelProto) -> str:
    """Return the sha256 of nodes, attributes, inputs, outputs and constants.

    Of the weights of convolutions only names, shapes and types count, so two exports of one network
    with other weights have the same structure.
    """
    hashed = hashlib.sha256()
    weights = weights_of(model)

    def add(part: bytes) -> None:
        hashed.update(len(part).to_bytes(8, "little") + part)

    for messages in (model.opset_import, model.graph.node, model.graph.input, model.graph.output):
        add(str(len(messages)).encode())
        for message in messages:
            add(message.SerializeToString(deterministic=True))
    for value in sorted(model.graph.initializer, key=lambda value: value.name):
        facts = (value.name, value.data_type, *value.dims)
        add(repr(facts).encode())
        if value.name not in weights:
            add(numpy_helper.to_array(value).tobytes())
    return hashed.hexdigest()
