"""Wrap a graph of another origin so that it keeps the contract: uint8 image in, uint8 score out.

The nodes before the network turn grey values into what it takes, those behind it turn what it gives
into round(255 * probability of a defect), half to even, as our exporter does. The same graph and
choices give the same bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
import onnx.compose
import onnx.inliner
import onnx.shape_inference
import onnx.version_converter
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from tinyunet_deploy.artifacts.adoption.form import InputForm, Normalization, OutputForm
from tinyunet_deploy.artifacts.tensorrt_preflight import MAX_IR, MAX_OPSET
from tinyunet_deploy.contract import INPUT_NAME, OUTPUT_NAME, Contract
from tinyunet_deploy.errors import ArtifactError

__all__ = ["ADDED", "MIN_OPSET", "wrapped"]

MIN_OPSET: Final = 18
"""Oldest operator set of the written file, that of our exporter."""
_MIN_IR: Final = 8
_RESIZE_CHANGED: Final = 11
"""Operator set in which Resize, Upsample until 9, got half-pixel coordinates as its default."""
ADDED: Final = "adopt/"
"""Beginning of the names of the nodes and values that the wrapping adds."""
_ORIGINAL: Final = "original/"
"""Beginning of the names of the original's nodes and values, which so cannot be ours."""


def wrapped(
    data: bytes,
    where: Path,
    source: InputForm,
    normalization: Normalization | None,
    result: OutputForm,
    contract: Contract,
) -> bytes:
    """Return the bytes of the wrapped graph.

    Args:
        data: a graph that ``check_onnx_graph`` has accepted.
        where: path of the original, for errors.
        normalization: of the grey values; None if the network takes the bytes.
        contract: image size; with a ``max_batch`` of 1 the file takes one image per call, else any
            number.

    Raises:
        ArtifactError: the graph cannot be rewritten; the message has the reason.
    """
    try:
        model = _renamed(_current(onnx.load_from_string(data)))
        _free_batch(model.graph, source, contract)
        nodes = _Nodes()
        _before(model.graph, nodes, source, normalization)
        before = nodes.drain()
        _behind(model.graph, nodes, result)
        model = _assembled(model, [*before, *model.graph.node, *nodes.drain()], nodes, contract)
        onnx.checker.check_model(model, full_check=True)
    except Exception as error:  # the package's C++ raises RuntimeError and its own types
        reason = " ".join(str(error).split())[:300]
        raise ArtifactError(
            where,
            f"cannot be rewritten: {reason}",
            f"export it again with opset_version={MIN_OPSET}, from the framework that trained it",
        ) from error
    content: bytes = model.SerializeToString(deterministic=True)
    return content


class _Nodes:
    """New nodes and constants, in order."""

    def __init__(self) -> None:
        self._nodes: list[NodeProto] = []
        self.constants: list[TensorProto] = []

    def add(self, operator: str, inputs: list[str], name: str, **attributes: Any) -> str:
        """Add a node with one output, whose name is returned."""
        output = name if name == OUTPUT_NAME else ADDED + name
        self._nodes.append(helper.make_node(operator, inputs, [output], ADDED + name, **attributes))
        return output

    def constant(self, name: str, values: NDArray[Any]) -> str:
        """Add a constant, whose name is returned."""
        self.constants.append(numpy_helper.from_array(values, ADDED + name))
        return ADDED + name

    def drain(self) -> list[NodeProto]:
        """Return the nodes that were added since the last call."""
        nodes, self._nodes = self._nodes, []
        return nodes


def _current(model: ModelProto) -> ModelProto:
    """Return the model in an operator set of today, without functions."""
    if model.functions:
        model = onnx.inliner.inline_local_functions(model)
    version = next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 0)
    if version < MIN_OPSET:
        converted = onnx.version_converter.convert_version(model, MIN_OPSET)
        if version < _RESIZE_CHANGED:
            _resize_as_before(converted.graph)
        return converted
    if version > MAX_OPSET:
        try:
            return onnx.version_converter.convert_version(model, MAX_OPSET)
        except RuntimeError:  # an operator that the older set lacks; ONNX Runtime may have it
            return model
    return model


