"""``--trust-engine``: a model without a sidecar that keeps the contract, in every verb."""

from __future__ import annotations

import functools
import json
import threading
from pathlib import Path
from typing import Any

import click
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import tinyunet_deploy as td
from tests.quality.conftest import write_images
from tinyunet_deploy.artifacts.sidecar import read_artifact
from tinyunet_deploy.backends import registry, sandbox
from tinyunet_deploy.cli import VERBS, run, tinyunet
from tinyunet_deploy.contract import Contract
from tinyunet_deploy.errors import ArtifactError
from tinyunet_deploy.speed import benchmark


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of bright spots, and a model without a sidecar that finds them."""
    folder = tmp_path_factory.mktemp("foreign")
    write_images(folder / "data")
    nodes = [
        helper.make_node("Cast", ["image"], ["grey"], to=TensorProto.FLOAT),
        helper.make_node("Conv", ["grey", "weight", "bias"], ["logit"]),
        helper.make_node("Sigmoid", ["logit"], ["probability"]),
        helper.make_node("Mul", ["probability", "steps"], ["scaled"]),
        helper.make_node("Round", ["scaled"], ["rounded"]),
        helper.make_node("Cast", ["rounded"], ["score"], to=TensorProto.UINT8),
    ]
    ends = [
        helper.make_tensor_value_info(name, TensorProto.UINT8, ["N", 1, 64, 64])
        for name in ("image", "score")
    ]
    tensors = [
        numpy_helper.from_array(np.full((1, 1, 1, 1), 0.1, np.float32), "weight"),
        numpy_helper.from_array(np.full(1, -18.0, np.float32), "bias"),
        numpy_helper.from_array(np.float32(255.0), "steps"),
    ]
    graph = helper.make_graph(nodes, "net", ends[:1], ends[1:], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, folder / "theirs.onnx")
    return folder


@pytest.fixture(autouse=True)
def notices(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test sees the notices that a process prints only once."""
    plain = registry._say_what_is_unknown.__wrapped__
    monkeypatch.setattr(registry, "_say_what_is_unknown", functools.cache(plain))


def words(place: Path, out: Path, verb: str) -> list[str]:
    """Arguments of each verb that loads a model."""
    data, model, images = place / "data", place / "theirs.onnx", place / "data/Class1/Test"
    own: dict[str, list[object]] = {
        "info": [model],
        "verify": [model],
        "infer": [images, "-m", model, "-o", out],
        "watch": [images, "-m", model, "-o", out],
        "evaluate": [data, "-m", model],
        "tune": [data, "-m", model, "-o", out],
        "parity": [data, "-m", model],
        "benchmark": [images, "-m", model, "--samples", "1", "--images", "1"],
        "line-sim": [images, "-m", model, "--parts-per-minute", "600", "--deadline-ms", "5000",
                     "--seconds", "0.3", "--parts", "20"],
        "build": [model, "-o", out, "--flavour", "tensorrt_rtx", "--compute-capability", "8.6"],
        "triton": [model, "-o", out],
    }  # fmt: skip
    return [verb, *map(str, own[verb])]


LOADING = ("info", "verify", "infer", "evaluate", "tune", "parity", "benchmark", "line-sim",
           "build", "triton", "watch")  # fmt: skip
STUDIES = ("accept", "repeatability")
"""Verbs that run a model many times; tests of their own use them."""


def test_every_verb_that_loads_a_model_has_the_option() -> None:
    context = click.Context(tinyunet)
    with_option = set()
    for verb in VERBS:
        command = tinyunet.get_command(context, verb)
        assert command is not None
        if any("--trust-engine" in option.opts for option in command.params):
            with_option.add(verb)
    assert with_option == {*LOADING, *STUDIES}


