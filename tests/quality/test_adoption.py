"""Graphs that are not segmentation networks: each is refused clearly, none is adopted."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from tests.foreign_networks import Graph, rgb_logits
from tinyunet_deploy.artifacts.adoption.form import NORMALIZATIONS, Normalization
from tinyunet_deploy.artifacts.sidecar import sidecar_path
from tinyunet_deploy.errors import ArtifactError
from tinyunet_deploy.quality import adoption, network_measurement
from tinyunet_deploy.quality.adoption import AdoptionOptions, adopt

SIDE = 16
TYPES = [TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.UINT8, TensorProto.INT64]
TYPES += [TensorProto.STRING, TensorProto.BOOL, TensorProto.DOUBLE]
UNARY = ["Abs", "Relu", "Sigmoid", "Floor", "Neg", "Identity", "Tanh", "Exp", "Softmax", "Log"]
SHAPELESS = ["GlobalAveragePool", "ReduceSum", "ArgMax", "Flatten", "Shape", "Size", "MaxPool"]
"""Operators after which there is not one float for each pixel."""


@st.composite
def graphs(draw: st.DrawFn) -> bytes:
    """A valid graph that is not a segmentation network: by its ends, its output, or its values."""
    fault = draw(st.sampled_from(["input", "two inputs", "output", "constant", "noise", "type"]))
    shape: list[int | str] = ["N", draw(st.sampled_from([1, 3])), SIDE, SIDE]
    kind = TensorProto.FLOAT
    if fault == "input":
        shape = draw(
            st.one_of(
                st.lists(st.integers(1, 8), max_size=3),
                st.just(["N", 7, SIDE, SIDE]),
                st.just(["N", "C", SIDE, SIDE]),
                st.lists(st.integers(1, 4), min_size=5, max_size=6),
            )
        )
    if fault == "type":
        kind = draw(st.sampled_from([t for t in TYPES if t not in TYPES[:3]]))
    nodes, last = [], "x"
    for place in range(draw(st.integers(1, 4))) if kind == TensorProto.FLOAT else []:
        nodes.append(helper.make_node(draw(st.sampled_from(UNARY)), [last], [f"a{place}"]))
        last = f"a{place}"
    inputs = [helper.make_tensor_value_info("x", kind, shape)]
    constants = []
    if fault == "two inputs":
        inputs.append(helper.make_tensor_value_info("x2", kind, shape))
        nodes.append(helper.make_node("Add", [last, "x2"], ["y"]))
    elif fault == "output":
        operator = draw(st.sampled_from(SHAPELESS))
        attributes = {"kernel_shape": [2, 2]} if operator == "MaxPool" else {}
        nodes.append(helper.make_node(operator, [last], ["y"], **attributes))
    elif fault == "constant":
        constants.append(numpy_helper.from_array(np.float32(0), "zero"))
        nodes.append(helper.make_node("Clip", [last, "zero", "zero"], ["y"]))
    elif fault == "noise":
        nodes.append(helper.make_node("RandomUniformLike", [last], ["y"]))
    else:
        nodes.append(helper.make_node("Identity", [last], ["y"]))
    result = TensorProto.INT64 if nodes[-1].op_type in ("ArgMax", "Shape", "Size") else kind
    graph = helper.make_graph(
        nodes, "g", inputs, [helper.make_tensor_value_info("y", result, None)], constants
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    data: bytes = model.SerializeToString()
    return data


def refused(data: bytes, folder: Path) -> str:
    """Return why a graph is refused, whatever the user says about it."""
    path = folder / "net.onnx"
    options = AdoptionOptions(
        normalization=NORMALIZATIONS["unit"], activation="sigmoid", defect=(0,), reach="whole"
    )
    return refused_as(data, folder, str(path), options)


def refused_as(
    data: bytes, folder: Path, where: str, options: AdoptionOptions | None = None
) -> str:
    """The same, of an error about a file of any name."""
    path, output = folder / "net.onnx", folder / "adopted.onnx"
    path.write_bytes(data)
    with pytest.raises(ArtifactError) as caught:
        adopt(path, output, options or AdoptionOptions())
    assert not output.exists()
    assert caught.value.exit_code == 4
    text = str(caught.value)
    assert text.startswith(f"{where}: ") and "\n" not in text and len(text) < 1000
    return text


def run_many(examples: int, folder: Path) -> None:
    @settings(
        max_examples=examples,
        deadline=None,
        derandomize=True,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
    )
    @given(graphs())
    def every_one_is_refused(data: bytes) -> None:
        refused(data, folder)

    every_one_is_refused()


def test_a_dozen_graphs_that_are_not_networks_are_refused(tmp_path: Path) -> None:
    run_many(12, tmp_path)


@pytest.mark.nightly
def test_fifty_and_more_of_them(tmp_path: Path) -> None:
    run_many(80, tmp_path)


@pytest.mark.parametrize(
    ("operators", "words"),
    [
        (("Sigmoid", "Log"), "ends in a log"),
        (("Sigmoid", "Neg"), "ends in a negation"),
        (("Tanh",), "ends in a tanh"),
        (("Sigmoid", "Round"), "as labels are"),
        (("Softmax",), "sum to 1 over each row"),
    ],
)
def test_values_that_only_look_like_logits_or_probabilities_are_refused(
    operators: tuple[str, ...], words: str, tmp_path: Path
) -> None:
    g = Graph(14)
    last = g.conv("x", 1, 1)
    for operator in operators:
        last = g.add(operator, last)
    g.add("Identity", last, name="y")
    shape: list[int | str] = ["N", 1, SIDE, SIDE]
    assert words in refused(g.model(("x", 1, shape), ("y", 1, shape)), tmp_path)


@pytest.mark.parametrize(("tail", "words"), [("ArgMax", "gives labels 0 to"), ("Mul", "percent")])
def test_bytes_that_are_no_scores_are_refused(tail: str, words: str, tmp_path: Path) -> None:
    g = Graph(15)
    logits = g.conv(g.add("Cast", "x", to=1), 1, 3 if tail == "ArgMax" else 1)
    if tail == "ArgMax":
        last = g.add("ArgMax", logits, axis=1)
    else:
        last = g.add("Mul", g.add("Sigmoid", logits), g.constant(100.0))
    g.add("Cast", last, name="y", to=2)
    shape: list[int | str] = ["N", 1, SIDE, SIDE]
    data = g.model(("x", 2, shape), ("y", 2, shape))
    assert words in refused_as(data, tmp_path, str(tmp_path / "net.onnx"))


def test_the_values_of_a_guessed_normalisation_refuse_nothing(tmp_path: Path) -> None:
    """The message asks for the normalisation first: with another, the same graph may be fine."""
    g = Graph(16)
    g.add("Sub", g.add("Add", g.conv("x", 1, 1), g.constant(30.0)), g.constant(0.0), name="y")
    shape: list[int | str] = ["N", 1, SIDE, SIDE]
    data = g.model(("x", 1, shape), ("y", 1, shape))
    where = str(tmp_path / "net.onnx")
    text = refused_as(data, tmp_path, where)
    assert "--normalize" in text and "percent" not in text
    options = AdoptionOptions(normalization=NORMALIZATIONS["unit"])
    assert "percent" in refused_as(data, tmp_path, where, options)
    options = AdoptionOptions(normalization=NORMALIZATIONS["raw"], reach="whole")
    assert adopt(tmp_path / "net.onnx", tmp_path / "adopted.onnx", options).rows


def test_an_operator_that_no_runtime_has_is_refused(tmp_path: Path) -> None:
    ends = [helper.make_tensor_value_info(name, 1, ["N", 1, SIDE, SIDE]) for name in "xy"]
    node = helper.make_node("Guess", ["x"], ["y"], domain="their.own")
    graph = helper.make_graph([node], "g", ends[:1], ends[1:])
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("their.own", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    assert "Guess" in refused(model.SerializeToString(), tmp_path)


def test_weights_in_another_file_are_refused(tmp_path: Path) -> None:
    graph = onnx.GraphProto()
    weight = numpy_helper.from_array(np.zeros(4, np.float32), "w")
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    weight.external_data.add(key="location", value="w.bin")
    graph.initializer.append(weight)
    model = helper.make_model(graph)
    assert "external_data=False" in refused(model.SerializeToString(), tmp_path)


def test_it_is_tried_in_a_process_of_its_own_before_it_runs_in_this_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*_: object) -> None:
        raise ArtifactError("net.onnx", "was tried and took more than 60 s")

    monkeypatch.setattr(adoption, "try_graph", stopped)
    monkeypatch.setattr(adoption, "ForeignGraph", lambda *_: pytest.fail("it was loaded"))
    assert "was tried and took more than 60 s" in refused_as(rgb_logits(), tmp_path, "net.onnx")


def test_a_model_with_a_sidecar_needs_no_adoption(tmp_path: Path) -> None:
    sidecar_path(tmp_path / "net.onnx").write_text("{}")
    assert "has a sidecar already" in refused(rgb_logits(), tmp_path)


def test_scores_that_depend_on_the_place_have_no_reach(tmp_path: Path) -> None:
    """The convolution reaches one pixel far, but tiles start at other places than the image."""
    g = Graph(11)
    places = g.constant(np.linspace(0.5, 2, 64 * 64).reshape(1, 1, 64, 64))
    g.add("Mul", g.conv("x", 1, 1), places, name="y")
    shape = ["N", 1, 64, 64]
    path = tmp_path / "net.onnx"
    path.write_bytes(g.model(("x", 1, shape), ("y", 1, shape)))
    options = AdoptionOptions(normalization=NORMALIZATIONS["symmetric"])
    sidecar = adopt(path, tmp_path / "adopted.onnx", options).sidecar
    assert sidecar.adoption is not None and sidecar.network is not None
    assert (sidecar.adoption.reach, sidecar.network.reach) == ("whole image", None)
    options = dataclasses.replace(options, reach=3)
    sidecar = adopt(path, tmp_path / "declared.onnx", options).sidecar
    assert sidecar.adoption is not None and sidecar.network is not None
    assert (sidecar.adoption.reach, sidecar.network.reach) == ("declared", (3, 3))
    assert sidecar.network.size_multiple == 64  # the grid was not seen: tiles start at few places


def test_a_reach_that_takes_too_long_to_measure_is_that_of_the_whole_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(network_measurement, "_LONGEST_S", 0.0)
    path = tmp_path / "net.onnx"
    path.write_bytes(rgb_logits())
    options = AdoptionOptions(normalization=NORMALIZATIONS["imagenet"])
    adopted = adopt(path, tmp_path / "adopted.onnx", options)
    assert adopted.sidecar.adoption is not None and adopted.sidecar.network is not None
    facts = adopted.sidecar.adoption.reach, adopted.sidecar.network.reach
    assert facts == ("whole image", None)
    (row,) = [row for row in adopted.rows if row.what == "reach"]
    assert "not measured: it would take" in row.done and "--reach PIXELS declares it" in row.done
    options = dataclasses.replace(options, reach=20)
    assert adopt(path, tmp_path / "declared.onnx", options).sidecar.network is not None


def test_a_network_that_mixes_the_images_of_a_batch_takes_one_per_call(tmp_path: Path) -> None:
    g = Graph(12)
    x = g.conv("x", 1, 1)
    g.add("Add", x, g.add("ReduceMax", x, axes=[0], keepdims=1), name="y")
    path = tmp_path / "net.onnx"
    shape = ["N", 1, 32, 32]
    path.write_bytes(g.model(("x", 1, shape), ("y", 1, shape)))
    options = AdoptionOptions(normalization=NORMALIZATIONS["symmetric"], reach="whole")
    sidecar = adopt(path, tmp_path / "adopted.onnx", options).sidecar
    assert sidecar.contract.max_batch == 1
    assert sidecar.adoption is not None and sidecar.adoption.batch == "fixed"


@pytest.mark.parametrize("opset", [9, 10])
def test_an_old_network_keeps_the_pixels_that_it_resized_by(opset: int, tmp_path: Path) -> None:
    """Before opset 11, Resize took pixel x / scale, not the pixel's centre."""
    g = Graph(13)
    low = g.add("AveragePool", g.conv("x", 1, 2), kernel_shape=[4, 4], strides=[4, 4])
    operator = "Upsample" if opset == 9 else "Resize"
    high = [
        g.add(operator, low, g.constant([1, 1, 4, 4]), mode=mode) for mode in ("linear", "nearest")
    ]
    g.add("Identity", g.conv(g.add("Concat", *high, axis=1), 4, 1), name="y")
    path, shape = tmp_path / "net.onnx", ["N", 1, 32, 32]
    path.write_bytes(g.model(("x", 1, shape), ("y", 1, shape), opset))
    options = AdoptionOptions(normalization=NORMALIZATIONS["symmetric"], reach="whole")
    assert adopt(path, tmp_path / "adopted.onnx", options).sidecar.adoption is not None


