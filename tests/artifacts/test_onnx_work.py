"""The bound of a graph's work: never under what ONNX's own shape inference says."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from tests.hostile.mutate import small_graph
from tinyunet_deploy.artifacts.onnx_work import (
    MAC_PER_PIXEL,
    VALUES_PER_PIXEL,
    Work,
    is_bounded,
    work_of,
)
from tinyunet_deploy.artifacts.sidecar import DEFAULT_ONNX

ROWS, COLUMNS = 20, 24


def graph(nodes: list[onnx.NodeProto], constants: dict[str, Any]) -> onnx.ModelProto:
    """A graph of floats from ``image``; its output is that of the last node."""
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 1, ROWS, COLUMNS])
    last = helper.make_empty_tensor_value_info(nodes[-1].output[0])
    weights = [
        numpy_helper.from_array(np.asarray(value, np.float32), name)
        for name, value in constants.items()
    ]
    opset = [helper.make_opsetid("", 18)]
    made = helper.make_graph(nodes, "graph", [image], [last], weights)
    return helper.make_model(made, opset_imports=opset, ir_version=10)


def values(model: onnx.ModelProto) -> int:
    """Values of all tensors that nodes make, by ONNX's own inference."""
    known = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True).graph
    shapes = {
        info.name: [dim.dim_value for dim in info.type.tensor_type.shape.dim]
        for info in (*known.value_info, *known.output)
    }
    return sum(math.prod(shapes[name]) for node in model.graph.node for name in node.output)


few = st.integers(1, 4)


@given(
    out=few, kernel=st.tuples(few, few), strides=st.lists(few, min_size=2, max_size=2),
    dilations=st.lists(few, min_size=2, max_size=2),
    pads=st.lists(st.integers(0, 9), min_size=4, max_size=4),
    ceil=st.integers(0, 1), size=st.integers(1, 4), scales=st.tuples(few, st.floats(1, 5)),
)  # fmt: skip
def test_the_values_are_those_of_onnx_or_a_few_more(
    out: int, kernel: tuple[int, int], strides: list[int], dilations: list[int], pads: list[int],
    ceil: int, size: int, scales: tuple[int, float],
) -> None:  # fmt: skip
    pads[0:2] = [max(pads[0], 4), max(pads[1], 4)]  # the pool's kernel fits
    nodes = [
        helper.make_node("Conv", ["image", "w"], ["a"], pads=pads, strides=strides,
                         dilations=dilations),
        helper.make_node("MaxPool", ["a"], ["b"], kernel_shape=[size] * 2, ceil_mode=ceil,
                         strides=strides, pads=[size // 2] * 4),
        helper.make_node("Resize", ["b", "", "scales"], ["c"], mode="nearest"),
        helper.make_node("Mul", ["c", "per channel"], ["d"]),
        helper.make_node("Concat", ["c", "d", "c"], ["e"], axis=1),
    ]  # fmt: skip
    constants = {
        "w": np.zeros((out, 1, *kernel)),
        "scales": [1, 1, *scales],
        "per channel": np.zeros((out, 1, 1)),
    }
    model = graph(nodes, constants)
    work = work_of(model.SerializeToString(), ROWS, COLUMNS)
    assert work is not None
    wanted = values(model)
    assert wanted <= work.values
    if not ceil:
        assert work.values == wanted
    assert work.mac >= out * math.prod(kernel)


def test_the_packages_network_takes_what_was_published() -> None:
    work = work_of(DEFAULT_ONNX.read_bytes(), 512, 512)
    assert work is not None
    assert 18.337e9 < work.mac < 18.6e9
    assert is_bounded(DEFAULT_ONNX.read_bytes(), 512, 512)


def test_a_graph_is_bounded_up_to_the_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    for work, bounded in (
        (Work(MAC_PER_PIXEL * 4096, VALUES_PER_PIXEL * 4096), True),
        (Work(MAC_PER_PIXEL * 4096 + 1, 0), False),
        (Work(0, VALUES_PER_PIXEL * 4096 + 1), False),
        (None, False),
    ):
        monkeypatch.setattr(
            "tinyunet_deploy.artifacts.onnx_work.work_of", lambda *_, work=work: work
        )
        assert is_bounded(b"", 64, 64) == bounded
        assert is_bounded(b"", 16, 16) == bounded


def changed(**what: Any) -> bytes:
    """The small graph with its convolution changed."""
    model = small_graph()
    node = model.graph.node[1]
    for name, value in what.items():
        if name == "attribute":
            node.attribute.extend(value)
        else:
            setattr(node, name, value)
    return bytes(model.SerializeToString())


def attribute(name: str, value: Any, kind: int | None = None) -> list[onnx.AttributeProto]:
    made = helper.make_attribute(name, value)
    if kind is not None:
        made.type = kind
    return [made]


@pytest.mark.parametrize(
    "data",
    [
        changed(op_type="Loop"),
        changed(domain="com.example"),
        changed(attribute=attribute("auto_pad", "SAME_UPPER")),
        changed(attribute=attribute("pads", [1, 1, 1, 1])),
        changed(attribute=attribute("strides", [2, 2], onnx.AttributeProto.FLOATS)),
        changed(attribute=attribute("strides", [0, 1])),
        changed(attribute=attribute("dilations", [-1, 1])),
        changed(attribute=attribute("body", onnx.GraphProto(name="inner"))),
        b"",
        b"\x3a\x01",
        small_graph().SerializeToString() * 2,
    ],
)
def test_what_has_no_rule_has_no_bound(data: bytes) -> None:
    assert work_of(changed(domain="ai.onnx"), 16, 16) is not None
    assert work_of(data, 16, 16) is None


def test_functions_sparse_tensors_and_tensors_without_bytes_have_no_bound() -> None:
    model = small_graph()
    model.functions.add(name="f", domain="")
    assert work_of(model.SerializeToString(), 16, 16) is None
    model = small_graph()
    model.graph.sparse_initializer.add()
    assert work_of(model.SerializeToString(), 16, 16) is None
    model = small_graph()
    model.graph.initializer.add(name="hole", data_type=1, dims=[1 << 20, 1 << 20])
    assert work_of(model.SerializeToString(), 16, 16) is None


def test_names_that_are_unknown_or_given_twice_have_no_bound() -> None:
    model = small_graph()
    model.graph.node[1].input[0] = "nowhere"
    assert work_of(model.SerializeToString(), 16, 16) is None
    model = small_graph()
    model.graph.node[2].output[0] = "y"
    assert work_of(model.SerializeToString(), 16, 16) is None
