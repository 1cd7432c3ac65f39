"""Layer information of TensorRT 10 and 11: read, refused, written again."""

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.example_engine import example_files
from tinyunet_deploy.errors import DataError
from tinyunet_deploy.speed.engine.layer_info import (
    Form,
    layers_json,
    parse_layer_info,
    read_layer_info,
    unique_names,
)


@pytest.mark.parametrize("form", ["10", "11"])
def test_both_releases_give_the_same_layers(form: Form) -> None:
    info = parse_layer_info(example_files("int8", form).layers)
    assert (info.form, info.ends, info.detailed) == (form, ("image", "score"), True)
    conv = next(layer for layer in info.layers if layer.name.startswith("node_conv2d_1 "))
    assert conv.onnx_nodes == ("node_conv2d_1", "node_relu_1")
    assert (conv.computed_type, conv.inputs[0].type, conv.stream) == ("Int8", "Int8", 0)
    assert conv.inputs[0].shape == (16, 32, 512, 512)
    assert "Thirty-two wide" in conv.inputs[0].format
    assert conv.outputs[0].bytes == 16 * 32 * 512 * 512
    assert conv.weight_count == 9 * 32 * 32
    copies = [layer for layer in info.layers if layer.is_copy]
    assert copies[0].onnx_nodes == ("node_conv2d",)
    assert (copies[0].inputs[0].type, copies[0].outputs[0].type) == ("UInt8", "Half")


@pytest.mark.parametrize("form", ["10", "11"])
@pytest.mark.parametrize("other", ["10", "11"])
def test_what_is_written_reads_the_same_in_either_form(form: Form, other: Form) -> None:
    info = parse_layer_info(example_files("fp16", form).layers)
    for bare in (True, False):
        text = layers_json(info, other, bare=bare)
        again = parse_layer_info(text)
        assert again.layers == info.layers
        value = json.loads(text)
        assert isinstance(value, list) is bare
        tensor = (value if bare else value["Layers"])[0]["Inputs"][0]
        assert ("Format/Datatype" in tensor) == (other == "10")
        assert {"Format", "Datatype"} <= set(tensor) or other == "10"
    assert again.form == other
    assert again.ends == info.ends
    assert value.get("Bindings") == (["image", "score"] if other == "10" else None)
    if other == "11":
        first = value["I/O Tensors"][0]
        assert (first["Name"], first["IOMode"]) == ("image", "Input")
        assert (first["DataType"], first["Dimensions"]) == ("UInt8", [16, 1, 512, 512])


def test_an_engine_without_detailed_verbosity_has_names_only() -> None:
    text = '{"Layers": ["Reformatting CopyNode for Input Tensor 0 to a", "a + b"], "Bindings": []}'
    info = parse_layer_info(text)
    assert not info.detailed
    assert [layer.is_copy for layer in info.layers] == [True, False]
    assert info.layers[1].onnx_nodes == ("a", "b")


@given(st.lists(st.sampled_from(["a", "b", "c"]), max_size=20))
def test_names_become_unique_and_the_first_keeps_its_own(names: list[str]) -> None:
    unique = unique_names(names)
    assert len(set(unique)) == len(names)
    for name in set(names):
        assert unique[names.index(name)] == name


def layer(**fields: Any) -> str:
    return json.dumps([{"Name": "a", "LayerType": "x", "Inputs": [], "Outputs": [], **fields}])


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{}", "expected a list of layers"),
        ("[]", "expected a list of layers"),
        ("[" * 100 + "]" * 100, "nested"),
        ('[{"Name": "a", "Name": "b"}]', "twice"),
        ("[NaN]", "not JSON"),
        ("[3]", "neither an object nor a name"),
        ('[{"LayerType": "x"}]', "has no name"),
        (layer(LayerType=7), "LayerType of layer 'a' is not a text"),
        (layer(Inputs={}), "tensors of layer 'a' are not a list"),
        (layer(Inputs=["x"]), "not an object"),
        (layer(Inputs=[{"Name": "x", "Dimensions": ["y"]}]), "no list of dimensions"),
        ('{"Layers": ["a"], "Bindings": "image"}', "inputs and outputs are not a list"),
    ],
)
def test_other_files_are_refused_in_one_line(text: str, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "layers.json"
    path.write_text(text)
    with pytest.raises(DataError, match=reason) as caught:
        read_layer_info(path)
    assert "trtexec --exportLayerInfo" in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(DataError, match="cannot be read"):
        read_layer_info(tmp_path / "missing.json")


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda inner: (
    st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["Layers", "Name", "Inputs", "Dimensions", "Bindings", "I/O Tensors"]),
        inner, max_size=4,
    )
)))  # fmt: skip
def test_any_json_is_read_or_refused(value: Any) -> None:
    with contextlib.suppress(ValueError):
        parse_layer_info(json.dumps(value))
