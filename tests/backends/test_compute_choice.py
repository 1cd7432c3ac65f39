from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import part
from tinyunet_deploy import host
from tinyunet_deploy.api.model import load
from tinyunet_deploy.artifacts.sidecar import DEFAULT_ONNX, read_artifact, write_artifact
from tinyunet_deploy.backends.compute_choice import computing
from tinyunet_deploy.backends.openvino import OpenVINOBackend, OpenVINOBf16Backend
from tinyunet_deploy.backends.registry import open_backend
from tinyunet_deploy.backends.table import BACKENDS, COMPUTES, why_not
from tinyunet_deploy.cli import run, tinyunet
from tinyunet_deploy.data.encoding import write_png
from tinyunet_deploy.errors import RefusedError, RuntimeUnavailable
from tinyunet_deploy.quality.parity_limits import read_limits
from tinyunet_deploy.quality.self_test import self_test


@pytest.fixture
def bf16() -> None:
    if why_not("openvino-bf16") is not None:
        pytest.skip(str(why_not("openvino-bf16")))


def test_the_backend_that_computes_in_a_type_is_found_by_its_runtime() -> None:
    assert computing(None, None) is None
    assert computing("torch", None) == "torch"
    for name in (None, "openvino", "openvino-bf16", BACKENDS["openvino"], OpenVINOBackend):
        assert computing(name, "bf16") == "openvino-bf16"
    assert computing("openvino", "fp16") == "openvino-fp16"
    for name in ("onnxruntime", "openvino-fp16", "torch-fp16"):
        with pytest.raises(
            RefusedError, match=r"does not compute in bf16 \(known: openvino, torch\)"
        ):
            computing(name, "bf16")


def test_the_kind_of_the_file_and_the_device_choose_among_runtimes() -> None:
    assert computing(None, "fp16", "onnx") == computing(None, "fp16", None) == "openvino-fp16"
    assert computing(None, "fp16", "checkpoint") == computing("torch", "fp16") == "torch-fp16"
    assert computing(None, "bf16", None, "cuda:0") == "torch-bf16"
    assert computing(None, "bf16", "onnx", "cuda:0") == "openvino-bf16", "then opening it says why"
    assert computing(None, "fp16", "checkpoint", "cpu") == "torch-fp16", "as only it takes the file"
    assert computing("openvino", "bf16", "checkpoint") == "openvino-bf16", "as the user named it"
    with pytest.raises(RuntimeUnavailable, match="is not a device"):
        computing(None, "bf16", None, "tpu")


def test_a_checkpoint_is_computed_by_torch_on_a_gpu(
    tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    reason = why_not("torch-fp16")
    if reason is None:
        pytest.skip("there is a GPU, for which tests/test_gpu.py has tests")
    with pytest.raises(RuntimeUnavailable, match="torch-fp16"):
        load(tiny_checkpoint, compute="fp16")
    write_png(tmp_path / "a.png", part(1))
    words = [str(tmp_path), "-m", str(tiny_checkpoint), "--compute", "fp16"]
    assert run(tinyunet, ["infer", *words, "-o", str(tmp_path / "out")]) == 5
    assert reason in capsys.readouterr().err


@pytest.mark.parametrize("compute", COMPUTES)
def test_a_processor_without_the_instructions_is_named(
    compute: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host, "processor_flags", lambda: frozenset({"avx512_vnni"}))
    assert f"does not compute in {compute}: it has no " in str(why_not(f"openvino-{compute}"))
    for flag in (f"amx_{compute}", f"avx512_{compute}"):
        monkeypatch.setattr(host, "processor_flags", lambda flag=flag: frozenset({flag}))
        assert why_not(f"openvino-{compute}") is None
    monkeypatch.setattr(host, "processor_flags", lambda: None)
    assert why_not(f"openvino-{compute}") is None, "then the runtime is asked"


def test_a_runtime_that_would_ignore_the_type_is_refused(
    tiny_onnx: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(OpenVINOBf16Backend, "capability", "NO SUCH TYPE")
    with pytest.raises(RuntimeUnavailable, match="does not compute in bf16 on this processor"):
        OpenVINOBf16Backend(read_artifact(tiny_onnx))


@pytest.mark.usefixtures("bf16")
def test_convolutions_run_in_bfloat16_where_that_was_named_and_nowhere_else() -> None:
    image = np.zeros((1, 1, 512, 512), np.uint8)
    for compute, kernel in ((None, "f32"), ("bf16", "bf16")):
        with load(compute=compute) as model:  # type: ignore[arg-type]
            operators = model.backend.operators(image, 1)  # type: ignore[attr-defined]
            kernels = {one.kernel for one in operators if one.kind == "Convolution"}
            assert kernels and all(name.endswith(kernel) for name in kernels)


@pytest.mark.usefixtures("bf16")
def test_the_packages_model_keeps_its_answers_in_bfloat16() -> None:
    with open_backend(DEFAULT_ONNX, "openvino-bf16") as backend:
        assert 0 < self_test(backend).mean_steps < 4


@pytest.mark.usefixtures("bf16")
@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_other_files_than_float32_are_refused(
    precision: str, tiny_onnx: Path, tmp_path: Path
) -> None:
    tiny = read_artifact(tiny_onnx)
    path = tmp_path / "a.onnx"
    write_artifact(path, tiny.data, replace(tiny.sidecar, precision=precision))  # type: ignore[arg-type]
    with pytest.raises(RefusedError, match="computes float32 files only"):
        open_backend(path, "openvino-bf16")


@pytest.mark.parametrize("backend", ["openvino-bf16", "torch-bf16"])
def test_the_limits_of_bfloat16_are_its_own_and_no_verdict_may_flip(backend: str) -> None:
    own = {limit.figure: limit for limit in read_limits().of("fp32", backend)}
    common = {limit.figure: limit for limit in read_limits().of("fp32")}
    assert own["agreement"].value < common["agreement"].value
    assert own["flips"] == common["flips"] and own["flips"].value == 0
    assert own["iou_drop"].value == 0.005


@pytest.mark.usefixtures("bf16")
def test_a_run_is_named_by_its_number_type_and_not_resumed_in_another(
    tiny_onnx: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images, output = tmp_path / "images", tmp_path / "out"
    images.mkdir()
    write_png(images / "a.png", part(1))
    words = ["infer", str(images), "-o", str(output), "-m", str(tiny_onnx)]
    assert run(tinyunet, [*words, "--compute", "bf16"]) == 0
    assert json.loads((output / "run.json").read_text())["backend"] == "openvino-bf16"
    assert run(tinyunet, words) == 4
    assert "was made with another backend" in capsys.readouterr().err
    assert run(tinyunet, [*words, "--compute", "bf16", "--backend", "openvino"]) == 0


@pytest.mark.usefixtures("bf16")
def test_parity_takes_the_number_type(
    tiny_onnx: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed in range(2):
        write_png(tmp_path / f"{seed}.png", part(seed))
    words = ["parity", str(tmp_path), "-m", str(tiny_onnx), "--compute", "bf16"]
    assert run(tinyunet, [*words, "--format", "json"]) in (0, 6)
    artifacts = json.loads(capsys.readouterr().out)["comparisons"]
    assert [one["backend"] for one in artifacts] == ["openvino-bf16"]
    assert run(tinyunet, [*words, "--backend", "onnxruntime"]) == 4
    assert "does not compute in bf16" in capsys.readouterr().err
