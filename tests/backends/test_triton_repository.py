"""``tinyunet triton``, read by Triton's own protobuf and served by Triton itself.

Both come from registry packages, which ``make test`` puts into ``.cache/triton``: the server is
that of ``nvidia-pytriton``, which has Triton's Python backend alone, so a few lines of Python stand
in for its ONNX Runtime backend; configuration, warm-up, batching and protocol are the real ones.
"""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.local_triton import PACKAGES, Served, serve
from tests.conftest import REPOSITORY, SIZE, part
from tinyunet_deploy.artifacts.facts import PlanFacts, Profile
from tinyunet_deploy.artifacts.golden import read_golden, write_golden
from tinyunet_deploy.artifacts.sidecar import (
    Sidecar,
    digest,
    read_artifact,
    read_sidecar,
    write_artifact,
)
from tinyunet_deploy.backends.registry import open_backend
from tinyunet_deploy.backends.server import ServerBackend
from tinyunet_deploy.backends.triton_repository import write_repository
from tinyunet_deploy.cli import run, tinyunet
from tinyunet_deploy.contract import Contract
from tinyunet_deploy.errors import ArtifactError, RefusedError, RuntimeUnavailable

needs_packages = pytest.mark.skipif(
    not (PACKAGES / "tritonclient").is_dir(), reason="no tritonclient in .cache/triton"
)


