from __future__ import annotations

import logging

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.foreign_networks import Graph
from tinyunet_deploy.artifacts.onnx_reader import read_graph
from tinyunet_deploy.contract import INPUT_NAME, OUTPUT_NAME
from tinyunet_deploy.quality.adoption_converters import (
    fewer_quantized,
    float16,
    int8,
    with_node_names,
)

SIDE = 16


def chain(convolutions: int) -> bytes:
    """A wrapped network of unnamed convolutions; ``adopt/`` stands before what is around it."""
    graph = Graph()
    graph.nodes.append(
        helper.make_node("Cast", [INPUT_NAME], ["adopt/float"], "adopt/float", to=TensorProto.FLOAT)
    )
    graph.nodes.append(
        helper.make_node("Mul", ["adopt/float", "adopt/factor"], ["adopt/x"], "adopt/mul")
    )
    graph.constants.append(numpy_helper.from_array(np.float32(1 / 255), "adopt/factor"))
    value = "adopt/x"
    for _ in range(convolutions):
        value = graph.add("Relu", graph.conv(value, 1, 1))
    for operator, name in (("Sigmoid", "sigmoid"), ("Mul", "scaled"), ("Round", "rounded")):
        inputs = [value, "adopt/255"] if operator == "Mul" else [value]
        node = helper.make_node(operator, inputs, [f"adopt/{name}"], f"adopt/{name}")
        graph.nodes.append(node)
        value = f"adopt/{name}"
    graph.constants.append(numpy_helper.from_array(np.float32(255), "adopt/255"))
    graph.nodes.append(
        helper.make_node("Cast", [value], [OUTPUT_NAME], OUTPUT_NAME, to=TensorProto.UINT8)
    )
    ends = [
        helper.make_tensor_value_info(name, TensorProto.UINT8, ["N", 1, SIDE, SIDE])
        for name in (INPUT_NAME, OUTPUT_NAME)
    ]
    parts = helper.make_graph(graph.nodes, "net", ends[:1], ends[1:], graph.constants)
    opset = helper.make_opsetid("", 18)
    data: bytes = helper.make_model(parts, opset_imports=[opset], ir_version=9).SerializeToString()
    return data


def test_every_convolution_gets_a_name_of_its_own() -> None:
    model = with_node_names(chain(3))
    names = [node.name for node in model.graph.node if node.op_type == "Conv"]
    assert len(set(names)) == 3 and all(names)


@pytest.mark.parametrize(
    ("convolutions", "kept"),
    [(1, [0]), (2, [0]), (3, [0, 2]), (5, [0, 2, 4]), (9, [0, 2, 4, 8])],
)
def test_fewer_and_fewer_are_quantized_from_both_ends(convolutions: int, kept: list[int]) -> None:
    model = with_node_names(chain(convolutions))
    names = [node.name for node in model.graph.node if node.op_type == "Conv"]
    sets = fewer_quantized(model)
    assert [len(chosen) for chosen in sets] == kept
    for chosen in sets[1:]:
        assert {names[0], names[-1]} <= set(chosen) < set(names)


def test_in_fp16_only_the_network_changes() -> None:
    data = float16(with_node_names(chain(2)))
    assert read_graph(data).precision() == "fp16"
    model = onnx.load_from_string(data)
    onnx.checker.check_model(model, full_check=True)
    around = {c.name: c.data_type for c in model.graph.initializer if c.name.startswith("adopt/")}
    assert set(around.values()) == {TensorProto.FLOAT}
    assert {value.type.tensor_type.elem_type for value in (model.graph.input[0],)} == {
        TensorProto.UINT8
    }
    assert float16(with_node_names(chain(2))) == data, "the same bytes every time"


def test_fp16_keeps_the_scale_of_an_enlarged_image() -> None:
    """9 pixels become 33 by a scale of 3.6667, which half precision would round to 32.99 / 9."""
    graph = Graph()
    small = graph.conv("x", 1, 1, strides=[4, 4])
    scales = numpy_helper.from_array(np.array([1, 1, 33 / 9, 33 / 9], np.float32))
    scales_name = graph.add("Constant", value=scales)
    graph.add("Resize", small, "", scales_name, name="y")
    shape: list[int | str] = ["N", 1, 33, 33]
    data = graph.model(("x", 1, shape), ("y", 1, shape))
    typed = onnx.shape_inference.infer_shapes(onnx.load_from_string(data))  # as adopted files are
    model = with_node_names(typed.SerializeToString())
    session = onnxruntime.InferenceSession(float16(model))
    (scores,) = session.run(None, {"x": np.ones((2, 1, 33, 33), np.float32)})
    assert scores.shape == (2, 1, 33, 33)


def test_int8_is_symmetric_with_float32_biases_and_names_what_is_kept() -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, SIDE, SIDE), np.uint8)
    model = with_node_names(chain(3))
    names = [node.name for node in model.graph.node if node.op_type == "Conv"]
    handlers = list(logging.root.handlers)
    data, floats = int8(model, images)
    assert floats == () and read_graph(data).precision() == "int8"
    assert logging.root.handlers == handlers
    quantized = onnx.load_from_string(data)
    constants = {c.name: numpy_helper.to_array(c) for c in quantized.graph.initializer}
    for node in quantized.graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            assert not constants[node.input[2]].any(), "TensorRT takes no zero point but 0"
        if node.op_type == "Conv":
            assert constants[node.input[2]].dtype == np.float32
    data, floats = int8(model, images, names[:1])
    assert floats == (names[0],) and read_graph(data).precision() == "unknown"
    with pytest.raises(ValueError, match="no convolution that could be quantised"):
        int8(model, images, names)


def test_int8_weights_have_a_scale_for_each_channel() -> None:
    graph = Graph()
    graph.add("Cast", INPUT_NAME, name="x", to=TensorProto.FLOAT)
    graph.conv(graph.conv("x", 1, 5), 5, 1)
    graph.add("Cast", graph.nodes[-1].output[0], name=OUTPUT_NAME, to=TensorProto.UINT8)
    shape: list[int | str] = ["N", 1, SIDE, SIDE]
    ends = (INPUT_NAME, TensorProto.UINT8, shape), (OUTPUT_NAME, TensorProto.UINT8, shape)
    images = np.random.default_rng(0).integers(0, 256, (3, SIDE, SIDE), np.uint8)
    quantized = onnx.load_from_string(int8(with_node_names(graph.model(*ends)), images)[0])
    sizes = {c.name: list(c.dims) for c in quantized.graph.initializer}
    made = {node.output[0]: node for node in quantized.graph.node}
    weights = [made[n.input[1]] for n in quantized.graph.node if n.op_type == "Conv"]
    assert [sizes[weight.input[1]] for weight in weights] == [[5], [1]]
