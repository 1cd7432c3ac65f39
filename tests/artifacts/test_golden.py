"""Golden images, sidecars that cannot be edited, and lineage."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from export.graph import onnx_graph
from tinyunet_deploy.artifacts.checkpoint import save_checkpoint
from tinyunet_deploy.artifacts.facts import PlanFacts, Profile
from tinyunet_deploy.artifacts.golden import (
    golden_images,
    golden_path,
    inherit_golden,
    read_golden,
    write_golden,
)
from tinyunet_deploy.artifacts.lineage import lineage
from tinyunet_deploy.artifacts.network import TinyUNet
from tinyunet_deploy.artifacts.sidecar import (
    Sidecar,
    digest,
    read_artifact,
    read_sidecar,
    sidecar_path,
    write_artifact,
    write_sidecar,
)
from tinyunet_deploy.backends.registry import open_backend
from tinyunet_deploy.contract import Contract
from tinyunet_deploy.errors import ArtifactError
from tinyunet_deploy.quality.self_test import self_test
from tinyunet_deploy.testing.fake_backend import FakeBackend

CONTRACT = Contract(64, 48)


def write_fake(path: Path, *, parent: str | None = None, data: bytes = b"graph") -> Path:
    kind = "plan" if path.suffix == ".plan" else "onnx"
    sidecar = Sidecar(kind, "fp32", digest(data), parent, CONTRACT, origin={"runs": {1: 0.1}})
    write_artifact(path, data, sidecar)
    return path


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """An artifact whose golden scores are the golden images themselves."""
    path = write_fake(tmp_path / "net.onnx")
    write_golden(path, FakeBackend(contract=CONTRACT).score_alone)
    return path


def loaded(path: Path, shift: int = 0) -> FakeBackend:
    backend = FakeBackend(lambda image: image + np.uint8(shift) * (image < 200), contract=CONTRACT)
    backend.artifact = read_artifact(path)
    return backend


def test_golden_images_hold_defects_and_are_small(tmp_path: Path) -> None:
    images = golden_images(Contract())
    assert images.shape == (2, 1, 512, 512) and images.dtype == np.uint8
    assert np.unique(images).size > 200
    path = tmp_path / "net.onnx"
    write_artifact(path, b"", Sidecar("onnx", "fp32", digest(b""), None, Contract()))
    write_golden(path, FakeBackend(lambda image: np.zeros_like(image)).score_alone)
    assert golden_path(path).stat().st_size < 200_000


def test_same_answers_pass_and_others_are_refused(model: Path) -> None:
    image, score = read_golden(read_artifact(model))
    assert (image == golden_images(CONTRACT)).all() and (score == image).all()
    assert self_test(loaded(model)).largest_steps == 0
    assert self_test(loaded(model, 1)).largest_steps == 1
    with pytest.raises(
        ArtifactError, match="fails its self-test on fake: golden_largest_steps is 2"
    ):
        self_test(loaded(model, 2))


def test_a_plan_inherits_and_smallest_batches_are_filled(model: Path, tmp_path: Path) -> None:
    plan = write_fake(tmp_path / "net.plan", parent=read_sidecar(model).sha256, data=b"plan")
    inherit_golden(plan, model)
    backend = loaded(plan)
    facts = PlanFacts("tensorrt", "11.4.0", None, "8.6", Profile(4, 4, 4))
    sidecar = dataclasses.replace(backend.artifact.sidecar, plan=facts)
    backend.artifact = dataclasses.replace(backend.artifact, sidecar=sidecar)
    assert self_test(backend).largest_steps == 0
    assert backend.batches == [4, 4]


def test_golden_images_are_part_of_the_lineage(model: Path) -> None:
    data = bytearray(golden_path(model).read_bytes())
    data[-30] ^= 1
    golden_path(model).write_bytes(data)
    with pytest.raises(ArtifactError, match="is not the file that the sidecar"):
        self_test(loaded(model))
    golden_path(model).unlink()
    with pytest.raises(ArtifactError, match="cannot be read"):
        self_test(loaded(model))
    write_sidecar(model, dataclasses.replace(read_sidecar(model), golden=None))
    with pytest.raises(ArtifactError, match="has no golden images"):
        self_test(loaded(model))


def test_an_exported_file_passes_its_self_test_on_every_backend(tmp_path: Path) -> None:
    contract = Contract(64, 64)
    network = TinyUNet().eval()
    checkpoint = tmp_path / "net.safetensors"
    parent = save_checkpoint(checkpoint, network, contract, origin={}).sha256
    model = tmp_path / "net.onnx"
    data = onnx_graph(network, contract)
    write_artifact(model, data, Sidecar("onnx", "fp32", digest(data), parent, contract))
    with open_backend(checkpoint) as reference:
        write_golden(model, reference.score_alone)
    for backend in ("onnxruntime", "openvino"):
        with open_backend(model, backend) as loaded_model:
            self_test(loaded_model)
    write_golden(model, FakeBackend(contract=contract).score_alone)
    with (
        open_backend(model, "openvino") as loaded_model,
        pytest.raises(ArtifactError, match="self-test"),
    ):
        self_test(loaded_model)


@given(data=st.data())
@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_value_of_a_sidecar_can_be_edited(model: Path, data: st.DataObject) -> None:
    text = sidecar_path(model).read_text()
    fields = json.loads(text)
    name = data.draw(st.sampled_from(sorted(fields)))
    value = data.draw(st.one_of(st.integers(), st.text(), st.floats(0, 1), st.none()))
    changed = {**fields, name: value}
    try:
        sidecar_path(model).write_text(json.dumps(changed))
        if json.dumps(changed, sort_keys=True) == json.dumps(fields, sort_keys=True):
            assert read_sidecar(model)
        else:
            with pytest.raises(ArtifactError) as caught:
                read_artifact(model)
            assert caught.value.exit_code == 4
            assert "python -m export" in str(caught.value)
    finally:
        sidecar_path(model).write_text(text)


@given(place=st.integers(0, 4), bit=st.integers(0, 7))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_byte_of_an_artifact_can_be_flipped(model: Path, place: int, bit: int) -> None:
    data = bytearray(b"graph")
    data[place] ^= 1 << bit
    model.write_bytes(data)
    with pytest.raises(ArtifactError, match=r"not the file .* python -m export"):
        read_artifact(model)


def test_swapped_sidecars_are_refused(tmp_path: Path) -> None:
    first = write_fake(tmp_path / "first.onnx", data=b"first")
    second = write_fake(tmp_path / "second.onnx", data=b"second")
    text = sidecar_path(first).read_bytes()
    sidecar_path(first).write_bytes(sidecar_path(second).read_bytes())
    sidecar_path(second).write_bytes(text)
    for path in (first, second):
        with pytest.raises(ArtifactError, match="python -m export"):
            read_artifact(path)


def test_lineage_is_found_by_hash_alone(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    checkpoint = save_checkpoint(elsewhere / "any.safetensors", TinyUNet(), CONTRACT, origin={})
    onnx = write_fake(tmp_path / "renamed.onnx", parent=checkpoint.sha256)
    plan = write_fake(tmp_path / "net.plan", parent=digest(b"graph"), data=b"plan")
    assert [link.path for link in lineage(plan)] == [plan, onnx, None]
    assert lineage(plan)[-1].sha256 == checkpoint.sha256
    whole = lineage(plan, [elsewhere])
    assert [link.path for link in whole] == [plan, onnx, elsewhere / "any.safetensors"]
    sidecar_path(onnx).write_text("{}")
    assert [link.path for link in lineage(plan, [elsewhere])] == [plan, None]


def test_lineage_in_a_circle_ends(tmp_path: Path) -> None:
    first = write_fake(tmp_path / "first.onnx", data=b"first", parent=digest(b"second"))
    write_fake(tmp_path / "second.onnx", data=b"second", parent=digest(b"first"))
    assert len(lineage(first)) == 3
