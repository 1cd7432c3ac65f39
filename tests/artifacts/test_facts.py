"""Facts of an adoption in a sidecar: kept as they are, and refused if they are impossible."""

from __future__ import annotations

import dataclasses

import pytest

from tinyunet_deploy.artifacts.facts import AdoptionFacts
from tinyunet_deploy.artifacts.sidecar import Sidecar, digest, parse_sidecar
from tinyunet_deploy.contract import Contract
from tinyunet_deploy.errors import ArtifactError

FACTS = AdoptionFacts(
    original_sha256=digest(b"original"),
    original_name="net.onnx",
    input_layout="NHWC",
    input_channels=3,
    mean=(123.675, 116.28, 103.53),
    std=(58.395, 57.12, 57.375),
    output_layout="NHW",
    activation="softmax",
    defect_channels=(2, 3),
    combine="sum",
    batch="fixed",
    size="free",
    reach="whole image",
    proof_steps=1,
    proof_images=5,
)


def sidecar(facts: AdoptionFacts | None) -> Sidecar:
    contract = Contract(64, 64, max_batch=1)
    return Sidecar("onnx", "fp32", digest(b"file"), None, contract, adoption=facts)


def test_a_sidecar_keeps_them() -> None:
    for facts in (FACTS, dataclasses.replace(FACTS, mean=None, std=None), None):
        assert parse_sidecar(sidecar(facts).as_json(), "x.json").adoption == facts


@pytest.mark.parametrize(
    "change",
    [
        {"original_sha256": "0"},
        {"activation": "relu"},
        {"input_channels": 2},
        {"mean": (float("inf"),)},
        {"defect_channels": (-1,)},
        {"reach": "guessed"},
    ],
)
def test_impossible_ones_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="adoption"):
        dataclasses.replace(FACTS, **change)


def test_a_damaged_list_is_refused() -> None:
    broken = sidecar(None)
    object.__setattr__(broken, "adoption", {**dataclasses.asdict(FACTS), "mean": 3})
    with pytest.raises(ArtifactError, match="not a list"):
        parse_sidecar(broken.as_json(), "x.json")
