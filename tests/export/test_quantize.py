from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from export.calibrate import histograms, ranges, watch
from export.equalize import in_steps
from export.quantize import convolutions, quantize, weight_counts
from tests.export.conftest import SIZE, output_of
from tinyunet_deploy.artifacts.tensorrt_preflight import check_onnx
from tinyunet_deploy.contract import Image
from tinyunet_deploy.data import synthetic


def reaches_of(model: onnx.ModelProto, reach: float = 3.0) -> dict[str, float]:
    return {node.output[0]: reach for node in model.graph.node if node.op_type == "Relu"}


@pytest.fixture(scope="module")
def int8(float32: onnx.ModelProto) -> onnx.ModelProto:
    return onnx.load_from_string(quantize(in_steps(float32, reaches_of(float32))))


def test_every_weight_is_stored_once_and_as_int8(int8: onnx.ModelProto) -> None:
    by_type: dict[int, int] = {}
    for tensor in int8.graph.initializer:
        by_type[tensor.data_type] = by_type.get(tensor.data_type, 0) + int(np.prod(tensor.dims))
    parameters = 1_850_305
    assert parameters - 2000 < by_type[onnx.TensorProto.INT8] < parameters + 2000
    assert by_type[onnx.TensorProto.FLOAT] < 5000, "biases and scales only"
    assert int8.ByteSize() <= 2_200_000


def test_a_quantized_graph_is_what_nvidias_parser_takes(int8: onnx.ModelProto) -> None:
    check_onnx(int8, Path("net.onnx"))
    assert int8.ir_version <= 10
    assert [(opset.domain, opset.version) for opset in int8.opset_import] == [("", 18)]
    kinds = [node.op_type for node in int8.graph.node]
    assert kinds.count("QuantizeLinear") == 1 + 22 + 12, "image, ReLUs, behind what moves numbers"
    assert kinds.count("DequantizeLinear") == 23 + kinds.count("QuantizeLinear")
    producer = {name: node.op_type for node in int8.graph.node for name in node.output}
    values = {t.name: onnx.numpy_helper.to_array(t) for t in int8.graph.initializer}
    for node in int8.graph.node:
        if node.op_type == "QuantizeLinear":
            assert values[node.input[1]] == 1.0, "OpenVINO loses another scale at a concatenation"
        if node.op_type == "Conv":
            assert {producer[name] for name in node.input[:2]} == {"DequantizeLinear"}
        if node.op_type in ("Concat", "MaxPool", "Resize"):
            read = {producer[name] for name in node.input if name in producer}
            assert read <= {"DequantizeLinear", "Resize"}, "moves bytes"


def images_and_reaches(
    model: onnx.ModelProto,
) -> tuple[list[Image], dict[str, float]]:
    images = [synthetic.sample(c, 1, defective=True, size=SIZE).image for c in (1, 6)]
    return images, ranges(histograms(model, images), "minmax")


def test_every_grey_value_gets_into_int8_and_back(float32: onnx.ModelProto) -> None:
    model = onnx.load_from_string(quantize(in_steps(float32, reaches_of(float32))))
    image = np.arange(SIZE * SIZE, dtype=np.uint8).reshape(SIZE, SIZE)
    name = next(node.input[0] for node in model.graph.node if node.op_type == "Conv")
    assert (output_of(model, name, [image])[0, 0] == image.astype(int) - 128).all()


def test_openvino_and_onnx_runtime_compute_the_same_in_int8(float32: onnx.ModelProto) -> None:
    openvino = pytest.importorskip("openvino")
    images, reaches = images_and_reaches(float32)
    int8 = onnx.load_from_string(quantize(in_steps(float32, reaches)))
    names = [node.output[0] for node in int8.graph.node if node.op_type == "Relu"]
    names.append(next(node.input[0] for node in int8.graph.node if node.op_type == "Sigmoid"))
    wanted = next(watch(int8, names, images[:1]))
    int8.graph.output.extend(
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in names
    )
    core = openvino.Core()
    compiled = core.compile_model(
        core.read_model(int8.SerializeToString(), b""), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
    )
    given = compiled([images[0][None, None]])
    for index, name in enumerate(names, start=1):
        error = np.sqrt(np.mean((given[index] - wanted[name]) ** 2))
        assert error < 0.1 * np.sqrt(np.mean(wanted[name] ** 2)), name


def test_convolutions_that_are_kept_are_untouched(float32: onnx.ModelProto) -> None:
    names = convolutions(float32)
    assert list(names)[:2] == ["encoder.0.0", "encoder.0.2"]
    assert len(names) == 23
    assert weight_counts(float32).keys() == names.keys()
    assert weight_counts(float32)["bottleneck.2"] == 256 * 256 * 9
    model = onnx.load_from_string(quantize(float32, ["encoder.0.2", "logit"]))
    check_onnx(model, Path("net.onnx"))
    producer = {name: node.op_type for node in model.graph.node for name in node.output}
    reads = {node.name: node.input[0] for node in model.graph.node if node.op_type == "Conv"}
    weights = {node.name: node.input[1] for node in model.graph.node if node.op_type == "Conv"}
    same = {name for name, node in names.items() if weights[node] not in producer}
    assert same == {"encoder.0.2", "logit"}
    assert all(producer[reads[names[name]]] == "Relu" for name in same), "and so is what they read"


def test_unsigned_activations_hold_the_same_numbers_and_go_on_where_int8_ends(
    float32: onnx.ModelProto,
) -> None:
    image = synthetic.sample(1, 3, defective=True, size=SIZE).image
    logit = next(node.input[0] for node in float32.graph.node if node.op_type == "Sigmoid")
    names = [node.output[0] for node in float32.graph.node if node.op_type == "Relu"]
    peaks = {n: float(v.max()) for n, v in next(watch(float32, names, [image])).items()}
    logits = {}
    for share in (1.05, 0.6):
        scaled = in_steps(float32, {name: share * peak for name, peak in peaks.items()})
        for unsigned in (False, True):
            graph = onnx.load_from_string(quantize(scaled, unsigned=unsigned))
            logits[share, unsigned] = output_of(graph, logit, [image])
    expected = output_of(float32, logit, [image])
    spread = float(np.ptp(expected))
    difference = np.abs(logits[1.05, True] - logits[1.05, False])
    assert difference.mean() < 1e-3 * spread, "a sum on the edge of a level, here and there"
    cut_off, held = (np.abs(logits[0.6, unsigned] - expected).mean() for unsigned in (False, True))
    assert held < 0.5 * cut_off