def _resize_as_before(graph: GraphProto) -> None:
    """Let every Resize read its pixels as before opset 11; the converter leaves the new default."""
    modes = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    for node in graph.node:
        for inner in _subgraphs(node):
            _resize_as_before(inner)
        if node.op_type == "Resize":
            kept = [attribute for attribute in node.attribute if attribute.name not in modes]
            del node.attribute[:]
            node.attribute.extend(kept)
            node.attribute.extend(helper.make_attribute(*mode) for mode in modes.items())


def _renamed(model: ModelProto) -> ModelProto:
    """Return the model with :data:`_ORIGINAL` before every name, without unused inputs."""
    constants = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in constants]
    del model.graph.input[:]
    model.graph.input.extend(inputs)
    return onnx.compose.add_prefix(model, _ORIGINAL)


def _free_batch(graph: GraphProto, source: InputForm, contract: Contract) -> None:
    """Let constant shapes of Reshape keep the batch instead of the number from the export."""
    if source.batch is None or contract.max_batch is not None:
        return
    shapes = {name for node in graph.node if node.op_type == "Reshape" for name in node.input[1:]}
    constants = [tensor for tensor in graph.initializer if tensor.name in shapes]
    for node in graph.node:
        if node.op_type == "Constant" and node.output[0] in shapes:
            constants += [a.t for a in node.attribute if a.name == "value"]
    for tensor in constants:
        values = numpy_helper.to_array(tensor).copy()
        if values.ndim == 1 and len(values) > 1 and values[0] == source.batch:
            values[0] = 0  # the size of the input's own axis, by the definition of Reshape
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))


# --- before the network ---------------------------------------------------------------------------


def _before(
    graph: GraphProto, nodes: _Nodes, source: InputForm, normalization: Normalization | None
) -> None:
    """Add the nodes from the grey image to the network's input, and connect the network to them."""
    name = _ORIGINAL + source.name
    value = INPUT_NAME
    if source.type_name == "uint8":
        plain = source.channels == 1 and source.layout == "NCHW"
        readers = [node for node in graph.node if name in node.input]
        captured = name in set(_names_in_subgraphs(graph.node))
        if not plain and not captured and all(node.op_type == "Cast" for node in readers):
            # TensorRT takes uint8 only at the very input, cast at once
            value = nodes.add("Cast", [value], "float", to=TensorProto.FLOAT)
        if source.channels == 3:
            value = nodes.add("Concat", [value] * 3, "channels", axis=1)
    else:
        assert normalization is not None
        value = nodes.add("Cast", [value], "float", to=TensorProto.FLOAT)
        shape = (1, source.channels, 1, 1)
        mean, std = (
            np.broadcast_to(np.array(values, np.float64), source.channels).reshape(shape)
            for values in (normalization.mean, normalization.std)
        )
        # the constants have one number per channel, so that they repeat the grey image as well
        centre = nodes.constant("mean", mean.astype(np.float32))
        value = nodes.add("Sub", [value, centre], "centred")
        factor = nodes.constant("factor", (1.0 / std).astype(np.float32))
        value = nodes.add("Mul", [value, factor], "normalized")
        if source.type_name == "float16":
            value = nodes.add("Cast", [value], "half", to=TensorProto.FLOAT16)
    if source.layout == "NHWC":
        value = nodes.add("Transpose", [value], "nhwc", perm=[0, 2, 3, 1])
    _rename(graph, name, value)


def _rename(graph: GraphProto, old: str, new: str) -> None:
    """Let every node, also inside subgraphs, read another value."""
    for node in graph.node:
        for place, name in enumerate(node.input):
            if name == old:
                node.input[place] = new
        for inner in _subgraphs(node):
            _rename(inner, old, new)
            for output in inner.output:
                if output.name == old:
                    output.name = new


# --- behind the network ---------------------------------------------------------------------------


