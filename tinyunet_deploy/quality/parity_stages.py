"""What lies between image and score, to find the stage at which two backends part."""

from __future__ import annotations

import dataclasses
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from tinyunet_deploy.artifacts.sidecar import Artifact
from tinyunet_deploy.backends.base import Backend
from tinyunet_deploy.contract import INT8_GREY, OUTPUT_NAME, Batch
from tinyunet_deploy.errors import RuntimeUnavailable

_WITHOUT_EFFECT: Final = {"Cast", "QuantizeLinear", "DequantizeLinear"}


def stages(backend: Backend, image: Batch) -> dict[str, NDArray[np.float32]]:
    """What goes into the first convolution and into the sigmoid.

    An ONNX file is cut there and run by the same backend; a plan cannot be cut. What goes into
    the first convolution of an int8 file is given as what that stands for in the network.

    Args:
        image: uint8 [N, 1, H, W].

    Returns:
        ``graph input`` and ``logits``, each float32 [N, 1, H, W], as far as they can be had.
    """
    kind = backend.artifact.sidecar.kind
    if kind == "checkpoint":
        return _of_checkpoint(backend.artifact, image)
    if kind == "onnx":
        return _of_onnx(backend, image)
    return {}


def _of_checkpoint(artifact: Artifact, image: Batch) -> dict[str, NDArray[np.float32]]:
    import torch

    from tinyunet_deploy.artifacts.checkpoint import network_of
    from tinyunet_deploy.artifacts.network import normalize

    network = network_of(artifact).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    with torch.inference_mode():
        normalized = normalize(torch.from_numpy(image))
        return {"graph input": normalized.numpy(), "logits": network(normalized).numpy()}


def _of_onnx(backend: Backend, image: Batch) -> dict[str, NDArray[np.float32]]:
    try:
        import onnx
    except ImportError as error:
        raise RuntimeUnavailable(
            "onnx", "is not installed", "pip install 'tinyunet-deploy[train]'"
        ) from error
    model = onnx.load_from_string(backend.artifact.data)
    producers = {name: node for node in model.graph.node for name in node.output}
    found = {}
    for stage, op_type in (("graph input", "Conv"), ("logits", "Sigmoid")):
        node = next((node for node in model.graph.node if node.op_type == op_type), None)
        if node is None:
            continue
        tensor = node.input[0]
        while tensor in producers and producers[tensor].op_type in _WITHOUT_EFFECT:
            tensor = producers[tensor].input[0]
        data = _ending_at(model, tensor)
        artifact = dataclasses.replace(backend.artifact, data=data)
        with type(backend)(artifact, backend.device) as cut:
            found[stage] = cut._run(image).score.astype(np.float32)  # no score: run refuses it
        if stage == "graph input" and artifact.sidecar.precision == "int8":
            found[stage] = (found[stage] + INT8_GREY) / 127.5 - 1.0
    return found


def _ending_at(model: Any, tensor: str) -> bytes:
    """The same graph, whose one output is that tensor, as float32 and under the output's name."""
    import onnx

    cut = onnx.ModelProto()
    cut.CopyFrom(model)
    graph = cut.graph
    for node in graph.node:
        renamed = [f"{name} before" if name == OUTPUT_NAME else name for name in node.output]
        del node.output[:]
        node.output.extend(renamed)
    graph.node.append(
        onnx.helper.make_node("Cast", [tensor], [OUTPUT_NAME], to=onnx.TensorProto.FLOAT)
    )
    graph.output[0].type.tensor_type.elem_type = onnx.TensorProto.FLOAT
    data: bytes = cut.SerializeToString()
    return data
