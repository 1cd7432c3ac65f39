from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from click.testing import CliRunner

from benchmarks.up_step import FORMS, up_step
from export.equalize import in_steps
from export.graph import onnx_graph
from export.quantize import quantize
from tests.export.conftest import output_of
from tinyunet_deploy.artifacts.network import TinyUNet
from tinyunet_deploy.contract import Contract

SIZE = 32


@pytest.fixture(scope="module")
def graph() -> onnx.ModelProto:
    network = TinyUNet()
    network.reset_parameters(torch.Generator().manual_seed(1))
    with torch.no_grad():
        generator = torch.Generator().manual_seed(2)
        for convolution in network.modules():
            if isinstance(convolution, torch.nn.Conv2d):
                assert convolution.bias is not None
                convolution.bias.uniform_(-0.1, 0.1, generator=generator)
    return onnx.load_from_string(onnx_graph(network, Contract(SIZE, SIZE)))


@pytest.mark.parametrize("name", FORMS)
def test_another_form_of_the_up_steps_computes_the_same_logits(
    graph: onnx.ModelProto, name: str
) -> None:
    image = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE), np.uint8)
    logit = next(node.input[0] for node in graph.graph.node if node.op_type == "Sigmoid")
    changed = FORMS[name](graph)
    assert not [node for node in changed.graph.node if node.op_type == "Resize"]
    expected, computed = (output_of(model, logit, [image]) for model in (graph, changed))
    assert np.ptp(expected) > 1
    np.testing.assert_allclose(computed, expected, atol=1e-4)


def test_the_low_resolution_form_of_an_int8_file_rounds_near_the_file(
    graph: onnx.ModelProto,
) -> None:
    names = [node.output[0] for node in graph.graph.node if node.op_type == "Relu"]
    image = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE), np.uint8)
    reaches = {name: float(output_of(graph, name, [image]).max()) for name in names}
    int8 = onnx.load_from_string(quantize(in_steps(graph, reaches)))
    logit = next(node.input[0] for node in int8.graph.node if node.op_type == "Sigmoid")
    changed = FORMS["low-resolution"](int8)
    weights = [t for t in changed.graph.initializer if t.name.endswith(".weight.int8")]
    assert len(weights) == 23, "every convolution is still quantised"
    expected, computed = (output_of(model, logit, [image]) for model in (int8, changed))
    assert np.abs(computed - expected).mean() < 0.05 * np.ptp(expected)


def test_the_result_has_every_form_on_every_runtime_beside_a_noise_floor(
    tiny_onnx: Path, tmp_path: Path
) -> None:

    output = tmp_path / "up-step.json"
    words = [str(tiny_onnx), "--rounds", "2", "-o", str(output)]
    assert CliRunner().invoke(up_step, words, catch_exceptions=False).exit_code == 0
    rows = json.loads(output.read_text())["rows"]
    assert {(row["backend"], row["form"]) for row in rows} == {
        (backend, form)
        for backend in ("openvino", "onnxruntime")
        for form in ("as exported", "as exported, again", *FORMS)
    }
    for row in rows:
        assert row["largest_steps"] <= 1
        assert row["time_ratio"]["low"] <= row["time_ratio"]["high"]
