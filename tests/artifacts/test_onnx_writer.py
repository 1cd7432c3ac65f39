from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper, numpy_helper

from tinyunet_deploy.artifacts.onnx_writer import FLOAT, UINT8, End, node, onnx_model, tensor
from tinyunet_deploy.artifacts.protobuf_wire import written_field

NAMES = st.text(min_size=1, max_size=300).filter(str.isprintable)
NUMBERS = st.integers(0, 2**63 - 1)


@given(name=NAMES, size=NUMBERS, version=NUMBERS, pads=st.lists(NUMBERS, max_size=200))
def test_a_file_is_the_same_bytes_as_the_package_onnx_writes(
    name: str, size: int, version: int, pads: list[int]
) -> None:
    values = np.arange(300, dtype=np.float32).reshape(3, 100)
    ours = onnx_model(
        name,
        [node("Conv", ["x", name], "y", axis=size, pads=pads)],
        [tensor(name, values), tensor("zero", np.asarray(np.int8(-3)))],
        [End("x", UINT8, ("N", 1, size))],
        [End("y", FLOAT, ("N",))],
        opset=18,
        ir_version=version,
    )
    attributes: dict[str, Any] = {"axis": size, "pads": pads}
    conv = helper.make_node("Conv", ["x", name], ["y"])
    for key in sorted(attributes):
        kind = onnx.AttributeProto.INT if key == "axis" else onnx.AttributeProto.INTS
        conv.attribute.append(helper.make_attribute(key, attributes[key], attr_type=kind))
    graph = helper.make_graph(
        [conv],
        name,
        [helper.make_tensor_value_info("x", onnx.TensorProto.UINT8, ["N", 1, size])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["N"])],
        [numpy_helper.from_array(values, name), numpy_helper.from_array(np.int8(-3), "zero")],
    )
    theirs = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    theirs.ir_version = version
    assert onnx.load_from_string(ours) == theirs
    if pads:  # a packed list or single fields are the same to a reader
        return
    assert ours == theirs.SerializeToString()


def test_a_field_is_number_and_type_then_its_value() -> None:
    """The examples of the protobuf documentation: field 1 = 150, field 2 = "testing"."""
    assert written_field(1, 150) == bytes.fromhex("089601")
    assert written_field(2, "testing") == bytes.fromhex("120774657374696e67")
