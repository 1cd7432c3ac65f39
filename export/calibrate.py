"""Measure how large the activations get, and derive the int8 ranges in one of six ways."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from tinyunet_deploy.contract import INPUT_NAME, Image
from tinyunet_deploy.host import processor_count

__all__ = [
    "METHODS",
    "MIN_SHARE",
    "Histogram",
    "activations",
    "entropy",
    "histogram",
    "histogram_percentile",
    "histograms",
    "largest",
    "ranges",
    "watch",
]

Histogram = NDArray[np.int64]
"""int64 [32640]: count of |x| by the upper 15 bits of its float32 pattern.

The width of a bin is 1/128 of its lower edge over the whole range of float32, so one pass is enough
and the range need not be known before.
"""
_BINS: Final = 0x7F80
"""Number of bins; infinity, whose upper 15 bits are this number, has none."""
_EDGES: Final = (np.arange(_BINS + 1, dtype=np.uint32) << 16).view(np.float32).astype(np.float64)
_EDGES[-1] = np.finfo(np.float32).max


def activations(model: onnx.ModelProto) -> list[str]:
    """Return the names of the ReLUs' outputs: all tensors that become int8 except the image."""
    return [node.output[0] for node in model.graph.node if node.op_type == "Relu"]


def histograms(model: onnx.ModelProto, images: Iterable[Image]) -> dict[str, Histogram]:
    """Measure the distribution of each activation of a float32 graph.

    Args:
        images: uint8 [H, W] each.

    Returns:
        Activation -> histogram of its absolute values over all images, zeros included.
    """
    names = activations(model)
    counts: dict[str, Histogram] = {name: np.zeros(_BINS, np.int64) for name in names}
    for values in watch(model, names, images):
        for name, value in values.items():
            counts[name] += histogram(value)
    return counts


def watch(
    model: onnx.ModelProto, names: Sequence[str], images: Iterable[Image]
) -> Iterator[dict[str, NDArray[np.float32]]]:
    """Run a float32 graph image by image and yield the values of tensors inside it.

    Args:
        images: uint8 [H, W] each.

    Yields:
        Tensor name -> float32 [1, C, H, W].
    """
    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    watched.graph.output.extend(
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in names
    )
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = processor_count()
    session = onnxruntime.InferenceSession(
        watched.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    for image in images:
        outputs = session.run(names, {INPUT_NAME: image[None, None]})
        yield dict(zip(names, outputs, strict=True))


def histogram(values: NDArray[np.float32]) -> Histogram:
    """Return the histogram of the absolute values of an array of any shape."""
    upper = np.ascontiguousarray(values).reshape(-1).view(np.uint32) >> 16 & 0x7FFF
    return np.bincount(upper, minlength=_BINS)[:_BINS]


def largest(counts: Histogram) -> float:
    """Return the upper edge of the last bin in use; 0.0 if all values are 0."""
    return float(_EDGES[np.flatnonzero(counts)[-1] + 1]) if counts[1:].any() else 0.0


def histogram_percentile(counts: Histogram, percent: float) -> float:
    """Return the smallest bin edge that is above ``percent`` of the values.

    Args:
        percent: 0..100.
    """
    below = np.cumsum(counts)
    return float(_EDGES[np.searchsorted(below, percent / 100.0 * below[-1]) + 1])


def entropy(counts: Histogram) -> float:
    """Return the range that loses the least information, by Kullback-Leibler divergence.

    Migacz 2017, "8-bit Inference with TensorRT": 2048 even bins, 128 levels; we try every
    fourth range from 128 bins up. ReLU leaves many zeros, which int8 represents exactly, so the
    first bin is counted like its neighbour.
    """
    top = largest(counts)
    if top == 0.0:
        return top
    edges = np.linspace(0.0, top, 2049)
    cumulative = np.concatenate(([0], np.cumsum(counts)))
    even = np.diff(np.interp(edges, _EDGES, cumulative))
    even[0] = even[1]
    best, best_stop = np.inf, len(even)
    for stop in range(128, len(even) + 1, 4):
        reference = even[:stop].copy()
        reference[-1] += even[stop:].sum()
        level = np.arange(stop) * 128 // stop
        used = even[:stop] > 0
        in_level = np.maximum(np.bincount(level, used, 128), 1)
        kept = np.where(used, (np.bincount(level, even[:stop], 128) / in_level)[level], 0.0)
        p, q = reference / reference.sum(), kept / max(kept.sum(), 1e-30)
        present = p > 0
        loss = float(np.sum(p[present] * np.log(p[present] / np.maximum(q[present], 1e-12))))
        if loss < best:
            best, best_stop = loss, stop
    return float(edges[best_stop])


MIN_SHARE: Final = 1e-3
"""Smallest range as a share of the largest value, for activations that are nearly all 0."""

METHODS: Final[dict[str, Callable[[Histogram], float]]] = {
    "minmax": largest,
    "entropy": entropy,
    "percentile-99.9": lambda counts: histogram_percentile(counts, 99.9),
    "percentile-99.99": lambda counts: histogram_percentile(counts, 99.99),
    "percentile-99.999": lambda counts: histogram_percentile(counts, 99.999),
    "percentile-99.9999": lambda counts: histogram_percentile(counts, 99.9999),
}
"""Name in a sidecar -> function from a histogram to the largest value that int8 represents."""


def ranges(counts: dict[str, Histogram], method: str) -> dict[str, float]:
    """Return activation -> largest value that int8 represents; positive even if all are 0.

    Args:
        counts: activation -> histogram, from :func:`histograms`.
        method: a key of :data:`METHODS`.
    """
    return {
        name: max(METHODS[method](one), MIN_SHARE * top) if (top := largest(one)) else 1.0
        for name, one in counts.items()
    }
