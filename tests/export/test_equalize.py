from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch

from export.calibrate import histograms, largest, ranges
from export.equalize import channel_peaks, equalize, in_steps
from export.graph import onnx_graph
from tests.export.conftest import CONTRACT, SIZE, output_of, uneven
from tinyunet_deploy.artifacts.network import TinyUNet
from tinyunet_deploy.data import synthetic


def test_an_equalized_network_computes_the_same(float32: onnx.ModelProto) -> None:
    model = uneven(float32)
    images = [synthetic.sample(c, 1, defective=True, size=SIZE).image for c in (1, 6)]
    peaks = channel_peaks(model, images)
    logit = next(node.input[0] for node in model.graph.node if node.op_type == "Sigmoid")
    before = output_of(model, logit, images)
    for alpha in (0.5, 1.0):
        after = output_of(equalize(model, peaks, alpha), logit, images)
        assert np.abs(after - before).max() <= 1e-4 * np.abs(before).max()
    changed = equalize(model, peaks, 0.5)
    assert changed.SerializeToString() == equalize(model, peaks, 0.5).SerializeToString()
    assert changed.ByteSize() == model.ByteSize()
    assert equalize(model, peaks, 0.0).SerializeToString() == model.SerializeToString()


def test_equalized_channels_are_nearer_to_each_other(float32: onnx.ModelProto) -> None:
    model = uneven(float32)
    images = [synthetic.sample(1, 1, defective=True, size=SIZE).image]
    peaks = channel_peaks(model, images)
    assert len(peaks) == 22
    assert all((peak == 0).any() for peak in peaks.values()), "dead channels are in the test"
    half = channel_peaks(equalize(model, peaks, 0.5), images)
    full = channel_peaks(equalize(model, peaks, 1.0), images)
    for name, peak in peaks.items():
        alive = peak > 1e-3 * peak.max()
        top = peak.max()
        assert half[name][alive] == pytest.approx(np.sqrt(peak[alive] * top), rel=1e-3)
        assert full[name][alive] == pytest.approx(top, rel=1e-3)
        assert (half[name][peak == 0] == 0).all()


def test_what_mixes_channels_is_not_equalized(float32: onnx.ModelProto) -> None:
    model = onnx.ModelProto()
    model.CopyFrom(float32)
    pool = next(node for node in model.graph.node if node.op_type == "MaxPool")
    pool.op_type = "Softmax"
    with pytest.raises(ValueError, match="Softmax"):
        equalize(model, {}, 0.5)


def test_a_network_in_steps_computes_the_same_and_fills_int8(float32: onnx.ModelProto) -> None:
    model = uneven(float32)
    images = [synthetic.sample(c, 1, defective=True, size=SIZE).image for c in (1, 6)]
    reaches = ranges(histograms(model, images), "minmax")
    steps = in_steps(model, reaches)
    logit = next(node.input[0] for node in model.graph.node if node.op_type == "Sigmoid")
    before, after = (output_of(m, logit, images) for m in (model, steps))
    assert np.abs(after - before).max() <= 0.01 * np.abs(before).max(), "but for the padding"
    peaks = {name: largest(counts) for name, counts in histograms(steps, images).items()}
    assert all(125 < peak < 130 for peak in peaks.values())


def test_biases_are_scaled_with_their_channels() -> None:
    """Those of an untrained network are 0 and left out of the graph."""
    network = TinyUNet()
    generator = torch.Generator().manual_seed(1)
    network.reset_parameters(generator)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.endswith(".bias"):
                parameter.uniform_(0.0, 0.5, generator=generator)
    model = uneven(onnx.load_from_string(onnx_graph(network, CONTRACT)))
    images = [synthetic.sample(1, 1, defective=True, size=SIZE).image]
    logit = next(node.input[0] for node in model.graph.node if node.op_type == "Sigmoid")
    before = output_of(model, logit, images)
    equalized = equalize(model, channel_peaks(model, images), 0.5)
    after = output_of(equalized, logit, images)
    assert np.abs(after - before).max() <= 1e-4 * np.abs(before).max()
    steps = in_steps(equalized, ranges(histograms(equalized, images), "minmax"))
    after = output_of(steps, logit, images)
    assert np.abs(after - before).max() <= 0.02 * np.abs(before).max(), "but for the padding"
