"""Making the channels of each activation equally large, so that one int8 range suits them all.

ReLU, max pooling, nearest resizing, zero padding and concatenation all commute with a positive
factor per channel. So what a convolution gives can be divided by it and what the next ones take
multiplied, and the network computes the same: Nagel et al. 2019, "Data-Free Quantization Through
Weight Equalization and Bias Correction". The factor moves a share ``alpha`` of the spread from the
activations, which have one range for all channels, to the weights, which have one per output
channel: Xiao et al. 2023, "SmoothQuant", eq. 4, with the channel's own peak instead of the
weights'.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from export.calibrate import watch
from tinyunet_deploy.contract import Image

Peaks = dict[str, NDArray[np.float32]]
"""Output of a ReLU -> float32 [C], the largest value of each channel."""

ALPHAS: Final = (0.0, 0.35, 0.5)
"""What an int8 file is tried with; 0 leaves the network as it is."""

MIN_RATIO: Final = 1e-3
"""A channel whose peak is a smaller share of the largest is taken to have this share."""
_KEEP_CHANNELS: Final = ("MaxPool", "Resize", "Pad")


def channel_peaks(model: onnx.ModelProto, images: Iterable[Image]) -> Peaks:
    """How large each channel of each ReLU's output gets.

    Args:
        images: uint8 [H, W] each, at least one.
    """
    names = [node.output[0] for node in model.graph.node if node.op_type == "Relu"]
    peaks: Peaks = {}
    for values in watch(model, names, images):
        for name, value in values.items():
            peak = value.max(axis=(0, 2, 3))
            peaks[name] = np.maximum(peaks[name], peak) if name in peaks else peak
    return peaks


def equalize(
    model: onnx.ModelProto, peaks: Mapping[str, NDArray[np.float32]], alpha: float
) -> onnx.ModelProto:
    """The same network with its channels equalised.

    Channel c of an activation is divided by ``(peak[c] / max(peak)) ** alpha``; a dead one is
    left as it is.

    Args:
        alpha: 0 changes nothing, 1 makes all peaks of an activation equal.
    """
    equalized = onnx.ModelProto()
    equalized.CopyFrom(model)
    tensors = {tensor.name: tensor for tensor in equalized.graph.initializer}
    values = {
        name: numpy_helper.to_array(tensor).astype(np.float64) for name, tensor in tensors.items()
    }
    convolutions = {node.output[0]: node for node in equalized.graph.node if node.op_type == "Conv"}
    readers = _readers(equalized)
    changed = set()
    for node in equalized.graph.node:
        if node.op_type != "Relu":
            continue
        weight, *bias = convolutions[node.input[0]].input[1:]
        factor = _factors(peaks[node.output[0]], alpha)
        values[weight] /= factor[:, None, None, None]
        for name in bias:  # an exporter leaves out one that is all zero
            values[name] /= factor
        changed |= {weight, *bias}
        for reader, start in readers[node.output[0]]:
            values[reader][:, start : start + len(factor)] *= factor[:, None, None]
            changed.add(reader)
    for name in changed:
        tensors[name].CopyFrom(numpy_helper.from_array(values[name].astype(np.float32), name))
    return equalized


def _factors(peak: NDArray[np.float32], alpha: float) -> NDArray[np.float64]:
    top = float(peak.max())
    if top <= 0.0:
        return np.ones(len(peak))
    ratio = np.clip(peak.astype(np.float64) / top, MIN_RATIO, 1.0)
    return np.where(peak > 0, ratio**alpha, 1.0)


def _readers(model: onnx.ModelProto) -> dict[str, list[tuple[str, int]]]:
    """Activation -> weight of each convolution that reads it, and its first channel there.

    Walks the graph once, in its topological order: a tensor is a row of parts, each an output of a
    ReLU and its number of channels.
    """
    shapes = {tensor.name: tensor.dims for tensor in model.graph.initializer}
    parts: dict[str, list[tuple[str, int]]] = {}
    channels: dict[str, int] = {}
    readers: dict[str, list[tuple[str, int]]] = defaultdict(list)
    for node in model.graph.node:
        output = node.output[0]
        if node.op_type == "Conv":
            channels[output] = shapes[node.input[1]][0]
            for name, start in _starts(parts.get(node.input[0], [])):
                readers[name].append((node.input[1], start))
        elif node.op_type == "Relu":
            parts[output] = [(output, channels[node.input[0]])]
        elif node.op_type == "Concat":
            parts[output] = [part for name in node.input for part in parts[name]]
        elif node.op_type in _KEEP_CHANNELS and node.input[0] in parts:
            parts[output] = parts[node.input[0]]
        elif any(name in parts for name in node.input):
            raise ValueError(f"{node.op_type} may not commute with a factor per channel")
    return readers


def _starts(parts: Iterable[tuple[str, int]]) -> Iterator[tuple[str, int]]:
    start = 0
    for name, count in parts:
        yield name, start
        start += count
