"""Find, without a GPU, what NVIDIA's ONNX parser would reject or misread in a file.

TensorRT itself reports these faults only on the target machine, and one of them only as a warning.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from tinyunet_deploy.contract import INPUT_NAME, OUTPUT_NAME
from tinyunet_deploy.errors import ArtifactError

__all__ = ["check_onnx"]

MAX_IR: Final = 10
"""Newest IR version that TensorRT 10's parser reads."""
MAX_OPSET: Final = 21
_FLOATS: Final = (TensorProto.FLOAT, TensorProto.FLOAT16)
_AGAIN: Final = (
    "export it again in a clone of the repository: python -m export CHECKPOINT --output NAME.onnx; "
    "another network's: tinyunet adopt ORIGINAL.onnx -o NAME.onnx"
)
_NO_UINT8: Final = (
    "TensorRT takes uint8 only at the network's input and output, cast from or to float or half: "
    "cast the image first and the score last"
)
_SYMMETRIC: Final = "quantise with QInt8 and ActivationSymmetric=True, WeightSymmetric=True"


def check_onnx(model: onnx.ModelProto, where: Path) -> None:
    """Check that NVIDIA's parser reads a graph correctly and that the graph keeps the contract.

    Args:
        where: path of the file, for the error.

    Raises:
        ArtifactError: the parser would reject or misread the graph, or the graph breaks the
            contract; the message names the node, the fault and the fix.
    """
    _check_versions(model, where)
    _check_storage(model, where)
    _check_ends(model, where)
    try:
        onnx.checker.check_model(model)
        inferred = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        detail = " ".join(str(error).split())
        raise ArtifactError(where, f"is not a valid ONNX graph: {detail}", _AGAIN) from error
    types = _types(inferred)
    constants = _constants(model)
    for node in model.graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            _check_quantization(node, types, constants, where)
    for node in model.graph.node:
        _check_uint8(node, types, where)


def _check_versions(model: onnx.ModelProto, where: Path) -> None:
    if model.ir_version > MAX_IR:
        raise ArtifactError(
            where,
            f"has ONNX IR version {model.ir_version}; "
            f"TensorRT 10's parser rejects versions above {MAX_IR}",
            f"set ir_version to {MAX_IR}, or {_AGAIN}",
        )
    for opset in model.opset_import:
        if opset.domain in ("", "ai.onnx") and opset.version > MAX_OPSET:
            raise ArtifactError(
                where,
                f"has opset {opset.version}; "
                f"TensorRT's parser may reject versions above {MAX_OPSET}",
                f"export with opset_version=18, or {_AGAIN}",
            )
    for node in model.graph.node:
        if node.domain not in ("", "ai.onnx"):
            raise ArtifactError(
                where,
                f"node {_name(node)} is {node.domain}.{node.op_type}, which TensorRT's parser "
                "rejects",
                "export with standard ONNX operators only, without contrib optimisations",
            )


def _check_storage(model: onnx.ModelProto, where: Path) -> None:
    for tensor in model.graph.initializer:
        if tensor.data_location == TensorProto.EXTERNAL:
            raise ArtifactError(
                where,
                f"initializer {tensor.name} of node {_reader(model, tensor.name)} lies in another "
                "file, which the sha256 does not cover and the parser may not find",
                "export with external_data=False",
            )


def _check_ends(model: onnx.ModelProto, where: Path) -> None:
    initializers = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in initializers]
    for kind, values, wanted in (
        ("input", inputs, INPUT_NAME),
        ("output", list(model.graph.output), OUTPUT_NAME),
    ):
        names = [value.name for value in values]
        if names != [wanted]:
            raise ArtifactError(
                where, f"has the {kind}s {', '.join(names) or 'none'} instead of {wanted}", _AGAIN
            )
        (value,) = values
        tensor = value.type.tensor_type
        if tensor.elem_type != TensorProto.UINT8:
            given = TensorProto.DataType.Name(tensor.elem_type).lower()
            raise ArtifactError(where, f"{kind} {wanted} is {given} instead of uint8", _AGAIN)
        dims = list(tensor.shape.dim)
        shape = "x".join(dim.dim_param or str(dim.dim_value) for dim in dims)
        if len(dims) != 4 or dims[1].dim_value != 1:
            raise ArtifactError(where, f"{kind} {wanted} is {shape} instead of Nx1xHxW", _AGAIN)
        if not dims[0].dim_param:
            raise ArtifactError(
                where,
                f"{kind} {wanted} is {shape}: its batch is fixed, TensorRT would build an engine "
                f"for {dims[0].dim_value} images only",
                'export with dynamic_shapes={"image": {0: Dim("N")}}; adopt an adopted one again',
            )
        if any(dim.dim_value < 1 for dim in dims[2:]):
            raise ArtifactError(
                where, f"{kind} {wanted} is {shape}: height and width must be fixed", _AGAIN
            )


