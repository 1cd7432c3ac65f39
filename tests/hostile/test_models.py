"""Models as an attack: what must not reach a runtime, and what is tried elsewhere first."""

from __future__ import annotations

import os
import shutil
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from tests.hostile.mutate import small_graph
from tinyunet_deploy.artifacts.onnx_guard import check_onnx_file
from tinyunet_deploy.artifacts.sidecar import (
    Artifact,
    Sidecar,
    digest,
    write_artifact,
)
from tinyunet_deploy.backends import sandbox, sandbox_process
from tinyunet_deploy.backends.registry import open_backend
from tinyunet_deploy.backends.tensorrt import TensorRTBackend
from tinyunet_deploy.contract import Contract
from tinyunet_deploy.errors import ArtifactError

WHERE = Path("net.onnx")
NAN, INF = float("nan"), float("inf")


def described(path: Path, model: onnx.ModelProto, contract: Contract | None = None) -> Path:
    """A model with a sidecar that fits it, as an attacker would write one."""
    data = model.SerializeToString()
    sidecar = Sidecar("onnx", "fp32", digest(data), None, contract or Contract(16, 16))
    write_artifact(path, data, sidecar)
    return path


def initializer(model: onnx.ModelProto, name: str) -> onnx.TensorProto:
    return next(tensor for tensor in model.graph.initializer if tensor.name == name)


def raw(value: float) -> onnx.ModelProto:
    model = small_graph()
    weight = numpy_helper.to_array(initializer(model, "weight")).copy()
    weight[0, 0, 1, 1] = value
    initializer(model, "weight").CopyFrom(numpy_helper.from_array(weight, "weight"))
    return model


def listed(value: float) -> onnx.ModelProto:
    model = small_graph()
    initializer(model, "bias").CopyFrom(helper.make_tensor("bias", TensorProto.FLOAT, [1], [value]))
    return model


def half(value: float) -> onnx.ModelProto:
    model = small_graph()
    initializer(model, "half").CopyFrom(
        numpy_helper.from_array(np.array([value], np.float16), "half")
    )
    return model


def listed_half(value: float) -> onnx.ModelProto:
    model = small_graph()
    kind = TensorProto.FLOAT16
    initializer(model, "half").CopyFrom(helper.make_tensor("half", kind, [2], [1.0, value]))
    return model


def brain(value: float) -> onnx.ModelProto:
    model = small_graph()
    bits = np.array([np.float32(value).view(np.uint32) >> 16], np.uint16).tobytes()
    initializer(model, "half").CopyFrom(
        helper.make_tensor("half", TensorProto.BFLOAT16, [1], bits, raw=True)
    )
    return model


def double(value: float) -> onnx.ModelProto:
    model = small_graph()
    model.graph.initializer.append(
        helper.make_tensor("more", TensorProto.DOUBLE, [2], [0.0, value])
    )
    return model


def constant(value: float) -> onnx.ModelProto:
    model = small_graph()
    tensor = numpy_helper.from_array(np.float32(value))
    model.graph.node.insert(0, helper.make_node("Constant", [], ["c"], "constant", value=tensor))
    return model


def constant_float(value: float) -> onnx.ModelProto:
    model = small_graph()
    node = helper.make_node("Constant", [], ["c"], "constant", value_floats=[0.0, value])
    model.graph.node.insert(0, node)
    return model


def branch(value: float) -> onnx.ModelProto:
    model = small_graph()
    inner = onnx.GraphProto(name="then")
    inner.initializer.append(numpy_helper.from_array(np.float32([value]), "inside"))
    model.graph.node.append(
        helper.make_node("If", ["c"], ["d"], "if", then_branch=inner, else_branch=inner)
    )
    return model


def sparse(value: float) -> onnx.ModelProto:
    model = small_graph()
    values = numpy_helper.from_array(np.float32([value]), "few")
    places = numpy_helper.from_array(np.array([3]), "places")
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, places, [9]))
    return model


FORMS = [raw, listed, half, listed_half, brain, double, constant, constant_float, branch, sparse]


