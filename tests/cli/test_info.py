from __future__ import annotations

import json
from pathlib import Path

import pytest

from tinyunet_deploy.artifacts.facts import NetworkFacts, PlanFacts, Profile
from tinyunet_deploy.artifacts.sidecar import Sidecar, digest, write_artifact
from tinyunet_deploy.cli import run, tinyunet
from tinyunet_deploy.contract import Contract


def test_it_says_the_facts_of_network_and_plan(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = PlanFacts("tensorrt", "10.16.1", "NVIDIA L4", "8.9", Profile(2, 4, 8), "tinyunet build")
    sidecar = Sidecar(
        "plan",
        "fp16",
        digest(b"plan"),
        None,
        Contract(64, 128, max_batch=8),
        network=NetworkFacts("slim", 8, 21, 25),
        tuned_on=(digest(b"image"),),
        kept_in_float32=("logit", "encoder.0.2"),
        plan=plan,
    )
    path = tmp_path / "a.plan"
    write_artifact(path, b"plan", sidecar)
    assert run(tinyunet, ["info", str(path)]) == 0
    output = " ".join(capsys.readouterr().out.split())
    assert "network slim, size multiple 8, a score depends on 21 px before and 25 px" in output
    assert "tensorrt tensorrt 10.16.1 gpu NVIDIA L4, compute capability 8.9" in output
    assert "profile batches of 2 to 8, tuned for 4 rebuild tinyunet build" in output
    assert "tuned on 1 images kept in float32 logit encoder.0.2" in output
    assert run(tinyunet, ["info", str(path), "--format", "json"]) == 0
    fields = json.loads(capsys.readouterr().out)
    assert fields["network"] == {
        "name": "slim",
        "size_multiple": 8,
        "reach_before": 21,
        "reach_after": 25,
        "architecture": None,
    }
    assert fields["plan"]["profile"] == {"min": 2, "opt": 4, "max": 8}


def test_a_network_of_which_nothing_is_known_is_said_to_be_unknown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a.onnx"
    write_artifact(path, b"x", Sidecar("onnx", "fp32", digest(b"x"), None, Contract(17, 19)))
    assert run(tinyunet, ["info", str(path)]) == 0
    assert "network unknown" in " ".join(capsys.readouterr().out.split())
