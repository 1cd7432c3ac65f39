from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from export.graph import onnx_graph
from tests.hostile.mutate import small_graph
from tinyunet_deploy.artifacts.foreign import is_foreign, read_model
from tinyunet_deploy.artifacts.network import TinyUNet
from tinyunet_deploy.artifacts.onnx_reader import read_graph
from tinyunet_deploy.artifacts.sidecar import sidecar_path
from tinyunet_deploy.contract import Contract
from tinyunet_deploy.errors import ArtifactError


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    path = tmp_path / "net.onnx"
    onnx.save(small_graph(), path)
    return path


def test_a_trusted_file_is_described_by_its_graph(foreign: Path) -> None:
    artifact = read_model(foreign, trust_engine=True)
    assert not artifact.has_sidecar
    sidecar = artifact.sidecar
    assert (sidecar.kind, sidecar.precision, sidecar.contract) == ("onnx", "fp32", Contract(16, 16))
    assert (sidecar.parent, sidecar.network, sidecar.golden) == (None, None, None)
    assert "lineage unknown" in sidecar.origin["without_sidecar"]


def test_trust_is_needed_and_reaches_only_files_without_a_sidecar(
    foreign: Path, tiny_onnx: Path, tmp_path: Path
) -> None:
    with pytest.raises(ArtifactError, match="has no sidecar"):
        read_model(foreign)
    assert read_model(tiny_onnx, trust_engine=True).has_sidecar
    sidecar_path(foreign).write_text("{}")
    assert not is_foreign(foreign)
    with pytest.raises(ArtifactError, match="is not a valid sidecar"):
        read_model(foreign, trust_engine=True)


def test_a_checkpoint_without_a_sidecar_is_never_trusted(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    path = tmp_path / tiny_checkpoint.name
    shutil.copy(tiny_checkpoint, path)
    assert not is_foreign(path)
    with pytest.raises(ArtifactError, match="has no sidecar"):
        read_model(path, trust_engine=True)


@pytest.mark.parametrize("operator", ["ArgMax", "Greater"])
def test_a_trusted_file_whose_scores_are_labels_is_refused(operator: str, foreign: Path) -> None:
    model = onnx.load(foreign)
    graph = model.graph
    before = "score_before"
    for node in graph.node:
        node.output[:] = [before if name == "score" else name for name in node.output]
    if operator == "ArgMax":
        graph.node.append(helper.make_node("ArgMax", [before], ["label"], axis=1))
    else:
        graph.node.append(helper.make_node("Greater", [before, "limit"], ["label"]))
        graph.initializer.append(numpy_helper.from_array(np.uint8(9), "limit"))
    graph.node.append(helper.make_node("Cast", ["label"], ["score"], to=TensorProto.UINT8))
    onnx.save(model, foreign)
    with pytest.raises(ArtifactError, match="its scores are labels"):
        read_model(foreign, trust_engine=True)


def test_a_trusted_file_must_keep_the_contract(foreign: Path) -> None:
    model = small_graph()
    model.graph.output[0].name = "mask"
    onnx.save(model, foreign)
    with pytest.raises(ArtifactError, match="is not a usable ONNX file"):
        read_model(foreign, trust_engine=True)


def test_the_precision_of_our_own_files_is_read_from_their_graph(tiny_onnx: Path) -> None:
    half = onnx_graph(TinyUNet().half(), Contract(64, 64), "fp16")
    assert read_graph(half).precision() == "fp16"
    assert read_graph(tiny_onnx.read_bytes()).precision() == "fp32"


def convolutions(*weights: str) -> bytes:
    """A graph of one convolution for each kind of weight: fp32, fp16, double, int8 or made."""
    types = {"fp32": "f4", "fp16": "f2", "double": "f8"}
    nodes, tensors = [], []

    def tensor(name: str, dtype: str) -> None:
        import numpy as np

        tensors.append(numpy_helper.from_array(np.ones((1, 1, 1, 1), dtype), name))

    for index, kind in enumerate(weights):
        image, weight = f"x{index}", f"w{index}"
        if kind in types:
            tensor(weight, types[kind])
        elif kind == "made":
            tensor("raw", "f4")
            nodes.append(helper.make_node("Neg", ["raw"], [weight]))
        else:
            tensor(f"{weight}.int8", "u1" if kind == "uint8" else "i1")
            nodes.append(helper.make_node("DequantizeLinear", [f"{weight}.int8", "step"], [weight]))
            if kind != "int8 weights":
                names = [f"{image}.int8", "step"], [f"{image}.back"]
                nodes.append(helper.make_node("DequantizeLinear", *names))
                image = f"{image}.back"
        nodes.append(helper.make_node("Conv", [image, weight], [f"x{index + 1}"]))
    value = helper.make_tensor_value_info("x0", TensorProto.FLOAT, [1, 1, 1, 1])
    graph = helper.make_graph(nodes, "net", [value], [], tensors)
    data: bytes = helper.make_model(graph).SerializeToString()
    return data


@pytest.mark.parametrize(
    ("weights", "precision"),
    [
        (("fp32", "fp32"), "fp32"),
        (("fp16",), "fp16"),
        (("int8", "int8"), "int8"),
        (("int8", "fp32"), "unknown"),
        (("uint8",), "unknown"),
        (("int8 weights",), "unknown"),
        (("double",), "unknown"),
        (("made",), "unknown"),
        ((), "unknown"),
    ],
)
def test_a_precision_is_stated_only_if_all_convolutions_have_it(
    weights: tuple[str, ...], precision: str
) -> None:
    assert read_graph(convolutions(*weights)).precision() == precision