@pytest.mark.parametrize("form", FORMS)
def test_weights_that_are_not_finite_are_refused_wherever_they_are(
    form: Callable[[float], onnx.ModelProto],
) -> None:
    assert check_onnx_file(form(0.25).SerializeToString(), WHERE) == Contract(16, 16)
    for value in (NAN, INF, -INF):
        with pytest.raises(ArtifactError, match="has values that are not finite"):
            check_onnx_file(form(value).SerializeToString(), WHERE)


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_a_model_of_nan_is_not_run_even_with_a_sidecar_that_fits(
    tmp_path: Path, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = described(tmp_path / "net.onnx", raw(NAN))
    monkeypatch.setattr("tinyunet_deploy.backends.registry.load", lambda *_: pytest.fail("loaded"))
    with pytest.raises(ArtifactError, match="the tensor weight has values that are not finite"):
        open_backend(path, backend)


def beside(folder: Path) -> str:
    return "weight.bin"


def above(folder: Path) -> str:
    shutil.move(folder / "weight.bin", folder.parent / "weight.bin")
    return "../weight.bin"


def absolute(folder: Path) -> str:
    return str(folder / "weight.bin")


def linked(folder: Path) -> str:
    (folder / "link.bin").symlink_to("weight.bin")
    return "link.bin"


def doubled(folder: Path) -> str:
    os.link(folder / "weight.bin", folder / "second.bin")
    return "second.bin"


def device(folder: Path) -> str:
    return "/dev/zero"


def passwd(folder: Path) -> str:
    return "../../etc/passwd"


@pytest.mark.parametrize("place", [beside, above, absolute, linked, doubled, device, passwd])
@pytest.mark.parametrize("in_node", [False, True])
def test_weights_in_another_file_are_refused_wherever_it_lies(
    tmp_path: Path, place: Callable[[Path], str], in_node: bool
) -> None:
    folder = tmp_path / "models"
    folder.mkdir()
    (folder / "weight.bin").write_bytes(bytes(36))
    model = small_graph()
    tensor = initializer(model, "weight")
    if in_node:
        kept = onnx.TensorProto()
        kept.CopyFrom(tensor)
        model.graph.node.insert(0, helper.make_node("Constant", [], ["c"], "c", value=kept))
        tensor = model.graph.node[0].attribute[0].t
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=place(folder))
    path = described(folder / "net.onnx", model)
    with pytest.raises(ArtifactError, match=r"lies in another file: export with external_data="):
        open_backend(path, "onnxruntime")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"ONNX",
        b'<?xml version="1.0"?><net name="ir" version="11"></net>',
        b"\x1c\0\0\0ORTM" + bytes(100),
        b"\x80\x04\x95" + bytes(50),
        b"PK\3\4" + bytes(50),
        small_graph().SerializeToString()[:-3],
        small_graph().SerializeToString() * 2,
    ],
    ids=["empty", "text", "openvino-ir", "ort-format", "pickle", "zip", "cut", "twice"],
)
def test_other_formats_that_a_runtime_would_take_are_refused(data: bytes) -> None:
    with pytest.raises(ArtifactError, match="is not a usable ONNX file"):
        check_onnx_file(data, WHERE)


