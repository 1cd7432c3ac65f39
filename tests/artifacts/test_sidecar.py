from __future__ import annotations

import contextlib
import copy
import dataclasses
import json
import os
import shutil
import socket
import stat
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from tinyunet_deploy.artifacts.facts import NetworkFacts, PlanFacts, PrecisionAudit, Profile
from tinyunet_deploy.artifacts.lineage import lineage, parent_place
from tinyunet_deploy.artifacts.sidecar import (
    DEFAULT_CHECKPOINT,
    MAX_BYTES,
    Sidecar,
    digest,
    parse_sidecar,
    read_artifact,
    read_sidecar,
    sidecar_path,
    trusted,
    write_artifact,
    write_sidecar,
)
from tinyunet_deploy.artifacts.sidecar_schema import _digest_of_fields, _warn_if_all_pass
from tinyunet_deploy.contract import Contract
from tinyunet_deploy.errors import ArtifactError

DATA = b"the bytes of a model" * 5
REBUILD = {
    ".safetensors": "train it again in a clone of the repository: "
    "python -m training --data DATA --output FOLDER",
    ".onnx": "export it again in a clone of the repository: "
    "python -m export CHECKPOINT --output {path}; "
    "another network's: tinyunet adopt ORIGINAL.onnx --output {path}",
    ".plan": "build it again: tinyunet build MODEL.onnx --output {path}",
}
PLAN = PlanFacts(
    "tensorrt",
    "11.4.0.106",
    None,
    "8.6",
    Profile(1, 2, 8),
    "tinyunet build model.onnx",
    PrecisionAudit({"encoder.0.0": "Half"}, {"encoder.0.0": "Half"}),
    size_bytes=100,
    build_s=1.5,
)
KINDS: dict[str, Any] = {".safetensors": "checkpoint", ".onnx": "onnx", ".plan": "plan"}


def describe(data: bytes, suffix: str = ".onnx") -> Sidecar:
    return Sidecar(
        kind=KINDS[suffix],
        precision="fp16",
        sha256=digest(data),
        parent=digest(b"parent"),
        contract=Contract(64, 128, max_batch=8),
        threshold=0.35,
        min_area=12,
        origin={"recipe": "demo", "versions": {"onnx": "1"}, "名": [1, 2.5, None]},
        network=NetworkFacts("tiny", 16, 107, 122),
        tuned_on=(digest(b"an image"),),
        kept_in_float32=("logit",),
        plan=PLAN if suffix == ".plan" else None,
        step=2000,
    )


