from __future__ import annotations

import contextlib
import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyunet_deploy.artifacts.sidecar import (
    Sidecar,
    _digest_of_fields,
    digest,
    read_artifact,
    read_sidecar,
    sidecar_path,
    write_artifact,
)
from tinyunet_deploy.contract import Contract
from tinyunet_deploy.errors import ArtifactError

DATA = b"the bytes of a model" * 5
REBUILD = {
    ".safetensors": "train it again: python -m training --data DATA --output FOLDER",
    ".onnx": "export it again: python -m export CHECKPOINT --output {path}",
    ".plan": "build it again: tinyunet build MODEL.onnx --output {path}",
}
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
    assert fields["schema_version"] == 1
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
    really_replace = Path.replace

    def replace(temporary: Path, target: Path) -> Path:
        if target.suffix == ".onnx":
            raise KeyboardInterrupt
        return really_replace(temporary, target)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Path, "replace", replace)
        write_artifact(path, b"a newer model", describe(b"a newer model"))
    assert "is not the file that its sidecar describes" in refusal(path)


def test_a_missing_model(model: Path) -> None:
    model.unlink()
    assert f"{model}: is not there (" in refusal(model)
    sidecar_path(model).unlink()
    assert f"{model}: is not there (" in refusal(model), "and not: it has no sidecar"


def test_a_missing_sidecar(model: Path) -> None:
    sidecar_path(model).unlink()
    assert f"{model}: has no sidecar, so nothing is known of it (" in refusal(model)


@pytest.mark.parametrize("name", ["model.pt", "model", "model.engine", "model.onnx.json"])
def test_a_foreign_suffix(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(DATA)
    with pytest.raises(
        ArtifactError, match=r"by its suffix \(known are .safetensors .onnx .plan\)"
    ):
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
    assert "a.plan.json: is of the kind onnx, not plan" in refusal(tmp_path / "a.plan")


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


@pytest.mark.parametrize("version", [0, 2, "1", None, [1]])
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
        {"sha256": "0" * 63},
        {"sha256": "G" * 64},
        {"sha256": 5},
        {"sha256": list("0" * 64)},
        {"sha256": []},
        {"parent": "unknown"},
        {"threshold": 1.5},
        {"threshold": float("nan")},
        {"threshold": "0.5"},
        {"min_area": 0},
        {"min_area": 2.5},
        {"min_area": float("inf")},
        {"origin": "a sunny day"},
    ],
    ids=str,
)
def test_a_sidecar_with_impossible_values(model: Path, changes: dict[str, Any]) -> None:
    edit(model, **changes)
    assert f"{sidecar_path(model)}: is not a valid sidecar: " in refusal(model)


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


def test_the_command_can_be_pasted_into_a_shell(tmp_path: Path) -> None:
    path = tmp_path / "my model's.onnx"
    with pytest.raises(ArtifactError) as caught:
        read_artifact(path)
    assert caught.value.hint is not None
    assert caught.value.hint.endswith("my model'\"'\"'s.onnx'")
