from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tinyunet_deploy.artifacts.tensorrt_preflight import check_onnx
from tinyunet_deploy.errors import ArtifactError

WHERE = Path("net.onnx")


def graph(
    *,
    activation: type = np.int8,
    zero_point: int = 0,
    scale: float = 0.01,
    batch: str | int = "N",
    names: tuple[str, str] = ("image", "score"),
) -> onnx.ModelProto:
    """A one-convolution graph of the contract's form, with Q/DQ as TensorRT wants it."""
    image, score = names
    tensors = {
        "weight": np.ones((1, 1, 3, 3), np.int8),
        "weight_scale": np.array([0.02], np.float32),
        "weight_zero": np.zeros(1, np.int8),
        "bias": np.zeros(1, np.float32),
        "scale": np.float32(scale),
        "zero": activation(zero_point),
        "full": np.float32(255),
    }
    nodes = [
        helper.make_node("Cast", [image], ["x"], "first", to=TensorProto.FLOAT),
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"], "quantize"),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["d"], "dequantize"),
        helper.make_node(
            "DequantizeLinear",
            ["weight", "weight_scale", "weight_zero"],
            ["w"],
            "weight_dequantize",
            axis=0,
        ),
        helper.make_node("Conv", ["d", "w", "bias"], ["y"], "conv", pads=[1, 1, 1, 1]),
        helper.make_node("Sigmoid", ["y"], ["s"], "sigmoid"),
        helper.make_node("Mul", ["s", "full"], ["m"], "scale_up"),
        helper.make_node("Cast", ["m"], [score], "last", to=TensorProto.UINT8),
    ]
    shape = [batch, 1, 32, 48]
    built = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info(image, TensorProto.UINT8, shape)],
        [helper.make_tensor_value_info(score, TensorProto.UINT8, shape)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in tensors.items()],
    )
    return helper.make_model(built, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def node(model: onnx.ModelProto, name: str) -> onnx.NodeProto:
    return next(node for node in model.graph.node if node.name == name)


def tensor(model: onnx.ModelProto, name: str, value: np.ndarray) -> None:
    """Put another value in the place of an initializer, or a new one."""
    for initializer in model.graph.initializer:
        if initializer.name == name:
            initializer.CopyFrom(numpy_helper.from_array(value, name))
            return
    model.graph.initializer.append(numpy_helper.from_array(value, name))


def refusal(model: onnx.ModelProto) -> str:
    with pytest.raises(ArtifactError) as caught:
        check_onnx(model, WHERE)
    assert caught.value.hint, "a refusal says what to do"
    return str(caught.value)


def test_a_graph_of_the_contract_passes() -> None:
    check_onnx(graph(), WHERE)


def test_uint8_quantization_is_refused_even_with_zero_point_0() -> None:
    message = refusal(graph(activation=np.uint8))
    assert "quantize (QuantizeLinear)" in message
    assert "the range is wrong" in message


def test_uint8_weights_are_refused() -> None:
    model = graph()
    tensor(model, "weight", np.ones((1, 1, 3, 3), np.uint8))
    tensor(model, "weight_zero", np.zeros(1, np.uint8))
    assert "weight_dequantize (DequantizeLinear)" in refusal(model)


def test_a_quantizer_without_a_zero_point_is_uint8_by_the_standard() -> None:
    model = graph()
    del node(model, "quantize").input[2], node(model, "dequantize").input[2]
    assert "quantize (QuantizeLinear) is uint8" in refusal(model)


@pytest.mark.parametrize(
    ("name", "value", "guilty"),
    [
        ("zero", np.array(3, np.int8), "quantize (QuantizeLinear)"),
        ("weight_zero", np.array([1], np.int8), "weight_dequantize (DequantizeLinear)"),
    ],
)
def test_a_zero_point_that_is_not_zero_is_refused(
    name: str, value: np.ndarray, guilty: str
) -> None:
    model = graph()
    tensor(model, name, value)
    message = refusal(model)
    assert guilty in message
    assert "zero point" in message


def test_an_int32_bias_is_refused() -> None:
    model = graph()
    tensor(model, "bias_q", np.zeros(1, np.int32))
    tensor(model, "bias_scale", np.float32([0.1]))
    position = list(model.graph.node).index(node(model, "conv"))
    model.graph.node.insert(
        position,
        helper.make_node("DequantizeLinear", ["bias_q", "bias_scale"], ["b"], "bias_dequantize"),
    )
    node(model, "conv").input[2] = "b"
    message = refusal(model)
    assert "bias_dequantize" in message
    assert "QuantizeBias=False" in message


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan"), float("inf")])
def test_a_scale_that_is_not_positive_and_finite_is_refused(scale: float) -> None:
    assert "quantize (QuantizeLinear) has a scale" in refusal(graph(scale=scale))


def test_a_scale_computed_at_run_time_is_refused() -> None:
    model = graph()
    model.graph.node.insert(1, helper.make_node("ReduceMax", ["x"], ["s0"], "reach", keepdims=0))
    node(model, "quantize").input[1] = "s0"
    assert "quantize (QuantizeLinear) computes its scale" in refusal(model)


def test_a_transpose_before_the_first_cast_is_refused() -> None:
    model = graph()
    model.graph.node.insert(
        0, helper.make_node("Transpose", ["image"], ["t"], "turn", perm=[0, 1, 2, 3])
    )
    node(model, "first").input[0] = "t"
    assert "turn (Transpose)" in refusal(model)


def test_uint8_between_the_ends_is_refused() -> None:
    model = graph()
    model.graph.node.insert(
        1, helper.make_node("Cast", ["x"], ["u"], "to_bytes", to=TensorProto.UINT8)
    )
    model.graph.node.insert(
        2, helper.make_node("Cast", ["u"], ["v"], "from_bytes", to=TensorProto.FLOAT)
    )
    node(model, "quantize").input[0] = "v"
    assert "to_bytes (Cast)" in refusal(model)


def test_a_cast_of_bool_to_the_score_is_refused() -> None:
    model = graph()
    model.graph.node.insert(7, helper.make_node("Greater", ["m", "full"], ["above"], "compare"))
    node(model, "last").input[0] = "above"
    assert "last (Cast) gives the uint8 score" in refusal(model)


def test_a_score_that_is_clipped_as_uint8_is_refused() -> None:
    model = graph()
    node(model, "last").output[0] = "raw"
    model.graph.node.append(helper.make_node("Identity", ["raw"], ["score"], "after"))
    assert "(Cast) has the uint8 tensor raw inside the graph" in refusal(model)


def too_new_ir(model: onnx.ModelProto) -> None:
    model.ir_version = 11


def too_new_opset(model: onnx.ModelProto) -> None:
    model.opset_import[0].version = 22


def contrib(model: onnx.ModelProto) -> None:
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    node(model, "sigmoid").domain = "com.microsoft"
    node(model, "sigmoid").op_type = "QuickGelu"


def external(model: onnx.ModelProto) -> None:
    weight = next(t for t in model.graph.initializer if t.name == "weight")
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    weight.external_data.add(key="location", value="net.bin")


def fixed_height(model: onnx.ModelProto) -> None:
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[2].dim_param = "H"


def float_input(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.FLOAT


def unsorted(model: onnx.ModelProto) -> None:
    first = onnx.NodeProto()
    first.CopyFrom(model.graph.node[0])
    del model.graph.node[0]
    model.graph.node.append(first)


def mixed(model: onnx.ModelProto) -> None:
    tensor(model, "full", np.array(255, np.float16))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (too_new_ir, ["IR version 11"]),
        (too_new_opset, ["opset 22"]),
        (contrib, ["sigmoid", "com.microsoft.QuickGelu"]),
        (external, ["weight", "weight_dequantize", "external_data=False"]),
        (fixed_height, ["image", "Nx1xHx48"]),
        (float_input, ["input image is float", "uint8"]),
        (unsorted, ["not a valid ONNX graph"]),
        (mixed, ["not a valid ONNX graph", "scale_up"]),
    ],
)
def test_what_tensorrt_would_reject_is_refused(
    damage: Callable[[onnx.ModelProto], None], words: list[str]
) -> None:
    model = graph()
    damage(model)
    message = refusal(model)
    for word in words:
        assert word in message


def test_a_fixed_batch_is_refused() -> None:
    message = refusal(graph(batch=1))
    assert "its batch is fixed" in message
    assert "1x1x32x48" in message


@pytest.mark.parametrize("names", [("x", "score"), ("image", "y")])
def test_other_names_than_the_contracts_are_refused(names: tuple[str, str]) -> None:
    assert "instead of" in refusal(graph(names=names))