@pytest.fixture(params=list(REBUILD))
def model(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """An artifact of each kind."""
    path = tmp_path / f"model{request.param}"
    write_artifact(path, DATA, describe(DATA, request.param))
    return path


def refusal(path: Path) -> str:
    """The error, which ends in the command that makes the artifact again."""
    with pytest.raises(ArtifactError) as caught:
        read_artifact(path)
    assert caught.value.exit_code == 4
    assert caught.value.hint == REBUILD[path.suffix].format(path=path)
    line = str(caught.value)
    assert "\n" not in line
    assert line.endswith(f"({caught.value.hint})")
    return line


def edit(path: Path, **changes: Any) -> None:
    """Change fields of a sidecar as someone would who knows its digest; None takes one out."""
    fields = json.loads(sidecar_path(path).read_bytes())
    del fields["sidecar_sha256"]
    fields |= changes
    kept = {key: value for key, value in fields.items() if value is not None}
    with contextlib.suppress(ValueError):  # NaN has no digest
        kept.setdefault("sidecar_sha256", _digest_of_fields(kept))
    sidecar_path(path).write_text(json.dumps(kept))


def test_what_was_written_is_read(model: Path) -> None:
    artifact = read_artifact(model)
    assert artifact.path == model
    assert artifact.data == DATA
    assert artifact.sidecar == describe(DATA, model.suffix)
    assert read_sidecar(model) == artifact.sidecar
    assert sorted(path.name for path in model.parent.iterdir()) == [
        model.name,
        model.name + ".json",
    ]


def test_the_sidecar_is_json_that_says_its_version(model: Path) -> None:
    fields = json.loads(sidecar_path(model).read_text())
    assert fields["schema_version"] == 2
    assert fields["contract"] == {"height": 64, "width": 128, "max_batch": 8}
    assert fields["sha256"] == digest(DATA)
    assert json.loads(describe(DATA, model.suffix).as_json()) == fields


def test_it_is_written_to_a_new_folder_and_over_an_old_one(tmp_path: Path) -> None:
    path = tmp_path / "new" / "deep" / "model.onnx"
    for data in (DATA, b"a newer model"):
        write_artifact(path, data, describe(data))
        assert read_artifact(path).data == data


def test_bytes_and_description_that_do_not_belong_together_are_never_written(
    tmp_path: Path,
) -> None:
    with pytest.raises(ValueError, match="other bytes"):
        write_artifact(tmp_path / "model.onnx", DATA + b"!", describe(DATA))
    assert list(tmp_path.iterdir()) == []


def test_a_write_that_dies_between_the_two_files_leaves_what_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "model.onnx"
    write_artifact(path, DATA, describe(DATA))
    really_replace = os.replace

    def replace(temporary: str, target: Path) -> None:
        if Path(target).suffix == ".onnx":
            raise KeyboardInterrupt
        really_replace(temporary, target)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(os, "replace", replace)
        write_artifact(path, b"a newer model", describe(b"a newer model"))
    assert "is not the file that its sidecar describes" in refusal(path)


def test_a_missing_model(model: Path) -> None:
    model.unlink()
    assert f"{model}: does not exist (" in refusal(model)
    sidecar_path(model).unlink()
    assert f"{model}: does not exist (" in refusal(model), "and not: it has no sidecar"


def test_a_missing_sidecar_ends_in_a_command_for_a_file_of_others(model: Path) -> None:
    """Not in one of ours: whoever has it may have no checkpoint, and no clone of the repository."""
    sidecar_path(model).unlink()
    with pytest.raises(ArtifactError) as caught:
        read_artifact(model)
    line = str(caught.value)
    assert {
        ".safetensors": "has no sidecar, so it is not a checkpoint of this package",
        ".onnx": "is not a usable ONNX file",
        ".plan": "has no sidecar, so nothing is known about it",
    }[model.suffix] in line
    assert {
        ".safetensors": "torch.onnx.export(",
        ".onnx": f"tinyunet adopt {model}",
        ".plan": "--trust-engine",
    }[model.suffix] in line
    assert "python -m" not in line


def test_weights_that_are_not_finite_are_the_reason_and_not_the_sidecar(tmp_path: Path) -> None:
    weights = helper.make_tensor("w", TensorProto.FLOAT, [1], [float("nan")])
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("a", "b")]
    nodes = [helper.make_node("Add", ["a", "w"], ["b"])]
    graph = helper.make_graph(nodes, "other", ends[:1], ends[1:], [weights])
    path = tmp_path / "other.onnx"
    path.write_bytes(helper.make_model(graph).SerializeToString())
    with pytest.raises(ArtifactError) as caught:
        read_artifact(path)
    assert caught.value.what.endswith("the tensor w has values that are not finite")
    assert f"then tinyunet adopt {path} -o" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "way"),
    [
        ("net.pth", r"a PyTorch file.* torch.onnx.export\(.* tinyunet adopt NAME.onnx"),
        ("net.h5", "a Keras file .*tf2onnx"),
        ("net.tflite", "TensorFlow Lite .*tf2onnx"),
    ],
)
def test_a_model_of_another_framework_ends_in_the_way_to_onnx(
    tmp_path: Path, name: str, way: str
) -> None:
    (tmp_path / name).write_bytes(DATA)
    with pytest.raises(ArtifactError, match=way):
        read_artifact(tmp_path / name)


@pytest.mark.parametrize("name", ["model.engine", "model", "model.onnx.json"])
def test_a_foreign_suffix(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(DATA)
    with pytest.raises(ArtifactError, match=r"by its suffix \(known: .safetensors .onnx .plan\)"):
        read_artifact(tmp_path / name)


def test_a_folder_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").mkdir()
    with pytest.raises(ArtifactError, match="cannot be read"):
        read_artifact(tmp_path / "model.onnx")


def test_swapped_models(tmp_path: Path) -> None:
    paths = [tmp_path / "day.onnx", tmp_path / "night.onnx"]
    for path in paths:
        data = path.name.encode()
        write_artifact(path, data, describe(data))
    shutil.move(paths[0], tmp_path / "held")
    shutil.move(paths[1], paths[0])
    shutil.move(tmp_path / "held", paths[1])
    for path in paths:
        assert "is not the file that its sidecar describes" in refusal(path)


def test_a_sidecar_of_another_kind(tmp_path: Path) -> None:
    write_artifact(tmp_path / "a.onnx", DATA, describe(DATA))
    shutil.copy(tmp_path / "a.onnx", tmp_path / "a.plan")
    shutil.copy(tmp_path / "a.onnx.json", tmp_path / "a.plan.json")
    assert "a.plan.json: is of kind onnx, not plan" in refusal(tmp_path / "a.plan")


@pytest.fixture(scope="module")
def one_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "model.onnx"
    write_artifact(path, DATA, describe(DATA))
    return path


@given(at=st.integers(0, len(DATA) - 1), value=st.integers(1, 255))
def test_any_changed_byte_is_refused(one_model: Path, at: int, value: int) -> None:
    path = one_model
    path.write_bytes(DATA[:at] + bytes([DATA[at] ^ value]) + DATA[at + 1 :])
    assert "is not the file that its sidecar describes" in refusal(path)
    path.write_bytes(DATA)
    assert read_artifact(path).data == DATA


@pytest.mark.parametrize("data", [b"", DATA[:-1], DATA + b"\0"])
def test_a_model_cut_or_grown_is_refused(model: Path, data: bytes) -> None:
    model.write_bytes(data)
    assert "is not the file that its sidecar describes" in refusal(model)


@pytest.mark.parametrize("version", [0, 3, "1", True, 1.0, None, [1]])
def test_another_schema_version(model: Path, version: Any) -> None:
    edit(model, schema_version=version)
    assert f"{sidecar_path(model)}: is " in refusal(model)


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "5", "null", '"text"', "\x00" * 30, "[" * 100_000, "NaN", "\ud800"],
)
def test_a_sidecar_that_is_junk(model: Path, text: str) -> None:
    sidecar_path(model).write_bytes(text.encode("utf-8", "surrogatepass"))
    assert "sidecar: " in refusal(model)