def test_a_mean_that_no_grey_value_reaches_is_refused(tmp_path: Path) -> None:
    """Means of grey values, passed without --scale 1."""
    options = AdoptionOptions(normalization=Normalization.scaled(1 / 255, (103.0,), (63.0,)))
    text = refused_as(rgb_logits(), tmp_path, str(tmp_path / "net.onnx"), options)
    assert "subtracts 26265" in text and "--scale 1" in text
    fitting = Normalization.scaled(1.0, (103.0,), (63.0,))
    options = dataclasses.replace(options, normalization=fitting, reach="whole")
    rows = adopt(tmp_path / "net.onnx", tmp_path / "adopted.onnx", options).rows
    (done,) = [row.done for row in rows if row.what == "normalisation"]
    assert done == "(grey - 103) / 63: -1.63 to 2.41"


def test_normalisations_are_what_their_names_say() -> None:
    grey = np.array([0.0, 255.0])
    ends = {
        name: tuple((grey - np.array(n.mean)[:1]) / np.array(n.std)[:1])
        for name, n in NORMALIZATIONS.items()
    }
    assert {name: pair for name, pair in ends.items() if name != "imagenet"} == {
        "raw": (0.0, 255.0),
        "unit": (0.0, 1.0),
        "symmetric": (-1.0, 1.0),
    }
    assert ends["imagenet"] == pytest.approx((-0.485 / 0.229, (1 - 0.485) / 0.229))