@pytest.mark.parametrize("verb", LOADING)
def test_without_the_option_a_verb_refuses_and_runs_nothing(
    place: Path, tmp_path: Path, verb: str, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setattr(sandbox, "try_model", lambda *_: pytest.fail("ran a file without trust"))
    assert run(tinyunet, words(place, tmp_path / "out", verb)) == 4
    assert "theirs.onnx: has no sidecar" in capsys.readouterr().err


@pytest.mark.parametrize("verb", LOADING)
def test_a_verb_refuses_what_fails_its_trial(
    place: Path, tmp_path: Path, verb: str, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    def try_model(artifact: Any, runtime: str) -> None:
        raise ArtifactError(artifact.path, f"was tried on {runtime} and refused")

    monkeypatch.setattr(registry, "_tried", set())
    monkeypatch.setattr(sandbox, "try_model", try_model)
    assert run(tinyunet, [*words(place, tmp_path / "out", verb), "--trust-engine"]) == 4
    captured = capsys.readouterr()
    assert "theirs.onnx: was tried on" in captured.err


def test_every_verb_takes_it_after_a_trial_on_each_runtime(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    monkeypatch.setattr(registry, "_tried", set())
    tried: list[str] = []
    really = sandbox.try_model

    def try_model(artifact: Any, runtime: str) -> None:
        assert not artifact.has_sidecar
        tried.append(runtime)
        really(artifact, runtime)

    monkeypatch.setattr(sandbox, "try_model", try_model)
    monkeypatch.setattr(benchmark, "measure_ceilings", lambda _device: ())  # takes seconds
    outputs = {}
    for verb in LOADING[:-1]:  # watch ends only by a signal; its loading is tested in Python
        caplog.clear()
        monkeypatch.setattr(
            registry,
            "_say_what_is_unknown",
            functools.cache(registry._say_what_is_unknown.__wrapped__),
        )
        code = run(tinyunet, [*words(place, tmp_path / verb, verb), "--trust-engine"])
        captured = capsys.readouterr()
        assert code == (3 if verb == "verify" else 0), (verb, captured.err)
        outputs[verb] = " ".join(captured.out.split())
        notices = [line for line in caplog.messages if "lineage is unknown" in line]
        assert len(notices) == 1, verb
        assert "threshold 0.5 and min_area 1 px are defaults, not its own" in notices[0]
    assert sorted(tried) == ["onnxruntime", "openvino"], "the same bytes are tried once"
    assert "made from unknown" in outputs["info"] and "fp32" in outputs["info"]
    assert "threshold unknown; the default is 0.5" in outputs["info"]
    assert "sha256 unchecked" in outputs["verify"] and "lineage unchecked" in outputs["verify"]
    assert "ok" not in outputs["verify"].split()
    assert (
        "the compared file itself, as it has no sidecar; only backends are compared"
        in (outputs["parity"])
    )
    tuned = read_artifact(tmp_path / "tune" / "theirs.onnx").sidecar
    assert tuned.parent is None and tuned.golden is None and tuned.precision == "fp32"
    plan = read_artifact(tmp_path / "build" / "theirs.fp32.plan").sidecar
    assert plan.contract == Contract(64, 64, max_batch=16)
    assert "threshold and min_area are defaults" in plan.origin["without_sidecar"]
    assert (tmp_path / "triton" / "theirs" / "config.pbtxt").exists()
    run(tinyunet, ["info", str(tmp_path / "tune" / "theirs.onnx")])
    assert "made from unknown" in " ".join(capsys.readouterr().out.split())


def test_strict_verification_refuses_what_could_not_be_checked(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [*words(place, place, "verify"), "--trust-engine", "--strict", "--format", "json"]
    assert run(tinyunet, command) == 4
    captured = capsys.readouterr()
    assert {row["outcome"] for row in json.loads(captured.out)["findings"]} <= {
        "unchecked",
        "skipped",
    }
    assert "has no sidecar, so its lineage cannot be checked" in captured.err


def test_the_facts_as_json_are_no_sidecar(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(tinyunet, [*words(place, place, "info"), "--trust-engine", "--format", "json"])
    facts = json.loads(capsys.readouterr().out)
    assert facts["contract"] == {"height": 64, "width": 64, "max_batch": None}
    assert facts["precision"] == "fp32"
    unknown = {"schema_version", "parent", "threshold", "min_area", "network", "golden"}
    assert {facts[name] for name in unknown} == {None}
    assert "sidecar_sha256" not in facts


def test_tuning_in_place_gives_the_file_its_sidecar(place: Path, tmp_path: Path) -> None:
    model = tmp_path / "theirs.onnx"
    model.write_bytes((place / "theirs.onnx").read_bytes())
    command = ["tune", str(place / "data"), "-m", str(model), "--in-place"]
    assert run(tinyunet, command) == 4
    assert run(tinyunet, [*command, "--trust-engine"]) == 0
    assert len(read_artifact(model).sidecar.tuned_on) > 0
    assert run(tinyunet, ["verify", str(model)]) == 0


def test_nothing_is_recorded_without_a_sidecar(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tinyunet, [*words(place, place, "parity"), "--trust-engine", "--record"]) == 4
    assert "has no sidecar, so nothing can be recorded in it" in capsys.readouterr().err


def test_python_takes_it_too(place: Path, tmp_path: Path) -> None:
    model, images = place / "theirs.onnx", place / "data/Class1/Test"
    parts = list(td.inspect(images, model, trust_engine=True))
    assert [part.verdict for part in parts] == ["OK", "NG"] * 3
    assert td.evaluate(place / "data", model, trust_engine=True).all.escapes == 0
    result = td.parity(place / "data", model, backends=["onnxruntime"], trust_engine=True)
    assert [artifact.outcome for artifact in result.artifacts] == ["green"]
    assert result.reference.role == "same-file"
    stop = threading.Event()
    lines = []

    def take(line: Any) -> None:
        lines.append(line)
        stop.set()

    td.watch(images, tmp_path / "out", model, on_line=take, stop=stop, trust_engine=True)
    assert lines[0]["verdict"] == "OK"
    with pytest.raises(ArtifactError, match="has no sidecar"):
        list(td.inspect(images, model))