@pytest.mark.parametrize(
    "changes",
    [
        {"colour": "red"},
        {"kind": "engine"},
        {"kind": ["onnx"]},
        {"precision": "fp8"},
        {"precision": None},
        {"contract": None},
        {"contract": {"height": 64}, "sha256": None},
        {"contract": {"height": 65, "width": 64}},
        {"contract": {"height": 64.0, "width": 64}},
        {"contract": {"height": "64", "width": 64}},
        {"contract": {"height": 64, "width": 64, "depth": 1}},
        {"contract": {"height": 64, "width": 64, "max_batch": 0}},
        {"contract": [64, 64]},
        {"contract": {"height": 1 << 40, "width": 64}},
        {"sha256": "0" * 63},
        {"sha256": "G" * 64},
        {"sha256": 5},
        {"sha256": list("0" * 64)},
        {"sha256": []},
        {"parent": "unknown"},
        {"threshold": 1.5},
        {"threshold": "0.5"},
        {"min_area": 0},
        {"min_area": 2.5},
        {"origin": "a sunny day"},
        {"network": "tiny"},
        {"network": {"name": 5}},
        {"network": {"name": "tiny", "size_multiple": 0}},
        {"network": {"name": "tiny", "size_multiple": 16, "depth": 4}},
        {"network": {"name": "tiny", "size_multiple": 48}},
        {"network": {"name": "tiny", "reach_before": 7}},
        {"network": {"name": "tiny", "reach_before": -1, "reach_after": 3}},
        {"network": {"name": "tiny", "reach_before": 1.5, "reach_after": 3}},
        {"tuned_on": "0" * 64},
        {"tuned_on": [5]},
        {"kept_in_float32": [["encoder"]]},
        {"step": -1},
        {"step": "2000"},
        {"verified_batch": 0},
    ],
    ids=str,
)
def test_a_sidecar_with_impossible_values(model: Path, changes: dict[str, Any]) -> None:
    edit(model, **changes)
    assert f"{sidecar_path(model)}: is not a valid sidecar: " in refusal(model)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 10**400, 2**63])
@pytest.mark.parametrize("name", ["threshold", "min_area", "origin"])
def test_numbers_that_are_not_json_or_too_large_are_refused(
    model: Path, name: str, value: Any
) -> None:
    edit(model, **{name: {"iou": [value]} if name == "origin" else value})
    assert f"{sidecar_path(model)}: is not a readable sidecar: it has " in refusal(model)


def test_a_sidecar_with_its_own_digest_and_a_key_twice_is_refused(model: Path) -> None:
    """Python takes the last of the two, other readers the first."""
    text = sidecar_path(model).read_text()
    sidecar_path(model).write_text(text.replace("{", '{"threshold": 0.999,', 1))
    assert "it has the key 'threshold' twice" in refusal(model)


@pytest.mark.parametrize("depth", [300, 100_000])
def test_a_sidecar_with_a_deep_origin_is_refused(model: Path, depth: int) -> None:
    """300 levels are read, and then too many for the code that copies them."""
    deep = '{"a":' * depth + "1" + "}" * depth
    if depth < 1000:
        edit(model, origin=json.loads(deep))
    else:
        text = sidecar_path(model).read_text()
        sidecar_path(model).write_text(text.replace("{", f'{{"deep": {deep},', 1))
    assert "it is nested more than 64 deep" in refusal(model)


def test_an_error_does_not_quote_all_of_a_hostile_file(model: Path) -> None:
    edit(model, kind="x" * 1_000_000)
    assert len(refusal(model)) < 1000