@pytest.fixture(scope="module")
def golden_onnx(tiny_onnx: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny network with golden images and a verified batch of 4."""
    path = tmp_path_factory.mktemp("golden") / "tiny.fp32.onnx"
    artifact = read_artifact(tiny_onnx)
    write_artifact(path, artifact.data, replace(artifact.sidecar, verified_batch=4))
    with open_backend(path, "onnxruntime") as backend:
        write_golden(path, backend.score_alone)
    return path


@pytest.fixture(scope="module")
def served(golden_onnx: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    if not (PACKAGES / "pytriton").is_dir():
        pytest.skip("no nvidia-pytriton in .cache/triton")
    with serve(golden_onnx, tmp_path_factory.mktemp("triton")) as served:
        yield served


def parsed(config: Path) -> dict[str, Any]:
    """A ``config.pbtxt`` as Triton's own protobuf reads it."""
    program = """if True:
        import sys
        from google.protobuf import json_format, text_format
        from tritonclient.grpc.model_config_pb2 import ModelConfig
        config = text_format.Parse(sys.stdin.read(), ModelConfig())
        print(json_format.MessageToJson(config, preserving_proto_field_name=True))
    """
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": str(PACKAGES)},
        input=config.read_text(),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    fields: dict[str, Any] = json.loads(done.stdout)
    return fields


@needs_packages
def test_the_configuration_of_an_onnx_file(golden_onnx: Path, tmp_path: Path) -> None:
    folder = write_repository(golden_onnx, tmp_path / "models")
    assert folder == tmp_path / "models" / "tiny"
    assert (folder / "1" / "model.onnx").read_bytes() == golden_onnx.read_bytes()
    config = parsed(folder / "config.pbtxt")
    tensor = {"data_type": "TYPE_UINT8", "dims": ["1", "64", "64"]}
    assert config["name"] == "tiny"
    assert config["platform"] == "onnxruntime_onnx"
    assert config["max_batch_size"] == 4, "what was verified"
    assert config["input"] == [{"name": "image", **tensor}]
    assert config["output"] == [{"name": "score", **tensor}]
    assert config["instance_group"] == [{"kind": "KIND_CPU", "count": 1}]
    assert "dynamic_batching" in config
    sidecar = json.loads(config["parameters"]["sidecar"]["string_value"])
    assert sidecar == json.loads(read_sidecar(golden_onnx).as_json())
    images, _ = read_golden(read_artifact(golden_onnx))
    assert len(config["model_warmup"]) == len(images)
    for warmup, image in zip(config["model_warmup"], images, strict=True):
        assert warmup["batch_size"] == 4
        value = warmup["inputs"]["image"]
        assert (value["data_type"], value["dims"]) == ("TYPE_UINT8", ["1", "64", "64"])
        assert (folder / "warmup" / value["input_data_file"]).read_bytes() == image.tobytes()


@needs_packages
def test_the_configuration_of_a_plan(tmp_path: Path) -> None:
    origin = {"line": 'three "\\\n検'}
    contract = Contract(SIZE, 2 * SIZE, max_batch=16)
    plan = PlanFacts("tensorrt", "10.16", None, "8.6", Profile(1, 8, 16))
    sidecar = Sidecar("plan", "fp16", digest(b"plan"), "0" * 64, contract, origin=origin, plan=plan)
    write_artifact(tmp_path / "a.plan", b"plan", sidecar)
    folder = write_repository(tmp_path / "a.plan", tmp_path, name="line-1", instances=2)
    config = parsed(folder / "config.pbtxt")
    assert (config["name"], config["platform"]) == ("line-1", "tensorrt_plan")
    assert config["max_batch_size"] == 16
    assert config["instance_group"] == [{"kind": "KIND_GPU", "count": 2, "gpus": [0]}]
    assert "model_warmup" not in config
    told = json.loads(config["parameters"]["sidecar"]["string_value"])
    assert told["origin"] == origin, "whatever characters are in it"
    other = parsed(write_repository(tmp_path / "a.plan", tmp_path, gpu=3) / "config.pbtxt")
    assert other["instance_group"] == [{"kind": "KIND_GPU", "count": 1, "gpus": [3]}]


def test_what_triton_does_not_run_is_refused(
    tiny_checkpoint: Path, golden_onnx: Path, tmp_path: Path
) -> None:
    models = tmp_path / "models"
    with pytest.raises(RefusedError, match="which Triton does not run"):
        write_repository(tiny_checkpoint, models)
    rtx = PlanFacts("tensorrt_rtx", "1.7", None, "8.6", Profile())
    sidecar = Sidecar("plan", "fp16", digest(b"plan"), "0" * 64, Contract(), plan=rtx)
    write_artifact(tmp_path / "rtx.plan", b"plan", sidecar)
    with pytest.raises(RefusedError, match="TensorRT-RTX, which Triton does not run"):
        write_repository(tmp_path / "rtx.plan", models)
    for name in ("../up", "a b", "", 'a"', ".a"):
        with pytest.raises(RefusedError, match="cannot be the name of a model"):
            write_repository(golden_onnx, models, name=name)
    assert not models.exists()
    write_repository(golden_onnx, models)
    with pytest.raises(RefusedError, match="tiny: already exists"):
        write_repository(golden_onnx, models)
    assert [path.name for path in models.iterdir()] == ["tiny"]


def test_the_command_says_how_to_go_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tinyunet, ["triton", "-o", str(tmp_path / "models")]) == 0
    said = capsys.readouterr()
    assert said.out == f"{tmp_path / 'models' / 'tinyunet'}\n"
    assert "--server http://localhost:8000/tinyunet" in said.err
    assert run(tinyunet, ["triton", "a.plan", "-o", "b", "--device", "cpu"]) == 4
    assert run(tinyunet, ["triton", "a.plan", "-o", "b", "--device", "gpu"]) == 2


# The server


def test_triton_scores_the_warm_up_images_before_it_is_ready(
    served: Served, golden_onnx: Path
) -> None:
    assert (served.folder / "batches").read_text().split()[:2] == ["4", "4"]


def test_the_server_says_what_it_runs(served: Served, golden_onnx: Path) -> None:
    with ServerBackend(served.http) as backend:
        sidecar = read_sidecar(golden_onnx)
        assert backend.artifact.sidecar.sha256 == sidecar.sha256
        assert backend.artifact.sidecar.threshold == sidecar.threshold
        assert (backend.contract.height, backend.contract.width) == (SIZE, SIZE)
        assert backend.max_batch == 4
        assert list(backend.versions) == ["triton"]
        with pytest.raises(ValueError, match=r"expected a batch of 1\.\.4, got 5"):
            backend.run(np.zeros((5, 1, SIZE, SIZE), np.uint8))


