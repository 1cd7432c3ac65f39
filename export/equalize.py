"""Scale activations for int8 without changing the function that the network computes.

ReLU, max pooling, nearest resizing, zero padding and concatenation all commute with a positive
factor per channel. So the output of a convolution can be divided by a factor and the weights that
read it multiplied: Nagel et al. 2019, "Data-Free Quantization Through Weight Equalization and Bias
Correction".

``equalize`` moves a share ``alpha`` of the spread between the channels of an activation, which
share one range, to the weights, which have one range per output channel: Xiao et al. 2023,
"SmoothQuant", eq. 4, with the channel's own peak instead of the weights'. ``in_steps`` then counts
each activation in its own int8 steps, so that the inputs of a concatenation have the same scale
even if their ranges differ.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from export.calibrate import activations, watch
from tinyunet_deploy.contract import INT8_GREY, Image

__all__ = ["ALPHAS", "LEVELS", "MOVES", "Peaks", "channel_peaks", "equalize", "in_steps"]

Peaks = dict[str, NDArray[np.float32]]
"""Output of a ReLU -> float32 [C], largest value of each channel."""

ALPHAS: Final = (0.0, 0.35, 0.5)
"""Values of alpha that an int8 file is tried with; 0 changes nothing."""

MIN_RATIO: Final = 1e-3
"""Smallest ratio of a channel's peak to the largest peak at which the channel is equalised."""
MOVES: Final = ("MaxPool", "Resize", "Pad", "Concat")
"""Operators that only move numbers, or add zeros."""
LEVELS: Final = 127
"""Largest level of symmetric int8, -127..127."""


def channel_peaks(model: onnx.ModelProto, images: Iterable[Image]) -> Peaks:
    """Measure the largest value of each channel of each ReLU's output.

    Args:
        images: uint8 [H, W] each, at least one.
    """
    names = activations(model)
    peaks: Peaks = {}
    for values in watch(model, names, images):
        for name, value in values.items():
            peak = value.max(axis=(0, 2, 3))
            peaks[name] = np.maximum(peaks[name], peak) if name in peaks else peak
    return peaks


def equalize(
    model: onnx.ModelProto, peaks: Mapping[str, NDArray[np.float32]], alpha: float
) -> onnx.ModelProto:
    """Return the same network with its channels equalised.

    Channel c of an activation is divided by ``(peak[c] / max(peak)) ** alpha``; a channel that is
    always 0 is left as it is.

    Args:
        alpha: 0 changes nothing, 1 makes all peaks of an activation equal.
    """
    return _divided(model, {name: _factors(peak, alpha) for name, peak in peaks.items()})


def in_steps(model: onnx.ModelProto, reaches: Mapping[str, float]) -> onnx.ModelProto:
    """Return the same network with its activations counted in int8 steps.

    127 steps of an activation are its range. OpenVINO up to 2026.4 needs a step of 1 at a
    concatenation: it moves the quantisation to the inputs and loses the scale there.

    The grey image is counted in steps, too, and exactly: x - 128 instead of (x / 127.5 - 1) * 127.
    Padding is then grey 128 instead of 127.5.

    Args:
        reaches: output of a ReLU -> largest value that int8 represents, positive.
    """
    scaled = _divided(model, {name: np.full(1, x / LEVELS) for name, x in reaches.items()})
    tensors = {tensor.name: tensor for tensor in scaled.graph.initializer}
    producers = {node.output[0]: node for node in scaled.graph.node}
    first = next(node for node in scaled.graph.node if node.op_type == "Conv")
    if len(first.input) < 3:  # torch leaves out a bias that is all zero
        zero = np.zeros(tensors[first.input[1]].dims[0], np.float32)
        first.input.append(f"{first.input[1]}.bias")
        scaled.graph.initializer.append(numpy_helper.from_array(zero, first.input[2]))
        tensors[first.input[2]] = scaled.graph.initializer[-1]
    subtract = producers[first.input[0]]
    if subtract.op_type == "SpaceToDepth":
        subtract = producers[subtract.input[0]]
    multiply = producers[subtract.input[0]]
    gain, offset = (float(numpy_helper.to_array(tensors[n.input[1]])) for n in (multiply, subtract))
    weight, bias = (numpy_helper.to_array(tensors[x]).astype(np.float64) for x in first.input[1:])
    for name, value in (
        (multiply.input[1], np.ones(())),
        (subtract.input[1], np.full((), INT8_GREY)),
        (first.input[1], weight * gain),
        (first.input[2], bias + (INT8_GREY * gain - offset) * weight.sum(axis=(1, 2, 3))),
    ):
        tensors[name].CopyFrom(numpy_helper.from_array(value.astype(np.float32), name))
    return scaled


def _divided(model: onnx.ModelProto, factors: Mapping[str, NDArray[np.float64]]) -> onnx.ModelProto:
    """Return the same network with the outputs of its ReLUs divided by factors [C] or [1]."""
    divided = onnx.ModelProto()
    divided.CopyFrom(model)
    tensors = {tensor.name: tensor for tensor in divided.graph.initializer}
    values = {
        name: numpy_helper.to_array(tensor).astype(np.float64) for name, tensor in tensors.items()
    }
    convolutions = {node.output[0]: node for node in divided.graph.node if node.op_type == "Conv"}
    readers = _readers(divided)
    changed = set()
    for node in divided.graph.node:
        if node.op_type != "Relu":
            continue
        weight, *bias = convolutions[node.input[0]].input[1:]
        channels = len(values[weight])
        factor = np.broadcast_to(factors[node.output[0]], channels)
        values[weight] /= factor[:, None, None, None]
        for name in bias:  # torch leaves out one that is all zero
            values[name] /= factor
        changed |= {weight, *bias}
        for reader, start in readers[node.output[0]]:
            values[reader][:, start : start + channels] *= factor[:, None, None]
            changed.add(reader)
    for name in changed:
        tensors[name].CopyFrom(numpy_helper.from_array(values[name].astype(np.float32), name))
    return divided


def _factors(peak: NDArray[np.float32], alpha: float) -> NDArray[np.float64]:
    top = float(peak.max())
    if top <= 0.0:
        return np.ones(len(peak))
    ratio = np.clip(peak.astype(np.float64) / top, MIN_RATIO, 1.0)
    return np.where(peak > 0, ratio**alpha, 1.0)


def _readers(model: onnx.ModelProto) -> dict[str, list[tuple[str, int]]]:
    """Return activation -> weight of each convolution that reads it, and its first channel there.

    Walks the graph once, in its topological order. ``parts`` describes a tensor by the outputs of
    ReLUs that are joined in it and their numbers of channels.
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
        elif node.op_type in MOVES and node.input[0] in parts:
            parts[output] = parts[node.input[0]]
        elif any(name in parts for name in node.input):
            raise ValueError(f"{node.op_type} may not commute with a factor per channel")
    return readers


def _starts(parts: Iterable[tuple[str, int]]) -> Iterator[tuple[str, int]]:
    start = 0
    for name, count in parts:
        yield name, start
        start += count