def test_unknown_and_missing_fields_are_named(model: Path) -> None:
    edit(model, colour="red")
    assert "it has an unknown field 'colour'" in refusal(model)
    edit(model, colour=None, contract={"height": 64, "depth": 1})
    assert "contract has an unknown field 'depth'" in refusal(model)
    edit(model, contract=None)
    assert "it has no field 'contract'" in refusal(model)


def test_a_missing_field_of_the_network_is_named(model: Path) -> None:
    edit(model, network={"size_multiple": 16})
    assert "network has no field 'name'" in refusal(model)


@pytest.mark.parametrize(("height", "width", "fits"), [(8192, 8192, True), (8192, 8208, False)])
def test_images_have_at_most_64_megapixels(
    model: Path, height: int, width: int, fits: bool
) -> None:
    edit(model, contract={"height": height, "width": width}, network=None)
    if fits:
        assert read_sidecar(model).contract.width == width
    else:
        assert "images of 8208x8192 pixels are more than 67108864" in refusal(model)


@pytest.mark.parametrize(
    "changes",
    [
        {"flavour": ["tensorrt"]},
        {"version": 10},
        {"version": None},
        {"gpu_name": 5},
        {"compute_capability": None},
        {"profile": [1, 2, 3]},
        {"profile": {"min": "1", "opt": 1, "max": 1}},
        {"profile": {"min": 2, "opt": 1, "max": 4}},
        {"profile": {"min": 0, "opt": 1, "max": 4}},
        {"profile": None},
        {"rebuild": 5},
        {"audit": {"parsed_network": {"encoder": 5}, "engine": None}},
        {"audit": {"parsed_network": [], "engine": None}},
        {"audit": {"engine": None}},
        {"size_bytes": 1.5},
        {"build_s": "1"},
        {"colour": "red"},
    ],
    ids=str,
)
def test_impossible_facts_of_a_plan_are_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    path = tmp_path / "a.plan"
    write_artifact(path, DATA, describe(DATA, ".plan"))
    facts = json.loads(sidecar_path(path).read_bytes())["plan"]
    edit(path, plan={k: v for k, v in {**facts, **changes}.items() if v is not None})
    assert f"{sidecar_path(path)}: is not a valid sidecar: " in refusal(path)


def test_only_a_plan_has_facts_of_a_plan(tmp_path: Path) -> None:
    path = tmp_path / "a.onnx"
    write_artifact(path, DATA, dataclasses.replace(describe(DATA), plan=PLAN))
    assert "a onnx file has facts of a plan" in refusal(path)


def test_the_size_of_the_images_must_fit_the_network(tmp_path: Path) -> None:
    path = tmp_path / "a.onnx"
    sidecar = dataclasses.replace(describe(DATA), contract=Contract(64, 72))
    write_artifact(path, DATA, sidecar)
    assert "width 72 is not a multiple of 16" in refusal(path)
    write_artifact(path, DATA, dataclasses.replace(sidecar, network=None))
    assert read_artifact(path).sidecar.network is None, "nothing is known, nothing is refused"


def test_an_edited_hash_is_refused(model: Path) -> None:
    edit(model, sha256=digest(b"other bytes"))
    assert "is not the file that its sidecar describes" in refusal(model)


junk = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)
fields = st.sampled_from(
    ["schema_version", *(field.name for field in dataclasses.fields(Sidecar)), "other"]
)