def test_a_file_of_endless_fields_is_refused_in_bounded_time() -> None:
    with pytest.raises(ArtifactError, match="more than 300000 fields"):
        check_onnx_file(b"\x08\x01" * 400_000, WHERE)
    nested = b""
    for _ in range(2000):
        nested = b"\x0a" + varint(len(nested) + 2) + b"\x32" + varint(len(nested)) + nested
    with pytest.raises(ArtifactError):
        check_onnx_file(b"\x3a" + varint(len(nested)) + nested, WHERE)


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def ends(model: onnx.ModelProto, **change: object) -> onnx.ModelProto:
    for value in (*model.graph.input, *model.graph.output):
        tensor = value.type.tensor_type
        if "kind" in change:
            tensor.elem_type = change["kind"]
        if "batch" in change:
            tensor.shape.dim[0].dim_value = change["batch"]
        if "height" in change:
            tensor.shape.dim[2].dim_value = change["height"]
    return model


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"kind": TensorProto.FLOAT}, "its input image is not uint8"),
        ({"batch": 4}, "with a free N"),
        ({"height": -16}, "height and width of its image are not fixed"),
    ],
)
def test_a_graph_that_takes_something_else_is_refused(
    change: dict[str, object], words: str
) -> None:
    with pytest.raises(ArtifactError, match=words):
        check_onnx_file(ends(small_graph(), **change).SerializeToString(), WHERE)


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_a_score_of_another_shape_is_refused_not_written_as_a_mask(
    tmp_path: Path, name: str
) -> None:
    model = small_graph()
    model.graph.initializer.append(numpy_helper.from_array(np.float32([1, 1, 2, 2]), "scales"))
    first = model.graph.node[0]
    first.output[0] = "small"
    model.graph.node.insert(1, helper.make_node("Resize", ["small", "", "scales"], ["x"], "resize"))
    model.graph.output[0].type.tensor_type.shape.dim[2].dim_value = 32
    model.graph.output[0].type.tensor_type.shape.dim[3].dim_value = 32
    path = described(tmp_path / "net.onnx", model)
    said = r"gives uint8 \[1, 1, 32, 32\] for uint8 \[1, 1, 16"
    image = np.zeros((1, 1, 16, 16), np.uint8)
    with open_backend(path, name) as backend:
        with pytest.raises(ArtifactError, match=said):
            backend.run(image)
        with pytest.raises(ArtifactError, match=said):
            list(backend.run_many([image, image]))


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_a_model_without_a_sidecar_is_tried_elsewhere_and_needs_trust(
    tmp_path: Path, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "net.onnx"
    onnx.save(small_graph(), path)
    with pytest.raises(ArtifactError, match="has no sidecar, so nothing is known about it"):
        open_backend(path, backend)
    (tmp_path / "numpy.py").write_text("raise SystemExit('a file of the current folder was run')")
    monkeypatch.chdir(tmp_path)
    with open_backend(path, backend, trust_engine=True) as loaded:
        assert loaded.artifact.sidecar.precision == "fp32", "read from the graph"
        assert loaded.contract == Contract(16, 16)
        assert loaded.run(np.zeros((2, 1, 16, 16), np.uint8)).score.shape == (2, 1, 16, 16)
    path.with_name("net.onnx.json").write_text("{}")
    with pytest.raises(ArtifactError, match="is not a valid sidecar"):
        open_backend(path, backend, trust_engine=True)


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("operator", ["RandomNormalLike", "RandomUniformLike"])
def test_a_model_with_random_numbers_is_refused_however_much_it_is_trusted(
    operator: str, backend: str, tmp_path: Path
) -> None:
    model = small_graph()
    node = helper.make_node(operator, ["y"], ["random"], "random")
    sigmoid = model.graph.node[2]
    sigmoid.input[:] = ["random"]
    model.graph.node.insert(2, node)
    onnx.save(model, tmp_path / "net.onnx")
    with pytest.raises(ArtifactError, match="other scores for the same image a second time"):
        open_backend(tmp_path / "net.onnx", backend, trust_engine=True)


def foreign(model: onnx.ModelProto) -> Artifact:
    data = model.SerializeToString()
    return sandbox_process.unknown(WHERE, data, check_onnx_file(data, WHERE))


def endless() -> onnx.ModelProto:
    """Adds 1 to a number without an end before it answers."""
    model = small_graph()
    body = helper.make_graph(
        [
            helper.make_node("Add", ["number", "step"], ["next"]),
            helper.make_node("Identity", ["on"], ["still"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("turn", TensorProto.INT64, []),
            helper.make_tensor_value_info("on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("number", TensorProto.FLOAT, []),
        ],
        [
            helper.make_tensor_value_info("still", TensorProto.BOOL, []),
            helper.make_tensor_value_info("next", TensorProto.FLOAT, []),
        ],
        [numpy_helper.from_array(np.float32(0), "step")],
    )
    for name, value in (
        ("turns", np.int64(2**62)),
        ("true", np.bool_(True)),
        ("zero", np.float32(0)),
    ):
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
    nodes = [
        helper.make_node("Loop", ["turns", "true", "zero"], ["sum"], "loop", body=body),
        helper.make_node("Add", ["x", "sum"], ["x2"], "add"),
    ]
    for place, node in enumerate(nodes, start=1):
        model.graph.node.insert(place, node)
    model.graph.node[3].input[0] = "x2"
    return model


def enormous() -> onnx.ModelProto:
    """Asks for 16 GiB in the middle."""
    model = small_graph()
    size = numpy_helper.from_array(np.array([1, 1, 2**16, 2**16]), "size")
    model.graph.initializer.append(size)
    model.graph.initializer.append(numpy_helper.from_array(np.array([2, 3]), "axes"))
    nodes = [
        helper.make_node("ConstantOfShape", ["size"], ["huge"], "huge"),
        helper.make_node("ReduceMean", ["huge"], ["mean"], "mean"),
        helper.make_node("Add", ["x", "mean"], ["x2"], "add"),
    ]
    for place, node in enumerate(nodes, start=1):
        model.graph.node.insert(place, node)
    model.graph.node[4].input[0] = "x2"
    return model


def test_a_trial_ends_what_does_not_end() -> None:
    sandbox.try_model(foreign(small_graph()), "onnxruntime")
    with pytest.raises(ArtifactError, match="took more than 2 s"):
        sandbox.try_model(foreign(endless()), "onnxruntime", seconds=2)


@pytest.mark.parametrize("nested", [False, True], ids=["main graph", "in a branch"])
def test_a_loop_is_tried_whoever_wrote_its_sidecar(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nested: bool
) -> None:
    """It would run for ever in this process; the sidecar fits the file to the letter."""
    monkeypatch.setattr(sandbox.try_model, "__kwdefaults__", {"seconds": 1, "memory_mib": 4096})
    model = endless()
    if nested:
        loop = model.graph.node[1]
        branch = helper.make_graph(
            [loop], "branch", [], [helper.make_tensor_value_info("sum", TensorProto.FLOAT, [])]
        )
        chosen = helper.make_node(
            "If", ["true"], ["sum"], "if", then_branch=branch, else_branch=branch
        )
        model.graph.node[1].CopyFrom(chosen)
    path = described(tmp_path / "net.onnx", model)
    for backend in ("onnxruntime", "openvino"):
        with pytest.raises(ArtifactError, match=r"was tried and"):
            open_backend(path, backend)


def test_a_bounded_graph_with_a_sidecar_is_not_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sandbox, "try_model", lambda *_: pytest.fail("two seconds for nothing"))
    open_backend(described(tmp_path / "net.onnx", small_graph()), "onnxruntime").close()


def enlarged() -> onnx.ModelProto:
    """A constant of one value, enlarged to 16 GiB: folded as the file is loaded."""
    model = small_graph()
    for name, values in (("one", np.ones((1, 1, 1, 1))), ("scales", [1, 1, 2**16, 2**16])):
        model.graph.initializer.append(numpy_helper.from_array(np.float32(values), name))
    nodes = [
        helper.make_node("Resize", ["one", "", "scales"], ["huge"], "huge", mode="nearest"),
        helper.make_node("MaxPool", ["huge"], ["pool"], "pool", kernel_shape=[1, 1],
                         strides=[2**16, 2**16]),
        helper.make_node("Add", ["x", "pool"], ["x2"], "add"),
    ]  # fmt: skip
    for place, node in enumerate(nodes, start=1):
        model.graph.node.insert(place, node)
    model.graph.node[4].input[0] = "x2"
    return model


def doubled_again() -> onnx.ModelProto:
    """The image beside itself, 40 times over."""
    model = small_graph()
    for number in range(40):
        names = [f"x{number}" if number else "x"] * 2
        node = helper.make_node("Concat", names, [f"x{number + 1}"], f"d{number}", axis=1)
        model.graph.node.insert(1 + number, node)
    model.graph.node[41].input[0] = "x40"
    return model


@pytest.mark.parametrize("model", [enormous, enlarged, doubled_again])
@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_with_a_sidecar_too_a_model_takes_bounded_memory(
    tmp_path: Path, backend: str, model: Callable[[], onnx.ModelProto],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Only the process in which it is tried may load it, and that has 4 GiB and 60 s."""
    monkeypatch.setattr("tinyunet_deploy.backends.registry.load", lambda *_: pytest.fail("loaded"))
    monkeypatch.setattr(sandbox.try_model, "__kwdefaults__", {"seconds": 30, "memory_mib": 2048})
    path = described(tmp_path / "net.onnx", model())
    with pytest.raises(ArtifactError, match="was tried and"):
        open_backend(path, backend)


def field(number: int, data: bytes) -> bytes:
    """A length-delimited field of a protobuf message."""
    size, length = len(data), b""
    while size > 0x7F:
        length += bytes([size & 0x7F | 0x80])
        size >>= 7
    return bytes([number << 3 | 2]) + length + bytes([size]) + data


NAN32 = np.float32(np.nan).tobytes()
FLOAT_NAN = b"\x10\x01" + field(9, NAN32)
SPLIT_TENSORS = {
    "type first, then bytes": [b"\x10\x01", field(9, NAN32)],
    "bytes first, then type": [field(9, NAN32), b"\x10\x01"],
    "another type first": [b"\x10\x07" + field(9, NAN32), b"\x10\x01"],
    "good, then bad": [b"\x10\x01" + field(9, bytes(4)), field(9, NAN32)],
    "whole": [FLOAT_NAN],
    "E4M3FN": [b"\x10\x11" + field(9, b"\x7f")],
    "E4M3FNUZ": [b"\x10\x12" + field(9, b"\x80")],
    "E5M2 infinity": [b"\x10\x13" + field(9, b"\x7c")],
    "E5M2 NaN": [b"\x10\x13" + field(9, b"\xff")],
    "E5M2FNUZ": [b"\x10\x14" + field(9, b"\x80")],
    "E8M0": [b"\x10\x18" + field(9, b"\xff")],
    "E4M3FN as a number": [b"\x10\x11\x28\x7f"],
    "E5M2 as packed numbers": [b"\x10\x13" + field(5, b"\x01\xfc\x01")],
    "float16 as a number": [b"\x10\x0a\x28\x80\xf8\x01"],
    "bfloat16 as packed numbers": [b"\x10\x10" + field(5, b"\x01\x80\xff\x01")],
}


@pytest.mark.parametrize("parts", SPLIT_TENSORS.values(), ids=SPLIT_TENSORS.keys())
def test_what_is_not_finite_is_found_however_its_field_is_written(parts: list[bytes]) -> None:
    """A message that is given several times is one message to a runtime, its parts joined."""
    attribute = field(1, b"value") + b"".join(field(5, part) for part in parts)
    node = field(4, b"Constant") + field(2, b"c") + field(5, attribute)
    graph = small_graph().graph.SerializeToString()
    broken = field(7, graph + field(1, node)) + field(8, b"\x10\x12")
    with pytest.raises(ArtifactError, match="values that are not finite"):
        check_onnx_file(broken, WHERE)


@settings(max_examples=200)
@given(values=st.lists(st.integers(0, 0xFFFF), max_size=20))
def test_halves_written_as_numbers_are_judged_as_numpy_judges_them(values: list[int]) -> None:
    tensor = onnx.TensorProto(data_type=10, dims=[len(values)], int32_data=values, name="t")
    model = small_graph()
    model.graph.initializer.append(tensor)
    finite = bool(np.isfinite(np.array(values, np.uint16).view(np.float16)).all())
    if finite:
        check_onnx_file(model.SerializeToString(), WHERE)
    else:
        with pytest.raises(ArtifactError, match="the tensor t has values that are not finite"):
            check_onnx_file(model.SerializeToString(), WHERE)


def test_the_check_of_a_large_file_takes_little_memory() -> None:
    """20 MB of half floats, written as numbers, took 800 MB and 18 s."""
    count = 7_000_000
    tensor = b"\x10\x0a" + field(5, b"\x80\x80\x01" * count) + field(8, b"t")
    graph = small_graph().graph.SerializeToString()
    data = field(7, graph + field(5, tensor)) + field(8, b"\x10\x12")
    tracemalloc.start()
    try:
        check_onnx_file(data, WHERE)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 20 * count, "bytes"
    many = field(5, b"".join(b"\x28\x01" for _ in range(400_000)))
    with pytest.raises(ArtifactError, match="more than 300000 fields"):
        check_onnx_file(field(7, graph + many), WHERE)


def test_a_trial_bears_what_takes_all_memory() -> None:
    with pytest.raises(ArtifactError, match="was tried and "):
        sandbox.try_model(foreign(enormous()), "onnxruntime", memory_mib=2048)


def test_a_trial_bears_a_crash(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sandbox.sys, "executable", str(tmp_path / "python"))
    (tmp_path / "python").write_text("#!/bin/sh\nkill -SEGV $$\n")
    (tmp_path / "python").chmod(0o755)
    with pytest.raises(ArtifactError, match="was tried and ended its process with SIGSEGV"):
        sandbox.try_model(foreign(small_graph()), "onnxruntime")


@pytest.mark.parametrize(
    "origin", [{}, {"recipe": "demo"}, {"tensorrt": {"flavour": "tensorrt", "version": "10"}}]
)
def test_a_plan_whose_sidecar_does_not_say_where_it_was_built_is_not_loaded(
    origin: dict[str, object],
) -> None:
    sidecar = Sidecar("plan", "fp16", digest(b"plan"), "0" * 64, Contract(), origin=origin)
    with pytest.raises(ArtifactError, match="does not say which TensorRT and GPU"):
        TensorRTBackend(Artifact(Path("net.plan"), b"plan", sidecar), tensorrt=None, gpu=None)


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_a_graph_that_fails_as_it_runs_is_refused_in_one_line(tmp_path: Path, backend: str) -> None:
    model = small_graph()
    bias = numpy_helper.from_array(np.zeros(3, np.float32), "bias")
    initializer(model, "bias").CopyFrom(bias)
    path = described(tmp_path / "net.onnx", model)
    with pytest.raises(ArtifactError) as caught, open_backend(path, backend) as loaded:
        loaded.run(np.zeros((1, 1, 16, 16), np.uint8))
        pytest.fail("three biases for one channel")
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)
