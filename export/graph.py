"""Turn a network into a deployable ONNX graph, in float32 or float16."""

from __future__ import annotations

import copy
import io
import logging
import warnings
from typing import Any, Final, assert_never

import onnx
import onnxscript
import torch

from tinyunet_deploy.artifacts.network import DeployableGraph, Network
from tinyunet_deploy.artifacts.precision import Precision
from tinyunet_deploy.artifacts.tensorrt_preflight import MAX_IR
from tinyunet_deploy.contract import INPUT_NAME, OUTPUT_NAME, Contract

__all__ = ["OPSET", "file_of", "onnx_graph"]

OPSET: Final = 18
"""ONNX operator set of the exported files."""


def onnx_graph(network: Network, contract: Contract, precision: Precision = "fp32") -> bytes:
    """Return the bytes of the ONNX file of a network: uint8 image in, uint8 score out.

    The batch is dynamic, height and width are the contract's. The same network gives the same
    bytes on any machine with the same versions.

    Args:
        precision: ``fp32``, or ``fp16`` for weights and activations in half precision from the
            normalisation to the logit; the sigmoid is in float32 in both.

    Raises:
        ValueError: int8, which is quantised from a float32 graph.
    """
    match precision:
        case "fp32":
            pass
        case "fp16":
            network = copy.deepcopy(network).half()
        case "int8":
            raise ValueError("an int8 graph is quantised from a float32 one")
        case _:
            assert_never(precision)
    example = torch.zeros(2, 1, contract.height, contract.width, dtype=torch.uint8)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            DeployableGraph(network).eval(),
            (example,),
            input_names=[INPUT_NAME],
            output_names=[OUTPUT_NAME],
            dynamic_shapes={"image": {0: torch.export.Dim("N", min=1)}},
            opset_version=OPSET,
            custom_translation_table={torch.ops.aten.pixel_unshuffle.default: _space_to_depth},
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    file = io.BytesIO()
    onnx.save(program.model_proto, file)
    return file_of(onnx.load_from_string(file.getvalue()))


def _space_to_depth(image: onnxscript.FLOAT, block: int) -> onnxscript.FLOAT:
    """Translate pixel_unshuffle, which torch would turn into three reshapes.

    The channels of both have the same order for an image of one channel, such as ours.
    """
    return onnxscript.opset18.SpaceToDepth(image, blocksize=block)


def file_of(model: onnx.ModelProto) -> bytes:
    """Return the bytes of a finished graph: checked, deterministic, and free of machine paths."""
    _strip(model)
    model.ir_version = min(model.ir_version, MAX_IR)
    onnx.checker.check_model(model, full_check=True)
    data: bytes = model.SerializeToString(deterministic=True)
    return data


def _strip(model: onnx.ModelProto) -> None:
    """Remove the source lines and absolute paths of this machine that the tools write."""
    parts: list[Any] = [model, model.graph, *model.graph.node, *model.graph.value_info]
    parts += [*model.graph.initializer, *model.graph.input, *model.graph.output, *model.functions]
    for part in parts:
        part.ClearField("doc_string")
        part.ClearField("metadata_props")