@given(changes=st.dictionaries(fields, junk, min_size=1))
def test_any_sidecar_is_valid_or_refused(one_model: Path, changes: dict[str, Any]) -> None:
    sidecar_path(one_model).write_text(describe(DATA).as_json())
    edit(one_model, **changes)
    try:
        sidecar = read_sidecar(one_model)
    except ArtifactError:
        return
    assert (sidecar.kind, len(sidecar.sha256)) == ("onnx", 64)
    assert 0 <= sidecar.threshold <= 1 <= sidecar.min_area


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of every value inside a JSON value."""
    inner: Any = ()
    if isinstance(value, dict | list):
        inner = value.items() if isinstance(value, dict) else enumerate(value)
    return [path, *(place for key, part in inner for place in places(part, (*path, key)))]


SCHEMA_1 = {
    "schema_version": 1,
    "kind": "plan",
    "precision": "fp16",
    "sha256": digest(DATA),
    "parent": digest(b"parent"),
    "threshold": 0.9,
    "min_area": 64,
    "golden": None,
    "contract": {"height": 512, "width": 512, "max_batch": 16},
    "verified_batch": 8,
    "origin": {
        "tensorrt": {"flavour": "tensorrt", "version": "10.16.1.11"},
        "gpu": {"name": "NVIDIA L4", "compute_capability": "8.9"},
        "profile": {"min": 1, "opt": 8, "max": 16},
        "plan_bytes": 5,
        "tuned": {"rule": "least cost", "images": [digest(b"an image")]},
        "quantization": {"kept_in_float32": ["logit"]},
        "precision_audit": {"parsed_network": {"logit": "Half"}, "engine": None},
    },
}
WHOLE: list[dict[str, Any]] = [SCHEMA_1, json.loads(describe(DATA, ".plan").as_json())]


def test_pairs_in_place_of_a_table_are_refused() -> None:
    """``dict`` takes a list of pairs, and a key that JSON does not have."""
    fields = copy.deepcopy(SCHEMA_1)
    fields["origin"]["tuned"] = [[None, None]]
    fields["sidecar_sha256"] = _digest_of_fields(fields)
    with pytest.raises(ArtifactError, match=r"origin\.tuned is not a table"):
        parse_sidecar(json.dumps(fields), "a.json")


@settings(max_examples=400)
@given(data=st.data())
def test_a_sidecar_with_any_value_put_anywhere_is_valid_or_refused(data: st.DataObject) -> None:
    """Both schemas, with the digest that fits: as someone would write it who means harm."""
    fields = copy.deepcopy(data.draw(st.sampled_from(WHOLE)))
    fields.pop("sidecar_sha256", None)
    *path, last = data.draw(st.sampled_from([path for path in places(fields) if path]))
    parent: Any = fields
    for key in path:
        parent = parent[key]
    if isinstance(parent, dict) and data.draw(st.booleans()):
        last = "other"
    parent[last] = data.draw(junk)
    with contextlib.suppress(ValueError):  # NaN has no digest
        fields["sidecar_sha256"] = _digest_of_fields(fields)
    try:
        sidecar = parse_sidecar(json.dumps(fields), "a.json")
    except ArtifactError as error:
        assert "\n" not in str(error)
        return
    assert parse_sidecar(sidecar.as_json(), "a.json") == sidecar
    assert 0 <= sidecar.threshold <= 1 <= sidecar.min_area


@settings(max_examples=400)
@given(data=st.data())
def test_a_sidecar_with_other_bytes_anywhere_is_valid_or_refused(data: st.DataObject) -> None:
    text = json.dumps(data.draw(st.sampled_from(WHOLE))).encode()
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, min(len(text), start + 40)))
    with contextlib.suppress(ArtifactError):
        parse_sidecar(text[:start] + data.draw(st.binary(max_size=40)) + text[end:], "a.json")


def test_the_command_can_be_pasted_into_a_shell(tmp_path: Path) -> None:
    path = tmp_path / "my model's.onnx"
    with pytest.raises(ArtifactError) as caught:
        read_artifact(path)
    assert caught.value.hint is not None
    assert caught.value.hint.endswith("my model'\"'\"'s.onnx'")


BOUNDARIES: list[tuple[str, Any, bool]] = [
    ("threshold", 0.0, True),
    ("threshold", 1.0, True),
    ("threshold", -0.001, False),
    ("threshold", 1.001, False),
    ("min_area", 1, True),
    ("min_area", 0, False),
    ("min_area", True, False),
    ("verified_batch", 1, True),
    ("verified_batch", None, True),
    ("verified_batch", 0, False),
    ("verified_batch", -1, False),
    ("verified_batch", 2.0, False),
    ("verified_batch", True, False),
    ("golden", "a" * 64, True),
    ("golden", "a" * 63, False),
    ("parent", None, True),
]


@pytest.mark.parametrize(("field", "value", "valid"), BOUNDARIES)
def test_a_value_at_its_limit_is_read_and_one_past_it_refused(
    tmp_path: Path, field: str, value: Any, valid: bool
) -> None:
    path = tmp_path / "model.onnx"
    sidecar = dataclasses.replace(describe(DATA), **{field: value})
    write_artifact(path, DATA, sidecar)
    if valid:
        assert read_artifact(path).sidecar == sidecar
    else:
        assert f"{sidecar_path(path)}: is not a valid sidecar: {field}" in refusal(path)


def test_a_network_of_which_no_more_is_said_decides_by_one_half_and_any_pixel() -> None:
    sidecar = Sidecar("onnx", "fp32", digest(DATA), None, Contract())
    assert sidecar.decision() == (0.5, 1)


@pytest.mark.parametrize(
    ("given", "decision"),
    [
        ({}, (0.35, 12)),
        ({"threshold": 0.0}, (0.0, 12)),
        ({"min_area": 1}, (0.35, 1)),
        ({"threshold": 0.9, "min_area": 3}, (0.9, 3)),
    ],
)
def test_the_users_values_decide_before_those_of_the_artifact(
    given: dict[str, Any], decision: tuple[float, int]
) -> None:
    assert describe(DATA).decision(**given) == decision
    assert describe(DATA).decision(**given)._fields == ("threshold", "min_area")


@pytest.mark.parametrize(
    ("takes", "verified", "most"),
    [(None, None, None), (8, None, 8), (None, 4, 4), (8, 4, 4), (4, 8, 4)],
)
def test_the_largest_batch_is_what_the_file_takes_and_what_was_verified(
    takes: int | None, verified: int | None, most: int | None
) -> None:
    contract = Contract(64, 64, max_batch=takes)
    sidecar = dataclasses.replace(describe(DATA), contract=contract, verified_batch=verified)
    assert sidecar.max_batch == most


def test_a_sidecar_cannot_be_changed_after_it_was_checked(model: Path) -> None:
    artifact = read_artifact(model)
    with pytest.raises(dataclasses.FrozenInstanceError):
        artifact.sidecar.threshold = 0.0  # type: ignore[misc]
    with pytest.raises(dataclasses.FrozenInstanceError):
        artifact.data = b""  # type: ignore[misc]


def test_the_order_of_the_fields_in_the_file_says_nothing(model: Path) -> None:
    fields = json.loads(sidecar_path(model).read_bytes())
    sidecar_path(model).write_text(json.dumps(dict(reversed(fields.items()))))
    assert read_artifact(model).sidecar == describe(DATA, model.suffix)


def test_a_sidecar_is_text_that_people_read(model: Path) -> None:
    text = sidecar_path(model).read_text()
    assert '\n  "precision": "fp16",\n' in text
    assert '"名": ' in text
    assert text.endswith("}\n")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_figure_that_json_cannot_say_is_never_written(tmp_path: Path, value: float) -> None:
    sidecar = dataclasses.replace(describe(DATA), origin={"iou": value})
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_artifact(tmp_path / "model.onnx", DATA, sidecar)
    assert list(tmp_path.iterdir()) == []


def test_a_sidecar_of_more_than_16_mib_is_not_read(model: Path) -> None:
    text = sidecar_path(model).read_bytes()
    sidecar_path(model).write_bytes(text.ljust(16 << 20))
    assert read_sidecar(model) == describe(DATA, model.suffix)
    sidecar_path(model).write_bytes(text.ljust((16 << 20) + 1))
    assert f"{sidecar_path(model)}: is not a readable sidecar: " in refusal(model)


class NeverRead:
    """An open file that knows its size and cannot be read."""

    def __init__(self, *_: object, **__: object) -> None:
        self._file = os.memfd_create("large")
        os.truncate(self._file, MAX_BYTES + 1)

    def fileno(self) -> int:
        return self._file

    def __enter__(self) -> NeverRead:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._file)


def test_a_model_over_the_limit_is_refused_before_it_is_read(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.truncate(model, MAX_BYTES + 1)  # a hole: it takes no space on the disk
    monkeypatch.setattr("tinyunet_deploy.files.open", NeverRead, raising=False)
    for read in (read_artifact, trusted):
        with pytest.raises(ArtifactError) as caught:
            read(model)
        assert str(caught.value) == f"{model}: cannot be read: larger than {MAX_BYTES} bytes"


def test_a_small_file_takes_no_memory_of_the_limits_size(model: Path) -> None:
    tracemalloc.start()
    try:
        read_artifact(model)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1 << 20, "bytes"


@pytest.mark.parametrize("kind", ["fifo", "device", "socket", "loop"])
@pytest.mark.parametrize("which", ["model", "sidecar"])
def test_what_is_not_a_regular_file_is_not_opened(tmp_path: Path, kind: str, which: str) -> None:
    model = tmp_path / "model.onnx"
    write_artifact(model, DATA, describe(DATA))
    path = model if which == "model" else sidecar_path(model)
    path.unlink()
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as server:
        if kind == "fifo":
            os.mkfifo(path)
        elif kind == "socket":
            server.bind(str(path))
        else:
            path.symlink_to("/dev/zero" if kind == "device" else path)
        with pytest.raises(ArtifactError) as caught:
            read_artifact(model)
    assert str(caught.value).startswith(f"{path}: ")
    wanted = "Too many levels of symbolic links" if kind == "loop" else "not a regular file"
    assert wanted in str(caught.value)


def test_both_files_and_their_folder_are_on_the_disk_when_it_returns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced = []
    monkeypatch.setattr(
        os, "fsync", lambda file: synced.append(stat.S_IFMT(os.fstat(file).st_mode))
    )
    write_artifact(tmp_path / "model.onnx", DATA, describe(DATA))
    assert synced == [stat.S_IFREG, stat.S_IFDIR] * 2
    write_sidecar(tmp_path / "model.onnx", describe(DATA))
    assert synced == [stat.S_IFREG, stat.S_IFDIR] * 3


def test_a_trusted_file_is_its_bytes_and_nothing_else_is_known(model: Path) -> None:
    sidecar_path(model).unlink()
    artifact = trusted(model)
    assert (artifact.path, artifact.data) == (model, DATA)
    assert artifact.sidecar == Sidecar(
        KINDS[model.suffix], "unknown", digest(DATA), None, Contract()
    )


def test_a_trusted_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"model\.plan: does not exist"):
        trusted(tmp_path / "model.plan")
    with pytest.raises(ArtifactError, match="by its suffix"):
        trusted(tmp_path / "model.engine")


class Family:
    """A plan, its ONNX file and its checkpoint, each in a folder of its own."""

    def __init__(self, root: Path, checkpoints_parent: str | None = None) -> None:
        self.digests = []
        self.paths = []
        parent = checkpoints_parent
        for name in ("net.safetensors", "net.onnx", "net.plan"):
            path = root / name.partition(".")[2] / name
            data = name.encode()
            write_artifact(
                path, data, dataclasses.replace(describe(data, path.suffix), parent=parent)
            )
            parent = digest(data)
            self.digests.append(parent)
            self.paths.append(path)

    @property
    def folders(self) -> list[Path]:
        """All but the plan's."""
        return [path.parent for path in self.paths[:2]]