def _behind(graph: GraphProto, nodes: _Nodes, result: OutputForm) -> None:
    """Add the nodes from the network's output to the score."""
    value = _ORIGINAL + result.name
    if result.activation == "bytes":
        _bytes_behind(graph, nodes, result, value)
        return
    if result.type_name == "float16":
        value = nodes.add("Cast", [value], "single", to=TensorProto.FLOAT)
    value = _as_nchw(nodes, result, value)
    if result.activation == "sigmoid":
        value = nodes.add("Sigmoid", [value], "sigmoid")
    elif result.activation == "softmax":
        value = nodes.add("Softmax", [value], "softmax", axis=1)
    if result.channels > 1:
        chosen = nodes.constant("defect", np.array(result.defect, np.int64))
        value = nodes.add("Gather", [value, chosen], "defects", axis=1)
    if len(result.defect) > 1:
        operator = "ReduceSum" if result.combine == "sum" else "ReduceMax"
        axis = nodes.constant("channel_axis", np.array([1], np.int64))
        value = nodes.add(operator, [value, axis], "probability", keepdims=1)
    limits = [
        nodes.constant(name, np.array(limit, np.float32))
        for name, limit in (("0", 0), ("255", 255))
    ]
    value = nodes.add("Mul", [value, limits[1]], "scaled")
    value = nodes.add("Round", [value], "rounded")
    value = nodes.add("Clip", [value, *limits], "clipped")
    nodes.add("Cast", [value], OUTPUT_NAME, to=TensorProto.UINT8)


def _bytes_behind(graph: GraphProto, nodes: _Nodes, result: OutputForm, value: str) -> None:
    """Give the network's own bytes as the score."""
    producer = next((node for node in graph.node if value in node.output), None)
    if producer is not None and producer.op_type == "Cast":
        # TensorRT gives uint8 only from the last cast
        graph.node.remove(producer)
        value = _as_nchw(nodes, result, producer.input[0])
        nodes.add("Cast", [value], OUTPUT_NAME, to=TensorProto.UINT8)
    else:
        nodes.add("Identity", [_as_nchw(nodes, result, value)], OUTPUT_NAME)


def _as_nchw(nodes: _Nodes, result: OutputForm, value: str) -> str:
    if result.layout == "NHWC":
        return nodes.add("Transpose", [value], "nchw", perm=[0, 3, 1, 2])
    if result.layout == "NHW":
        axis = nodes.constant("unsqueezed_axis", np.array([1], np.int64))
        return nodes.add("Unsqueeze", [value, axis], "nchw")
    return value


# --- the whole ------------------------------------------------------------------------------------


def _assembled(
    model: ModelProto, nodes: list[NodeProto], added: _Nodes, contract: Contract
) -> ModelProto:
    """Return the finished model: its parts, shapes and types, nothing of the original's machine."""
    needed = _needed(nodes)
    read = {name for node in needed for name in node.input} | set(_names_in_subgraphs(needed))
    constants = [t for t in (*model.graph.initializer, *added.constants) if t.name in read]
    dims = [contract.max_batch or "N", 1, contract.height, contract.width]
    image, score = (
        helper.make_tensor_value_info(name, TensorProto.UINT8, dims)
        for name in (INPUT_NAME, OUTPUT_NAME)
    )
    graph = helper.make_graph(needed, "adopted", [image], [score], initializer=constants)
    graph.sparse_initializer.extend(model.graph.sparse_initializer)
    graph.quantization_annotation.extend(model.graph.quantization_annotation)
    whole = helper.make_model(
        graph,
        opset_imports=list(model.opset_import),
        ir_version=min(max(model.ir_version, _MIN_IR), MAX_IR),
        producer_name="tinyunet_deploy",
    )
    for part in (*graph.node, *graph.initializer):
        part.ClearField("doc_string")
        part.ClearField("metadata_props")
    return onnx.shape_inference.infer_shapes(whole, data_prop=True)


def _needed(nodes: list[NodeProto]) -> list[NodeProto]:
    """Return the nodes that the score depends on, in order."""
    wanted = {OUTPUT_NAME}
    kept = []
    for node in reversed(nodes):
        if wanted.intersection(node.output):
            wanted.update(node.input)
            wanted.update(_names_in_subgraphs([node]))
            kept.append(node)
    return kept[::-1]


def _subgraphs(node: NodeProto) -> Iterator[GraphProto]:
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def _names_in_subgraphs(nodes: Iterable[NodeProto]) -> Iterator[str]:
    """Yield the names that the subgraphs of nodes read, also deeper ones."""
    for node in nodes:
        for graph in _subgraphs(node):
            for inner in graph.node:
                yield from inner.input
            yield from (value.name for value in graph.output)
            yield from _names_in_subgraphs(graph.node)
