"""Names and operations of the network, by the names of ONNX nodes."""

import pytest

from tinyunet_deploy.artifacts.sidecar import DEFAULT_ONNX, read_artifact
from tinyunet_deploy.speed.engine.network_names import NetworkNames, network_names
from tinyunet_deploy.speed.roofline import count_work


def test_nodes_are_named_as_the_network_names_them() -> None:
    names = network_names(DEFAULT_ONNX.read_bytes())
    assert names.layer_of(("node_conv2d_3", "node_relu_3")) == "encoder.1.2"
    assert names.layer_of(("node_relu_3",)) == "encoder.1.2"
    assert names.layer_of(("node_max_pool2d",)) == "MaxPool after encoder.0.2"
    assert names.layer_of(("node_cat", "node_conv2d_11")) == "decoder.0.0"
    assert names.layer_of(("node_sigmoid",)) == "logit"
    assert names.layer_of(("something else",)) is None
    assert NetworkNames().layer_of(("node_conv2d_3",)) is None


def test_operations_are_those_of_the_roofline() -> None:
    names = network_names(DEFAULT_ONNX.read_bytes())
    work = count_work(read_artifact(DEFAULT_ONNX))
    assert sum(names.flop.values()) == pytest.approx(sum(work.flop.values()))


def test_weights_behind_a_quantisation_keep_the_name() -> None:
    import onnx
    from onnx import helper

    model = onnx.load(DEFAULT_ONNX)
    conv = next(node for node in model.graph.node if node.op_type == "Conv")
    scale = helper.make_node("DequantizeLinear", [conv.input[1], "s"], ["w"], name="dq")
    conv.input[1] = "w"
    model.graph.node.insert(0, scale)
    assert network_names(model.SerializeToString()).layers[conv.name] == "encoder.0.0"
