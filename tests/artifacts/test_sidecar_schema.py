"""Files of schema 1 load as if they had been written in schema 2."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tinyunet_deploy.artifacts.facts import NetworkFacts, PlanFacts, PrecisionAudit, Profile
from tinyunet_deploy.artifacts.sidecar import (
    DEFAULT_CHECKPOINT,
    DEFAULT_ONNX,
    digest,
    parse_sidecar,
    read_sidecar,
    sidecar_path,
)
from tinyunet_deploy.artifacts.sidecar_schema import _digest_of_fields
from tinyunet_deploy.errors import ArtifactError

TINY = NetworkFacts("tiny", 16, 107, 122)
IMAGE = digest(b"an image")
PLAN_ORIGIN: dict[str, Any] = {
    "onnx": "tinyunet.onnx",
    "rebuild": "tinyunet build tinyunet.onnx",
    "tensorrt": {"flavour": "tensorrt", "version": "10.16.1.11"},
    "gpu": {"name": "NVIDIA L4", "compute_capability": "8.9"},
    "profile": {"min": 1, "opt": 8, "max": 16},
    "plan_bytes": 5,
    "build_s": 12.5,
    "precision_audit": {
        "parsed_network": {"logit": "Half"},
        "engine": None,
        "engine_not_inspected": "the inspector names no convolution",
    },
}


def schema_1(kind: str = "onnx", origin: Any = None, **changes: Any) -> str:
    """The text of a sidecar as the first release wrote it."""
    fields = {
        "schema_version": 1,
        "kind": kind,
        "precision": "fp16",
        "sha256": digest(b"x"),
        "parent": None,
        "contract": {"height": 512, "width": 512, "max_batch": 16},
        "threshold": 0.9,
        "min_area": 64,
        "origin": {} if origin is None else origin,
        "golden": None,
        "verified_batch": 8,
        **changes,
    }
    fields["sidecar_sha256"] = _digest_of_fields(fields)
    return json.dumps(fields)


def test_a_checkpoint_of_schema_1_says_its_network_and_steps() -> None:
    origin = {"variant": "original", "step": 2000, "recipe": {"seed": 1}}
    sidecar = parse_sidecar(schema_1("checkpoint", origin), "a")
    assert sidecar.network == NetworkFacts("original", 16, 107, 122)
    assert sidecar.step == 2000
    assert sidecar.origin == {"recipe": {"seed": 1}}, "what no code reads"
    assert (sidecar.threshold, sidecar.verified_batch) == (0.9, 8)


def test_an_onnx_file_of_schema_1_says_what_tuned_it_and_what_stayed_in_float32() -> None:
    origin = {
        "tuned": {"rule": "least cost", "images": [IMAGE]},
        "quantization": {"recipe": "as it was", "kept_in_float32": ["logit", "encoder.0.2"]},
    }
    sidecar = parse_sidecar(schema_1("onnx", origin), "a")
    assert sidecar.tuned_on == (IMAGE,)
    assert sidecar.kept_in_float32 == ("logit", "encoder.0.2")
    assert sidecar.network == NetworkFacts(None, 16, 107, 122), "it never said which"
    assert sidecar.origin["tuned"] == {"rule": "least cost"}


def test_a_plan_of_schema_1_says_for_what_it_was_built() -> None:
    sidecar = parse_sidecar(schema_1("plan", PLAN_ORIGIN), "a")
    audit = PrecisionAudit({"logit": "Half"}, None, "the inspector names no convolution")
    assert sidecar.plan == PlanFacts(
        "tensorrt",
        "10.16.1.11",
        "NVIDIA L4",
        "8.9",
        Profile(1, 8, 16),
        "tinyunet build tinyunet.onnx",
        audit,
        size_bytes=5,
        build_s=12.5,
    )
    assert sidecar.origin == {"onnx": "tinyunet.onnx"}


@pytest.mark.parametrize(("max_batch", "most"), [(16, 16), (None, 1)])
def test_a_plan_of_schema_1_without_a_profile_takes_the_batches_of_its_contract(
    max_batch: int | None, most: int
) -> None:
    origin = {name: PLAN_ORIGIN[name] for name in ("tensorrt", "gpu")}
    contract = {"height": 512, "width": 512, "max_batch": max_batch}
    plan = parse_sidecar(schema_1("plan", origin, contract=contract), "a").plan
    assert plan is not None and plan.profile == Profile(1, most, most)


def test_a_plan_of_schema_1_without_facts_has_none() -> None:
    assert parse_sidecar(schema_1("plan", {"recipe": "demo"}), "a").plan is None


@pytest.mark.parametrize("origin", [PLAN_ORIGIN, {"tuned": {"images": [IMAGE]}}])
def test_an_upgraded_sidecar_is_written_in_schema_2_and_read_again(origin: Any) -> None:
    sidecar = parse_sidecar(schema_1("plan", origin), "a")
    text = sidecar.as_json()
    assert json.loads(text)["schema_version"] == 2
    assert parse_sidecar(text, "a") == sidecar


@pytest.mark.parametrize(
    ("kind", "origin"),
    [
        ("plan", {**PLAN_ORIGIN, "tensorrt": "10.0"}),
        ("plan", {**PLAN_ORIGIN, "tensorrt": {"flavour": "tensorrt"}}),
        ("plan", {**PLAN_ORIGIN, "tensorrt": {"flavour": ["tensorrt"], "version": "10"}}),
        ("plan", {**PLAN_ORIGIN, "gpu": {"name": 5, "compute_capability": "8.9"}}),
        ("plan", {**PLAN_ORIGIN, "profile": {"min": "1", "opt": 1, "max": 1}}),
        ("plan", {**PLAN_ORIGIN, "profile": [1, 2, 3]}),
        ("plan", {**PLAN_ORIGIN, "precision_audit": []}),
        ("onnx", {"quantization": ["encoder"]}),
        ("onnx", {"quantization": {"kept_in_float32": [["encoder"]]}}),
        ("onnx", {"tuned": [IMAGE]}),
        ("onnx", {"tuned": {"images": "all"}}),
        ("checkpoint", {"variant": 5}),
        ("checkpoint", {"step": "last"}),
        ("onnx", "a sunny day"),
    ],
    ids=str,
)
def test_an_origin_of_schema_1_that_would_be_misread_is_refused(kind: str, origin: Any) -> None:
    with pytest.raises(ArtifactError, match="is not a valid sidecar"):
        parse_sidecar(schema_1(kind, origin), "a")


def test_schema_1_has_no_fields_of_schema_2() -> None:
    with pytest.raises(ArtifactError, match="schema 1 has no field plan"):
        parse_sidecar(schema_1(plan=None, step=1), "a")


@pytest.mark.parametrize("model", [DEFAULT_CHECKPOINT, DEFAULT_ONNX])
def test_the_models_of_the_package_are_of_schema_1_and_load(model: Path) -> None:
    assert json.loads(sidecar_path(model).read_text())["schema_version"] == 1
    network = read_sidecar(model).network
    assert network is not None and network.reach == TINY.reach
