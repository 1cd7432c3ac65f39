"""Convert the float32 file of an adopted network to fp16 and int8, by ONNX Runtime's own tools.

Only the network itself changes: the nodes that the adoption added around it stay in float32.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any, Final

import onnx
from onnx import ModelProto, TensorProto

from tinyunet_deploy.artifacts.adoption.surgery import ADDED
from tinyunet_deploy.contract import INPUT_NAME, Image
from tinyunet_deploy.files import scratch_folder

__all__ = ["fewer_quantized", "float16", "int8", "with_node_names"]

_CONVOLUTIONS: Final = ("Conv", "ConvTranspose")
_QUANTIZED: Final = "Conv"
"""Operator that is quantised; a transposed convolution stays in float32."""


def with_node_names(data: bytes) -> ModelProto:
    """Return a graph whose convolutions all have names, by which they are kept in float32."""
    model = onnx.load_from_string(data)
    for number, node in enumerate(model.graph.node):
        if node.op_type in _CONVOLUTIONS and not node.name:
            node.name = f"{node.op_type}-{number}"
    return model


def float16(model: ModelProto) -> bytes:
    """Return the fp16 file of a float32 graph: weights and activations of the network in half.

    Raises:
        ValueError: the converter does not take the graph, or leaves convolutions in float32.
    """
    from onnxruntime.transformers.float16 import convert_float_to_float16

    copy = ModelProto()
    copy.CopyFrom(model)
    _constants_as_initializers(copy.graph)
    around = [node.name for node in copy.graph.node if node.name.startswith(ADDED)]
    try:
        half = convert_float_to_float16(copy, keep_io_types=True, node_block_list=around)
        return _finished(half)
    except Exception as error:  # the converter raises whatever it meets
        raise ValueError(f"cannot be converted to fp16: {_line(error)}") from error


def _constants_as_initializers(graph: onnx.GraphProto) -> None:
    """Turn constant nodes into initializers.

    The converter keeps the scales of Resize in float32 if they are an initializer. As a node they
    would be rounded to half, and an image of 513 pixels would come back with 512.
    """
    constants = [
        node
        for node in graph.node
        if node.op_type == "Constant" and [part.name for part in node.attribute] == ["value"]
    ]
    for node in constants:
        tensor = graph.initializer.add()
        tensor.CopyFrom(node.attribute[0].t)
        tensor.name = node.output[0]
        graph.node.remove(node)
    # the converter would write half precision into the types of those that stay in float32
    names = {node.output[0] for node in constants}
    for value in [value for value in graph.value_info if value.name in names]:
        graph.value_info.remove(value)


def int8(
    model: ModelProto, images: Iterable[Image], keep: Collection[str] = ()
) -> tuple[bytes, tuple[str, ...]]:
    """Return the int8 file of a float32 graph, calibrated on images.

    Q/DQ pairs stand before every convolution: symmetric, zero point 0, per channel weights; biases
    stay in float32. The ranges of the activations are the largest values on the images.

    Args:
        images: uint8 [H, W] each, of the contract's size.
        keep: names of convolutions that stay in float32.

    Returns:
        The file, and the names of all convolutions in it that compute in float32.

    Raises:
        ValueError: the quantiser does not take the graph.
    """
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType
    from onnxruntime.quantization import quantize_static as quantize

    class Reader(CalibrationDataReader):  # type: ignore[misc]  # the package has no types
        def __init__(self) -> None:
            self._images = iter(images)

        def get_next(self) -> dict[str, Any] | None:
            image = next(self._images, None)
            return None if image is None else {INPUT_NAME: image[None, None]}

    copy = ModelProto()
    copy.CopyFrom(model)
    chosen = [n.name for n in copy.graph.node if n.op_type == _QUANTIZED and n.name not in keep]
    if not chosen:
        raise ValueError("has no convolution that could be quantised")
    silence = logging.NullHandler()
    logging.root.addHandler(silence)  # else the quantiser's advice configures the root logger
    try:
        with scratch_folder() as folder:
            path = Path(folder) / "int8.onnx"
            quantize(
                copy,
                path,
                Reader(),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=[_QUANTIZED],
                nodes_to_quantize=chosen,
                per_channel=True,
                activation_type=QuantType.QInt8,
                weight_type=QuantType.QInt8,
                extra_options={
                    "ActivationSymmetric": True,
                    "QuantizeBias": False,
                },
            )
            quantized = onnx.load(path)
        floats = [
            node.name
            for node in quantized.graph.node
            if node.op_type in _CONVOLUTIONS and node.name not in chosen
        ]
        return _finished(quantized), tuple(floats)
    except Exception as error:  # the quantiser raises whatever it meets
        raise ValueError(f"cannot be quantised: {_line(error)}") from error
    finally:
        logging.root.removeHandler(silence)


def fewer_quantized(model: ModelProto) -> list[tuple[str, ...]]:
    """Return sets of convolutions to keep in float32, each larger than the one before.

    The first and the last convolutions read the image and make the scores, and lose most; so none
    is kept, then one at both ends, two, four, and so on, as long as one is left to quantise.
    """
    names = [node.name for node in model.graph.node if node.op_type == _QUANTIZED]
    sets: list[tuple[str, ...]] = [()]
    ends = 1
    while 2 * ends < len(names):
        sets.append((*names[:ends], *names[-ends:]))
        ends *= 2
    return sets


def _finished(model: ModelProto) -> bytes:
    """Return the bytes of a converted graph, sorted, with types and shapes, checked."""
    model.producer_name, model.producer_version = "tinyunet_deploy", ""
    for part in (model, model.graph, *model.graph.node, *model.graph.initializer):
        part.ClearField("doc_string")
        part.ClearField("metadata_props")
    dropped = [value for value in model.graph.value_info if not _is_typed(value)]
    for value in dropped:
        model.graph.value_info.remove(value)
    nodes = _sorted(model)
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
    onnx.checker.check_model(inferred, full_check=True)
    content: bytes = inferred.SerializeToString(deterministic=True)
    return content


def _sorted(model: ModelProto) -> list[onnx.NodeProto]:
    """Return the nodes, each after those whose values it reads; the converter appends its casts."""
    made = {name: node for node in model.graph.node for name in node.output}
    ready: set[str] = set()
    waiting = list(reversed(model.graph.node))
    nodes: list[onnx.NodeProto] = []
    while waiting:
        node = waiting[-1]
        needed = [made[n] for n in node.input if n in made and n not in ready and made[n] != node]
        if set(node.output) <= ready:
            waiting.pop()
        elif needed:
            waiting += needed
        else:
            ready.update(node.output)
            nodes.append(waiting.pop())
    return nodes


def _is_typed(value: onnx.ValueInfoProto) -> bool:
    return bool(value.type.tensor_type.elem_type != TensorProto.UNDEFINED)


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