def test_a_lineage_goes_from_the_plan_to_the_checkpoint(tmp_path: Path) -> None:
    family = Family(tmp_path)
    links = lineage(family.paths[-1], family.folders)
    assert links == list(zip(family.digests, family.paths, strict=True))[::-1]
    assert lineage(family.paths[0]) == [(family.digests[0], family.paths[0])]


def test_a_parent_that_is_nowhere_is_the_last_link(tmp_path: Path) -> None:
    family = Family(tmp_path)
    plan = (family.digests[-1], family.paths[-1])
    assert lineage(family.paths[-1]) == [plan, (family.digests[1], None)]
    assert lineage(family.paths[-1], family.folders[:1]) == [plan, (family.digests[1], None)]
    family.paths[1].unlink()
    assert lineage(family.paths[-1], family.folders) == [plan, (family.digests[1], None)]


def test_parents_are_found_beside_and_among_the_models_of_the_package(tmp_path: Path) -> None:
    checkpoint = read_sidecar(DEFAULT_CHECKPOINT).sha256
    data = b"made of the package's checkpoint"
    for name, parent in (("a.onnx", checkpoint), ("b.plan", digest(data))):
        content = data if name == "a.onnx" else b"a plan"
        sidecar = describe(content, Path(name).suffix)
        write_artifact(tmp_path / name, content, dataclasses.replace(sidecar, parent=parent))
    links = lineage(tmp_path / "b.plan")
    assert [link.path for link in links] == [
        tmp_path / "b.plan",
        tmp_path / "a.onnx",
        DEFAULT_CHECKPOINT,
    ]


