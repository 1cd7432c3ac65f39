"""Count the operations and bytes that a network needs, and derive the least time they take.

Williams, Waterman, Patterson, "Roofline", 2009.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from math import prod
from typing import Any, Final

from tinyunet_deploy.artifacts.onnx_reader import Convolution, read_graph
from tinyunet_deploy.artifacts.precision import PRECISIONS, precision_facts
from tinyunet_deploy.artifacts.sidecar import Artifact
from tinyunet_deploy.errors import ArtifactError, RuntimeUnavailable
from tinyunet_deploy.speed.benchmark_result import Ceiling, Roofline

__all__ = ["Work", "count_work", "roofline"]


@dataclass(frozen=True)
class Work:
    """Operations and bytes of the convolutions of a network for one image."""

    flop: dict[str, float]
    """``float32``, ``float16`` or ``int8`` -> multiplications and additions."""
    weight_bytes: float
    """Bytes of all weights, in the type that convolutions compute in."""
    activation_bytes: float
    """Bytes of inputs and outputs of every convolution, in the type that it computes in."""
    end_bytes: float
    """Bytes of image and score."""

    def minimum_bytes(self, batch_size: int) -> float:
        """Return the bytes that are moved even if all values in between stay in caches."""
        return batch_size * self.end_bytes + self.weight_bytes

    def layer_bytes(self, batch_size: int) -> float:
        """Return the bytes that are moved if every convolution reads and writes memory."""
        return batch_size * (self.end_bytes + self.activation_bytes) + self.weight_bytes


_KINDS: Final = {row.onnx_type: row.number_type for row in map(precision_facts, PRECISIONS)}
"""Number of a type in onnx.proto3 -> kind of its ceiling."""
_BYTES: Final = {row.number_type: row.value_bytes for row in map(precision_facts, PRECISIONS)}
"""Kind of a ceiling -> bytes of one value."""


def count_work(artifact: Artifact) -> Work:
    """Count the convolutions of a checkpoint or an ONNX file.

    A convolution is int8 if its image and weights come from DequantizeLinear; its activations are
    then counted as int8 too. Other operators are left out: they need few operations, and no matrix
    unit runs them.

    Raises:
        ArtifactError: the file has convolutions of another type.
        RuntimeUnavailable: the file does not state all shapes and ``onnx`` is not installed.
    """
    is_checkpoint = artifact.sidecar.kind == "checkpoint"
    layers = _checkpoint_layers(artifact) if is_checkpoint else _onnx_layers(artifact)
    contract = artifact.sidecar.contract
    flop: dict[str, float] = defaultdict(float)
    weights = activations = 0.0
    for layer in layers:
        flop[layer.kind] += 2.0 * layer.multiplications
        weights += layer.weights * _BYTES[layer.kind]
        activations += layer.activations * _BYTES[layer.kind]
    return Work(dict(flop), weights, activations, 2.0 * contract.height * contract.width)


@dataclass(frozen=True)
class _Layer:
    """One convolution on one image."""

    kind: str
    """A key of :data:`_BYTES`."""
    multiplications: int
    weights: int
    """Number of weights."""
    activations: int
    """Number of values that it reads and writes."""


def _checkpoint_layers(artifact: Artifact) -> list[_Layer]:
    import torch
    from torch import nn

    from tinyunet_deploy.artifacts.checkpoint import network_of

    network = network_of(artifact).to("meta")
    contract = artifact.sidecar.contract
    layers = []

    def count(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        assert isinstance(module, nn.Conv2d)
        weights = module.weight.numel()
        pixels = prod(output.shape[2:])
        activations = inputs[0].numel() + output.numel()
        layers.append(_Layer("float32", weights * pixels, weights, activations))

    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(count)
    network(torch.empty(1, 1, contract.height, contract.width, device="meta"))
    return layers


def _onnx_layers(artifact: Artifact) -> list[_Layer]:
    layers = []
    for convolution in _convolutions(artifact):
        # A weight meets every pixel of the output; in a transposed convolution, of the input.
        places = convolution.image if convolution.transposed else convolution.output
        pixels = prod(places[2:])
        kind = _KINDS.get(convolution.element_type)
        if kind is None:
            raise ArtifactError(
                artifact.path,
                f"has a convolution of ONNX type {convolution.element_type}, which has no ceiling",
            )
        weights = prod(convolution.weight)
        activations = prod(convolution.image) + prod(convolution.output)
        layers.append(_Layer(kind, weights * pixels, weights, activations))
    return layers


def _convolutions(artifact: Artifact) -> list[Convolution]:
    """List the convolutions; ``onnx`` is needed only if the file does not state all shapes."""
    convolutions = read_graph(artifact.data).convolutions()
    if convolutions is not None:
        return convolutions
    try:
        import onnx
    except ImportError as error:
        raise RuntimeUnavailable(
            artifact.path,
            "does not state the shapes of its convolutions, and the package onnx, which could "
            "infer them, is not installed",
            "pip install onnx",
        ) from error
    inferred = onnx.shape_inference.infer_shapes(onnx.load_from_string(artifact.data))
    convolutions = read_graph(inferred.SerializeToString()).convolutions()
    if convolutions is None:
        raise ArtifactError(artifact.path, "has convolutions of unknown shape")
    return convolutions


def roofline(
    work: Work,
    ceilings: Iterable[Ceiling],
    *,
    device: str,
    batch_size: int,
    latency_ms: float,
    images_per_s: float,
) -> Roofline | None:
    """Compare a measurement with the limit of the machine.

    Args:
        ceilings: ceilings of any devices; the largest of each kind counts.
        latency_ms: median device time of a batch.
        images_per_s: throughput.

    Returns:
        None if the device has no ceiling of a kind that the network needs.
    """
    highest: dict[str, Ceiling] = {}
    for ceiling in ceilings:
        known = highest.get(ceiling.kind)
        if ceiling.device == device and (known is None or ceiling.value > known.value):
            highest[ceiling.kind] = ceiling
    if device == "cpu" and "float32" in highest:  # CPU backends compute float16 in float32
        highest.setdefault("float16", highest["float32"])
    if not highest.keys() >= {*work.flop, "memory"}:
        return None
    rates = {kind: highest[kind].value for kind in work.flop}
    compute_ms = sum(batch_size * work.flop[kind] / rates[kind] for kind in rates) / 1e6
    memory_ms = work.minimum_bytes(batch_size) / highest["memory"].value / 1e6
    bound_ms = max(compute_ms, memory_ms)
    return Roofline(
        flop_per_image=work.flop,
        minimum_bytes=work.minimum_bytes(batch_size),
        layer_bytes=work.layer_bytes(batch_size),
        ceilings={kind: highest[kind].name for kind in (*work.flop, "memory")},
        bound_ms=bound_ms,
        bound_by="compute" if compute_ms >= memory_ms else "memory",
        latency_percent=100 * bound_ms / latency_ms,
        throughput_percent=100 * bound_ms * images_per_s / batch_size / 1e3,
        gflop_per_s=sum(work.flop.values()) * images_per_s / 1e9,
    )
