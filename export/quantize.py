"""A float32 graph as an int8 graph with explicit Q/DQ, the one form for TensorRT and CPUs.

Weights are int8 per output channel, inputs of convolutions int8 per tensor, both symmetric with
zero point 0; biases and everything between the convolutions stay float32. Outputs of convolutions
get no Q/DQ, so that a builder can fuse the ReLU.

``quant_pre_process`` is left out: there is no batch normalisation to fold, so all that it changes
in these graphs is to add contrib operator sets that a parser may refuse.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Final

import numpy as np
import onnx
from onnxruntime.quantization import QuantType
from onnxruntime.quantization.calibrate import CalibrationMethod, TensorData, TensorsData
from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

from export.graph import file_of

RECIPE: Final = {
    "ActivationSymmetric": True,
    "WeightSymmetric": True,
    "QuantizeBias": False,
    "OpTypesToExcludeOutputQuantization": ["Conv"],
}


def convolutions(model: onnx.ModelProto) -> dict[str, str]:
    """Name of each convolution in the network, such as ``encoder.0.2`` -> name of its node."""
    return {_name(node): node.name for node in model.graph.node if node.op_type == "Conv"}


def weight_counts(model: onnx.ModelProto) -> dict[str, int]:
    """Name of each convolution in the network -> number of its weights."""
    sizes = {tensor.name: math.prod(tensor.dims) for tensor in model.graph.initializer}
    return {
        _name(node): sizes[node.input[1]] for node in model.graph.node if node.op_type == "Conv"
    }


def quantize(
    model: onnx.ModelProto, ranges: Mapping[str, float], keep: Collection[str] = ()
) -> bytes:
    """The int8 ONNX file of a float32 graph.

    Args:
        ranges: tensor that a convolution reads -> largest absolute value that int8 is to hold.
        keep: convolutions that stay in float32, by their names in :func:`convolutions`.
    """
    names = convolutions(model)
    source = onnx.ModelProto()
    source.CopyFrom(model)
    tensors = {
        name: TensorData(lowest=np.float32(-reach), highest=np.float32(reach))
        for name, reach in ranges.items()
    }
    quantizer = QDQQuantizer(
        source,
        per_channel=True,
        reduce_range=False,
        weight_qType=QuantType.QInt8,
        activation_qType=QuantType.QInt8,
        tensors_range=TensorsData(CalibrationMethod.MinMax, tensors),
        nodes_to_quantize=[],
        nodes_to_exclude=[names[name] for name in keep],
        op_types_to_quantize=["Conv"],
        extra_options=dict(RECIPE),
    )
    quantizer.quantize_model()
    quantizer.model.topological_sort()
    return file_of(quantizer.model.model)


def _name(node: onnx.NodeProto) -> str:
    weight: str = node.input[1]
    return weight.removeprefix("network.").removesuffix(".weight")