def test_what_else_lies_in_a_folder_is_passed_over(tmp_path: Path) -> None:
    family = Family(tmp_path)
    for folder in family.folders:
        (folder / "a.onnx").write_bytes(b"x")
        (folder / "a.onnx.json").write_text("damaged")
        (folder / "report.json").write_text("{}")
        (folder / "report").write_text("no model")
        (folder / "gone.plan.json").write_text("{}")
        (folder / "b.plan").mkdir()
        (folder / "b.plan.json").write_text("{}")
    assert len(lineage(family.paths[-1], family.folders)) == 3


@pytest.mark.parametrize(
    "hostile",
    [b"[" * 100_000, b'{"a":' * 100_000, b'{"kind": 1, "kind": 2}', b"[NaN]", b"\xff\xfe{}", None],
    ids=["deep", "deep tables", "twice", "nan", "utf-16", "a fifo"],
)
def test_a_hostile_sidecar_does_not_hide_its_neighbours(
    tmp_path: Path, hostile: bytes | None
) -> None:
    family = Family(tmp_path)
    for folder in family.folders:
        (folder / "a.onnx").write_bytes(b"x")
        if hostile is None:
            os.mkfifo(folder / "a.onnx.json")
        else:
            (folder / "a.onnx.json").write_bytes(hostile)
    assert len(lineage(family.paths[-1], family.folders)) == 3
    with pytest.raises(ArtifactError, match=r"a\.onnx\.json: is not a "):
        lineage(family.folders[0] / "a.onnx")


def test_a_file_that_calls_itself_its_parent_ends_a_lineage(tmp_path: Path) -> None:
    family = Family(tmp_path, checkpoints_parent=digest(b"net.plan"))
    links = lineage(family.paths[-1], family.folders)
    assert [link.path for link in links] == [*family.paths[::-1], None]


@pytest.mark.parametrize("bits", [7, 17, 0, True, 12.0, "12"])
def test_a_depth_that_no_16_bit_file_has_is_refused(tmp_path, bits):
    path = tmp_path / "net.onnx"
    sidecar = Sidecar("onnx", "fp32", digest(b"x"), None, Contract(64, 64), bits=12)
    write_artifact(path, b"x", sidecar)
    assert read_sidecar(path).bit_depth() == 12
    assert read_sidecar(path).bit_depth(10) == 10
    write_artifact(path, b"x", dataclasses.replace(sidecar, bits=bits))
    with pytest.raises(ArtifactError, match="is not a depth of 8 to 16 bits"):
        read_sidecar(path)


