"""Find the first stage between image and mask at which two backends differ."""

from __future__ import annotations

import dataclasses
import functools
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, assert_never

import numpy as np
from numpy.typing import NDArray

from tinyunet_deploy.artifacts.precision import AnyPrecision
from tinyunet_deploy.artifacts.sidecar import Artifact
from tinyunet_deploy.backends.base import Backend
from tinyunet_deploy.contract import INT8_GREY, OUTPUT_NAME, Batch, Image, defect_mask

__all__ = ["STAGES", "Explanation", "StageDifference", "explain", "stage_values"]

STAGES: Final = {
    "decoded bytes": 0.0,
    "graph input": 1e-3,
    "logits": 4 / 255,
    "score": 1.0,
    "mask": 0.0,
}
"""Stage -> largest difference at which two backends still agree.

Graph input: twice the rounding of float16 in [-1, 1]. Logits: the change that moves a score by one
step, as the slope of the sigmoid is at most 1/4. Score: one step. Mask: pixels.
"""
log = logging.getLogger(__name__)
_WITHOUT_EFFECT: Final = {"Cast", "QuantizeLinear", "DequantizeLinear"}


@dataclass(frozen=True)
class StageDifference:
    """Difference between two backends at one stage."""

    stage: str
    """A key of :data:`STAGES`."""
    difference: float | None
    """Largest absolute difference, or for the mask the number of pixels; None if this runtime does
    not show the stage."""

    @property
    def exceeds_rounding(self) -> bool:
        """True if the difference is more than rounding, or NaN."""
        return self.difference is not None and not self.difference <= STAGES[self.stage]


@dataclass(frozen=True)
class Explanation:
    """Differences between a backend and the reference at every stage, on one image."""

    name: str
    """Name of the image."""
    stages: tuple[StageDifference, ...]

    @property
    def first(self) -> StageDifference | None:
        """First stage with more than rounding; None if there is none."""
        return next((stage for stage in self.stages if stage.exceeds_rounding), None)


def explain(
    read: Callable[[], Image],
    name: str,
    threshold: float,
    reference: Backend,
    backend: Backend,
) -> Explanation:
    """Compare a backend with the reference stage by stage on one image or tile.

    Args:
        read: reads and decodes it, uint8 [H, W] of the network's size; called for each of the two.
        name: name of the image in the explanation.
        threshold: probability above which a pixel is a defect.
    """
    differences = []
    values: list[dict[str, NDArray[np.generic]]] = []
    for runner in (reference, backend):
        image = read()[None, None]
        score = runner.score_alone(image)
        values.append(
            {
                "decoded bytes": image,
                **stage_values(runner, image),
                "score": score,
                "mask": defect_mask(score, threshold),
            }
        )
    for stage in STAGES:
        if stage not in values[0] or stage not in values[1]:
            differences.append(StageDifference(stage, None))
            continue
        first, second = (by_stage[stage].astype(np.float64) for by_stage in values)
        apart = np.abs(first - second)
        difference = float((apart > 0).sum() if stage == "mask" else apart.max())
        differences.append(StageDifference(stage, difference))
    return Explanation(name, tuple(differences))


def stage_values(backend: Backend, image: Batch) -> dict[str, NDArray[np.float32]]:
    """Return the inputs of the first convolution and of the sigmoid.

    An ONNX file is cut there and run by the same backend; a plan cannot be cut. The input of the
    first convolution of an int8 file is converted to the normalised grey value that it stands for.

    Args:
        image: uint8 [N, 1, H, W].

    Returns:
        ``graph input`` and ``logits``, each float32 [N, 1, H, W], where available.
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
    except ImportError:
        _warn_without_onnx()
        return {}
    model = onnx.load_from_string(backend.artifact.data)
    producers = {name: node for node in model.graph.node for name in node.output}
    values = {}
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
            # Not run(): that would refuse an output that is not a score.
            values[stage] = cut._run(image).score.astype(np.float32)
        if stage == "graph input" and _is_ours(artifact):
            values[stage] = _normalized(values[stage], artifact.sidecar.precision)
    return values


@functools.cache
def _warn_without_onnx() -> None:
    """Say once that a graph cannot be cut."""
    log.warning("stages inside a graph are not compared: the package onnx is not installed")


def _is_ours(artifact: Artifact) -> bool:
    """Return whether our exporter made a file; others read normalised grey values also in int8."""
    return artifact.has_sidecar and artifact.sidecar.adoption is None


def _normalized(graph_input: NDArray[np.float32], precision: AnyPrecision) -> NDArray[np.float32]:
    """Return the input of a file's first convolution, as the normalised grey values it stands
    for."""
    match precision:
        case "fp32" | "fp16" | "unknown":
            return graph_input
        case "int8":
            return (graph_input + np.float32(INT8_GREY)) / np.float32(127.5) - np.float32(1)
        case _:
            assert_never(precision)


def _ending_at(model: Any, tensor: str) -> bytes:
    """Cut a graph at a tensor, which becomes its only output, float32, under the output's name."""
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