def test_scores_over_http_are_those_of_the_local_backend(served: Served, golden_onnx: Path) -> None:
    images = np.stack([part(seed) for seed in range(10)])[:, None]
    batches = [images[:4], images[4:8], images[8:9], images[9:]]
    with open_backend(golden_onnx, "onnxruntime") as local, ServerBackend(served.http) as server:
        wanted = [local.run(batch).score for batch in batches]
        given = [run.score for run in server.run_many(batches)]
    for one, other in zip(wanted, given, strict=True):
        assert np.array_equal(one, other)


def tree(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "run.json"
    }


@pytest.mark.parametrize("scheme", ["http", "grpc"])
def test_infer_through_the_server_leaves_the_tree_of_the_local_run(
    station: Path, tmp_path: Path, served: Served, golden_onnx: Path, scheme: str
) -> None:
    """gRPC in a process of its own, for ``tritonclient`` brings protobuf of another version."""
    (station / "cut.png").write_bytes(b"\x89PNG")
    infer = [str(station), "--format", "json", "--scores", "-b", "3", "-o"]
    local = ["--model", str(golden_onnx), "--backend", "onnxruntime"]
    assert run(tinyunet, ["infer", *infer, str(tmp_path / "local"), *local]) == 3
    program = "from tinyunet_deploy.cli import infer_main; infer_main()"
    address = getattr(served, scheme)
    done = subprocess.run(
        [sys.executable, "-c", program, *infer, tmp_path / "out", "--server", address],
        env={**os.environ, "PYTHONPATH": f"{REPOSITORY}:{PACKAGES}"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 3, done.stderr
    assert json.loads(done.stdout)["images"] == 8
    assert "on server" in done.stderr
    assert tree(tmp_path / "out") == tree(tmp_path / "local")
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert record["model_sha256"] == read_sidecar(golden_onnx).sha256


def test_what_is_wrong_with_a_server_is_told_in_one_line(
    served: Served, station: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(RuntimeUnavailable, match=r"does not answer: .*refused"):
        ServerBackend(f"http://127.0.0.1:{port}/tiny")
    with pytest.raises(RefusedError, match=r"the server says: .*unknown model"):
        ServerBackend(served.http.replace("/tiny", "/other"))
    for url in ("tiny", "http://localhost", "ftp://localhost/tiny", "http://a:b/c", "http://h/a/b"):
        with pytest.raises(RefusedError, match="is not the address of a model"):
            ServerBackend(url)
    infer = ["infer", str(station), "-o", str(tmp_path / "out"), "--server"]
    assert run(tinyunet, [*infer, f"http://127.0.0.1:{port}/tiny"]) == 5
    told = capsys.readouterr().err
    assert re.fullmatch(r"error: http://127.0.0.1:\d+/tiny: does not answer: .*\n", told)
    assert run(tinyunet, [*infer, served.http, "--backend", "torch"]) == 2
    assert not (tmp_path / "out").exists()


def test_a_connection_that_the_server_has_closed_is_made_again(
    served: Served, golden_onnx: Path
) -> None:
    image = np.zeros((1, 1, SIZE, SIZE), np.uint8)
    with ServerBackend(served.http) as backend:
        first = backend.run(image).score
        backend._transports[0]._connection.sock.shutdown(socket.SHUT_RDWR)  # type: ignore[attr-defined]
        assert np.array_equal(backend.run(image).score, first)


def test_a_sidecar_that_was_edited_on_the_server_is_refused(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tinyunet_deploy.backends.server_transport import HTTPTransport

    original = HTTPTransport.config

    def edited(transport: HTTPTransport) -> dict[str, Any]:
        config = original(transport)
        parameter = config["parameters"]["sidecar"]
        parameter["string_value"] = parameter["string_value"].replace("0.45", "0.99")
        return config

    monkeypatch.setattr(HTTPTransport, "config", edited)
    with pytest.raises(ArtifactError, match="was edited after it was written"):
        ServerBackend(served.http)
    monkeypatch.setattr(HTTPTransport, "config", lambda _: {"name": "tiny"})
    with pytest.raises(RefusedError, match="has no sidecar"):
        ServerBackend(served.http)
