from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from tinyunet_deploy.artifacts.sidecar import Sidecar, digest, parse_sidecar
from tinyunet_deploy.artifacts.sidecar_schema import _digest_of_fields
from tinyunet_deploy.artifacts.speed_facts import RuntimeSpeed, SpeedFacts
from tinyunet_deploy.contract import Contract
from tinyunet_deploy.errors import ArtifactError

SPEED = SpeedFacts(
    "fp32",
    "Example 9000 avx512_vnni",
    2,
    1.02,
    (
        RuntimeSpeed("openvino", 3.2, 3.1, 3.3, 1.01),
        RuntimeSpeed("onnxruntime", 0.55, 0.5, 0.6, 1.02),
    ),
)


def sidecar(speed: SpeedFacts | None) -> Sidecar:
    return Sidecar("onnx", "int8", digest(b"x"), None, Contract(64, 64), speed=speed)


@pytest.mark.parametrize("speed", [None, SPEED])
def test_a_sidecar_keeps_the_speed(speed: SpeedFacts | None) -> None:
    read = parse_sidecar(sidecar(speed).as_json(), "a")
    assert read.speed == speed


def test_a_precision_pays_where_it_reaches_the_minimum_and_leaves_the_noise() -> None:
    assert SPEED.pays("openvino") is True
    assert SPEED.pays("onnxruntime") is False
    assert SPEED.pays("torch") is None, "it was not timed there"
    assert not SPEED.falls_short("torch")
    for speedup, floor, pays in (
        (1.02, 1.0, True),
        (1.0199, 1.0, False),
        (1.04, 1.05, False),
        (1.05, 1.05, False),
        (1.06, 1.05, True),
    ):
        runtime = RuntimeSpeed("openvino", speedup, 0.9, 1.2, floor)
        facts = replace(SPEED, runtimes=(runtime,))
        assert facts.pays("openvino") is pays
        assert facts.falls_short("openvino") is (speedup < 1.02)


def changed(change: dict[str, Any]) -> str:
    """The text of a sidecar with changed fields in the table of the speed, and a fitting digest."""
    fields = json.loads(sidecar(SPEED).as_json())
    del fields["sidecar_sha256"]
    fields["speed"].update(change)
    fields["sidecar_sha256"] = _digest_of_fields(fields)
    return json.dumps(fields)


RUNTIME = {"backend": "openvino", "speedup": 2.0, "low": 1.9, "high": 2.1, "floor": 1.0}


@pytest.mark.parametrize(
    "change",
    [
        {"wider": "bf16"},
        {"processor": 5},
        {"processors": 0},
        {"min_speedup": 0.0},
        {"min_speedup": "1"},
        {"runtimes": "openvino"},
        {"runtimes": ["openvino"]},
        {"runtimes": [RUNTIME, RUNTIME]},
        {"runtimes": [{**RUNTIME, "speedup": -1.0}]},
        {"runtimes": [{**RUNTIME, "speedup": True}]},
        {"runtimes": [{**RUNTIME, "speedup": 2.2}]},
        {"runtimes": [{**RUNTIME, "floor": 0.9}]},
        {"runtimes": [{**RUNTIME, "backend": ""}]},
        {"runtimes": [{**RUNTIME, "unknown": 1}]},
        {"runtimes": [{"backend": "openvino"}]},
        {"unknown": 1},
    ],
)
def test_a_speed_that_cannot_be_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ArtifactError, match="not a valid sidecar"):
        parse_sidecar(changed(change), "a")


def test_a_speed_that_was_edited_by_hand_is_refused() -> None:
    edited = sidecar(SPEED).as_json().replace("0.55", "0.58")
    with pytest.raises(ArtifactError, match="edited after it was written"):
        parse_sidecar(edited, "a")
