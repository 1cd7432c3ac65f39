from __future__ import annotations

import math

import onnx
import pytest

from tinyunet_deploy.artifacts.onnx_reader import read_graph
from tinyunet_deploy.artifacts.sidecar import DEFAULT_ONNX
from tinyunet_deploy.speed.peak_graph import matrix_graph


def test_the_convolutions_of_the_package_s_model_are_read_as_onnx_reads_them() -> None:
    model = onnx.load(DEFAULT_ONNX)
    convolutions = read_graph(DEFAULT_ONNX.read_bytes()).convolutions()
    assert convolutions is not None
    weights = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    names = [node.input[1] for node in model.graph.node if node.op_type == "Conv"]
    assert [convolution.weight for convolution in convolutions] == [weights[n] for n in names]
    assert convolutions[0].image == (1, 1, 512, 512)
    assert convolutions[0].output == (1, 32, 512, 512)
    assert {convolution.element_type for convolution in convolutions} == {onnx.TensorProto.FLOAT}
    flop = sum(math.prod(c.weight) * math.prod(c.output[2:]) for c in convolutions)
    assert flop == pytest.approx(18.337e9, rel=1e-3)


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_shapes_that_the_file_does_not_state_are_unknown_until_onnx_infers_them(
    precision: str,
) -> None:
    data = matrix_graph("fp32" if precision == "fp32" else "int8", 64, 2)
    assert read_graph(data).convolutions() is None
    inferred = onnx.shape_inference.infer_shapes(onnx.load_from_string(data), data_prop=True)
    convolutions = read_graph(inferred.SerializeToString()).convolutions()
    assert convolutions is not None
    kind = onnx.TensorProto.FLOAT if precision == "fp32" else onnx.TensorProto.INT8
    assert [c.element_type for c in convolutions] == [kind, kind]
    assert [c.image for c in convolutions] == [(1, 256, 4, 4)] * 2


def test_a_free_batch_is_one_image_and_any_other_free_size_is_unknown() -> None:
    model = onnx.load(DEFAULT_ONNX)
    for value in model.graph.value_info:
        if value.name == model.graph.node[3].output[0]:
            value.type.tensor_type.shape.dim[2].dim_param = "H"
    shapes = read_graph(model.SerializeToString()).shapes
    assert shapes["image"] == (1, 1, 512, 512)
    assert model.graph.node[3].output[0] not in shapes


def test_a_file_that_is_not_a_model_is_an_error() -> None:
    with pytest.raises(ValueError, match="message"):
        read_graph(b"\x38\x01")  # a number in the field of the graph