def _check_quantization(
    node: onnx.NodeProto, types: dict[str, int], constants: dict[str, onnx.TensorProto], where: Path
) -> None:
    quantized = node.output[0] if node.op_type == "QuantizeLinear" else node.input[0]
    kind = types.get(quantized)
    at = f"node {_name(node)} ({node.op_type})"
    if kind == TensorProto.INT32:
        raise ArtifactError(
            where,
            f"{at} dequantises an int32 bias, which TensorRT's parser rejects",
            "quantise with QuantizeBias=False: the bias stays float",
        )
    if kind == TensorProto.UINT8:
        raise ArtifactError(
            where,
            f"{at} is uint8, which TensorRT's parser reads as int8 with only a warning, "
            "so the range is wrong",
            _SYMMETRIC,
        )
    if kind != TensorProto.INT8:
        given = "unknown" if kind is None else TensorProto.DataType.Name(kind).lower()
        raise ArtifactError(where, f"{at} is {given} instead of int8", _SYMMETRIC)
    for name in node.input[1:]:
        if name and name not in constants:
            raise ArtifactError(
                where,
                f"{at} computes its scale or zero point, {name}, which TensorRT's parser rejects",
                "quantise with calibrated constants",
            )
    scale = numpy_helper.to_array(constants[node.input[1]]).astype(np.float64)
    if not (np.isfinite(scale).all() and (scale > 0).all()):
        raise ArtifactError(
            where,
            f"{at} has a scale that is not positive and finite, which TensorRT rejects",
            "calibrate again",
        )
    zero_point = node.input[2] if len(node.input) > 2 else ""
    if zero_point and numpy_helper.to_array(constants[zero_point]).any():
        raise ArtifactError(
            where,
            f"{at} has a zero point that is not 0, which TensorRT's parser rejects",
            _SYMMETRIC,
        )


def _check_uint8(node: onnx.NodeProto, types: dict[str, int], where: Path) -> None:
    reads = [name for name in node.input if types.get(name) == TensorProto.UINT8]
    gives = [name for name in node.output if types.get(name) == TensorProto.UINT8]
    if not reads and not gives:
        return
    at = f"node {_name(node)} ({node.op_type})"
    inner = [name for name in (*reads, *gives) if name not in (INPUT_NAME, OUTPUT_NAME)]
    if inner or (reads and gives) or OUTPUT_NAME in reads:
        tensor = inner[0] if inner else reads[0]
        raise ArtifactError(
            where, f"{at} has the uint8 tensor {tensor} inside the graph", _NO_UINT8
        )
    other = types.get(node.output[0] if reads else node.input[0])
    if node.op_type != "Cast" or other not in _FLOATS:
        does = "reads the uint8 image" if reads else "gives the uint8 score"
        raise ArtifactError(
            where, f"{at} {does} and is not a cast to or from float or half", _NO_UINT8
        )


def _types(model: onnx.ModelProto) -> dict[str, int]:
    """Return the name and element type of each tensor."""
    graph = model.graph
    values = (*graph.input, *graph.output, *graph.value_info)
    types = {value.name: value.type.tensor_type.elem_type for value in values}
    types.update({tensor.name: tensor.data_type for tensor in graph.initializer})
    return types


def _constants(model: onnx.ModelProto) -> dict[str, onnx.TensorProto]:
    """Return name -> value of all constants in the file: initializers and Constant nodes."""
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            constants[node.output[0]] = node.attribute[0].t
    return constants


def _reader(model: onnx.ModelProto, tensor: str) -> str:
    return next((_name(node) for node in model.graph.node if tensor in node.input), "(none)")


def _name(node: onnx.NodeProto) -> str:
    return node.name or f"giving {node.output[0]}"
