"""ONNX Runtime's GPU providers, as far as they can be held to account without a GPU."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from tinyunet_deploy import backends
from tinyunet_deploy.artifacts.precision import Precision
from tinyunet_deploy.artifacts.sidecar import (
    Artifact,
    Sidecar,
    digest,
    read_artifact,
    write_artifact,
)
from tinyunet_deploy.backends import nvidia_probe
from tinyunet_deploy.backends import onnxruntime as module
from tinyunet_deploy.backends.onnxruntime import (
    DeviceBinding,
    ONNXRuntimeBackend,
    ONNXRuntimeTensorRTBackend,
    cache_folder,
    cuda_options,
    tensorrt_options,
)
from tinyunet_deploy.backends.registry import open_backend
from tinyunet_deploy.contract import Contract
from tinyunet_deploy.errors import RuntimeUnavailable


@pytest.fixture(scope="module")
def inverting() -> bytes:
    """A graph of our contract: score = 255 - image."""
    shape = ["N", 1, 16, 16]
    white = helper.make_tensor("white", TensorProto.UINT8, [], [255])
    graph = helper.make_graph(
        [helper.make_node("Sub", ["white", "image"], ["score"])],
        "inverting",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, shape)],
        [helper.make_tensor_value_info("score", TensorProto.UINT8, shape)],
        [white],
    )
    opset = [helper.make_opsetid("", 18)]
    return helper.make_model(graph, opset_imports=opset, ir_version=10).SerializeToString()


def artifact(data: bytes, precision: Precision = "fp32", max_batch: int | None = None) -> Artifact:
    contract = Contract(16, 16, max_batch=max_batch)
    sidecar = Sidecar("onnx", precision, digest(data), "0" * 64, contract)
    return Artifact(Path("model.onnx"), data, sidecar)


def test_bound_buffers_give_each_batch_its_own_scores(inverting: bytes) -> None:
    onnx.checker.check_model(onnx.load_from_string(inverting))
    session = onnxruntime.InferenceSession(inverting, providers=["CPUExecutionProvider"])
    binding = DeviceBinding.of(session, (2, 1, 16, 16), "cpu", 0)
    first, second = np.random.default_rng(1).integers(0, 256, (2, 2, 1, 16, 16), dtype=np.uint8)
    runs = [binding.run(session, image) for image in (first, second)]
    np.testing.assert_array_equal(runs[0].score, 255 - first)
    np.testing.assert_array_equal(runs[1].score, 255 - second)


def test_a_gpu_that_the_installed_onnxruntime_cannot_reach_is_refused(
    inverting: bytes, tmp_path: Path
) -> None:
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime reaches GPUs")
    path = tmp_path / "model.onnx"
    write_artifact(path, inverting, artifact(inverting).sidecar)
    with pytest.raises(RuntimeUnavailable, match="has no CUDAExecutionProvider"):
        open_backend(path, "onnxruntime", "cuda:0")
    with pytest.raises(RuntimeUnavailable, match="has no TensorRT provider"):
        open_backend(path, "onnxruntime-tensorrt", "cuda:0")


def test_why_not_onnxruntime_tensorrt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvidia_probe, "onnxruntime_tensorrt", lambda: 10)
    monkeypatch.setattr(nvidia_probe, "why_no_driver", lambda: None)
    assert backends.why_not("onnxruntime-tensorrt") is None
    monkeypatch.setattr(nvidia_probe, "why_no_driver", lambda: "no driver")
    assert backends.why_not("onnxruntime-tensorrt") == "no driver"


def test_the_cpu_is_no_device_for_the_tensorrt_provider(inverting: bytes) -> None:
    with pytest.raises(RuntimeUnavailable, match="use --device cuda:0"):
        ONNXRuntimeTensorRTBackend(artifact(inverting), "cpu")


@pytest.mark.parametrize(
    ("precision", "fp16", "int8"),
    [("fp32", False, False), ("fp16", True, False), ("int8", False, True)],
)
def test_the_tensorrt_provider_builds_what_the_file_is(
    precision: Precision, fp16: bool, int8: bool, tmp_path: Path
) -> None:
    options = tensorrt_options(artifact(b"", precision, max_batch=4), tmp_path)
    assert (options["trt_fp16_enable"], options["trt_int8_enable"]) == (fp16, int8)
    assert options["trt_profile_min_shapes"] == "image:1x1x16x16"
    assert options["trt_profile_opt_shapes"] == "image:4x1x16x16"
    assert options["trt_profile_max_shapes"] == "image:4x1x16x16"
    assert options["trt_engine_cache_path"] == options["trt_timing_cache_path"] == str(tmp_path)


def test_cuda_graphs_are_asked_for_where_onnxruntime_takes_them() -> None:
    assert cuda_options(artifact(b""), 1, True)["enable_cuda_graph"] == 1
    assert cuda_options(artifact(b"", "int8"), 1, True)["enable_cuda_graph"] == 0
    assert cuda_options(artifact(b""), 1, False)["enable_cuda_graph"] == 0
    assert cuda_options(artifact(b""), 1, True)["device_id"] == 1


def test_cached_engines_belong_to_one_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/cache")
    one, other = cache_folder(artifact(b"one")), cache_folder(artifact(b"other"))
    assert one != other
    assert one.parts[:3] == ("/", "cache", "tinyunet-deploy")


@pytest.mark.parametrize(
    ("flags", "unsigned", "warned"),
    [
        ({"avx2"}, True, True),
        ({"avx2"}, False, False),
        ({"avx2", "avx_vnni"}, True, False),
        ({"avx2", "avx512_vnni"}, True, False),
        ({"asimd"}, True, False),
        (None, True, False),
    ],
)
def test_a_processor_on_which_unsigned_activations_may_overflow_is_told(
    flags: set[str] | None, unsigned: bool, warned: bool, tiny_onnx: Path,
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    monkeypatch.setattr(module, "processor_flags", lambda: flags)
    tiny = read_artifact(tiny_onnx)
    ONNXRuntimeBackend(replace(tiny, sidecar=replace(tiny.sidecar, unsigned_activations=unsigned)))
    assert bool([line for line in caplog.messages if "VNNI" in line]) is warned
