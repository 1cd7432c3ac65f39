from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from tinyunet_deploy.artifacts.sidecar import Sidecar, digest, write_artifact, write_sidecar
from tinyunet_deploy.contract import Contract
from tinyunet_deploy.errors import ArtifactError
from tinyunet_deploy.quality.acceptance.model_lineage import read_origin


def sidecar(data: bytes, parent: bytes | None) -> Sidecar:
    kind = "checkpoint" if parent is None else "onnx"
    return Sidecar(
        *(kind, "fp32", digest(data), None if parent is None else digest(parent), Contract()),
        trained_on=("0" * 16,),
        tuned_on=("1" * 16, "2" * 16),
    )


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """An ONNX file whose checkpoint lies in another folder."""
    for name, data, parent in (
        ("runs/net.safetensors", b"weights", None),
        ("line/net.onnx", b"graph", b"weights"),
    ):
        path = tmp_path / name
        path.parent.mkdir()
        write_artifact(path, data, sidecar(data, parent))
    return tmp_path / "line" / "net.onnx"


def test_an_ancestor_is_found_in_the_folders_that_are_searched(model: Path) -> None:
    missing = read_origin(model, ())
    assert [(link.name, link.outcome) for link in missing.links] == [
        ("net.onnx", "ok"),
        (None, "missing"),
    ]
    assert missing.ancestors == () and missing.blocked is None
    runs = model.parent.parent / "runs"
    origin = read_origin(model, [runs])
    assert [(link.name, link.kind, link.outcome) for link in origin.links] == [
        ("net.onnx", "onnx", "ok"),
        ("net.safetensors", "checkpoint", "ok"),
    ]
    assert origin.ancestors == (runs / "net.safetensors",)
    assert (len(origin.trained_on), len(origin.tuned_on)) == (1, 2)


def test_an_ancestor_with_other_bytes_is_changed_and_the_model_may_run(model: Path) -> None:
    checkpoint = model.parent.parent / "runs" / "net.safetensors"
    checkpoint.write_bytes(b"other weights")
    origin = read_origin(model, [checkpoint.parent])
    last = origin.links[-1]
    assert (last.name, last.outcome) == ("net.safetensors", "changed") and last.detail
    assert origin.blocked is None


def test_a_model_with_other_bytes_is_blocked_under_the_sha256_that_it_has(model: Path) -> None:
    model.write_bytes(b"other graph")
    origin = read_origin(model, ())
    assert origin.blocked is not None and origin.blocked.startswith("net.onnx ")
    assert [(link.outcome, link.sha256) for link in origin.links] == [
        ("changed", digest(b"other graph"))
    ]
    assert origin.facts.sha256 == digest(b"other graph")
    assert origin.trained_on == origin.tuned_on == frozenset()


def test_the_facts_are_those_of_the_sidecar(model: Path) -> None:
    ruled = dataclasses.replace(sidecar(b"graph", b"weights"), threshold=0.7, min_area=40)
    write_sidecar(model, ruled)
    facts = read_origin(model, ()).facts
    assert (facts.name, facts.kind, facts.precision) == ("net.onnx", "onnx", "fp32")
    assert (facts.threshold, facts.min_area_px, facts.backend) == (0.7, 40, "")


def test_a_model_without_a_sidecar_is_taken_only_if_it_is_trusted(tmp_path: Path) -> None:
    path = tmp_path / "foreign.onnx"
    path.write_bytes(b"graph")
    with pytest.raises(ArtifactError, match="tinyunet adopt"):
        read_origin(path, ())
    trusted = read_origin(path, (), trust_engine=True)
    assert [(link.kind, link.outcome) for link in trusted.links] == [("unknown", "unchecked")]