# --- the recorded place of a parent ---------------------------------------------------------------


def exported(root: Path, checkpoint: str, file: str) -> tuple[Path, Path]:
    """Write a checkpoint, and an ONNX file that records where the checkpoint lay."""
    parent, path = root / checkpoint, root / file
    checkpoint = dataclasses.replace(describe(b"weights", ".safetensors"), parent=None)
    write_artifact(parent, b"weights", checkpoint)
    path.parent.mkdir(parents=True, exist_ok=True)
    sidecar = dataclasses.replace(
        describe(b"graph", ".onnx"),
        parent=digest(b"weights"),
        parent_place=parent_place(parent, path),
    )
    write_artifact(path, b"graph", sidecar)
    return parent, path


def test_a_parent_is_found_where_it_lay_when_the_artifact_was_made(tmp_path: Path) -> None:
    parent, path = exported(tmp_path, "runs/mine/checkpoint.safetensors", "engines/mine.onnx")
    assert read_sidecar(path).parent_place == "../runs/mine/checkpoint.safetensors"
    (_, found) = lineage(path)
    assert found.path is not None
    assert found.path.samefile(parent)


def test_another_file_at_the_recorded_place_is_not_the_parent(tmp_path: Path) -> None:
    parent, path = exported(tmp_path, "runs/checkpoint.safetensors", "engines/mine.onnx")
    write_artifact(parent, b"trained again", describe(b"trained again", ".safetensors"))
    assert lineage(path)[-1] == (digest(b"weights"), None)
    parent.unlink()
    assert lineage(path)[-1] == (digest(b"weights"), None)


def test_a_tree_that_is_moved_keeps_its_lineage(tmp_path: Path) -> None:
    exported(tmp_path / "a", "runs/checkpoint.safetensors", "engines/mine.onnx")
    (tmp_path / "a").rename(tmp_path / "b")
    assert lineage(tmp_path / "b" / "engines" / "mine.onnx")[-1].path is not None


@pytest.mark.parametrize(
    ("parent", "artifact", "place"),
    [
        ("/a/net.safetensors", "/a/net.onnx", "net.safetensors"),
        ("/a/runs/b/net.safetensors", "/a/engines/c/net.onnx", "../../runs/b/net.safetensors"),
        ("/home/ann/runs/net.safetensors", "/mnt/engines/net.onnx", None),
        ("/a/b/net.safetensors", "/a/c/d/e/net.onnx", None),
        ("/a/b/net.safetensors", "/a/c/d/e/f/net.onnx", None),
    ],
)
def test_the_recorded_place_tells_nothing_of_a_distant_folder(
    parent: str, artifact: str, place: str | None
) -> None:
    assert parent_place(Path(parent), Path(artifact)) == place


@pytest.mark.parametrize("place", ["/etc/net.safetensors", 3, "a\0b"])
def test_a_place_that_is_not_a_relative_path_is_refused(tmp_path: Path, place: object) -> None:
    path = tmp_path / "net.onnx"
    sidecar = describe(b"x", ".onnx")
    write_artifact(path, b"x", dataclasses.replace(sidecar, parent_place=place))  # type: ignore[arg-type]
    with pytest.raises(ArtifactError, match="is not a relative path"):
        read_sidecar(path)


@pytest.mark.parametrize(
    ("own", "given", "words"),
    [
        ({"threshold": 1.0}, (None, None), ["threshold 1 lets every part pass"]),
        ({"threshold": 0.999}, (None, None), ["threshold 0.999 lets every part pass"]),
        ({"threshold": 1.0}, (0.5, None), []),
        ({}, (1.0, None), ["threshold 1 lets every part pass"]),
        ({"threshold": 0.998, "min_area": 16 * 32}, (None, None), []),
        ({"min_area": 16 * 32 + 1}, (None, None), ["min_area 513 px lets every part pass"]),
        ({"min_area": 600}, (None, 4), []),
        ({}, (None, 600), ["min_area 600 px lets every part pass"]),
    ],
)
def test_a_rule_with_which_every_part_passes_is_warned_of_once(
    own: dict[str, Any],
    given: tuple[float | None, int | None],
    words: list[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    _warn_if_all_pass.cache_clear()
    sidecar = Sidecar("onnx", "fp32", "0" * 64, None, Contract(16, 32), **own)
    for _ in range(2):
        sidecar.decision(*given)
    assert [word in text for word, text in zip(words, caplog.messages, strict=True)] == [
        True for _ in words
    ]
