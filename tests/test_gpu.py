"""What only an NVIDIA GPU can show. Without one all of this is left out."""

import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tinyunet_deploy.artifacts.sidecar import DEFAULT_CHECKPOINT, DEFAULT_ONNX, read_artifact
from tinyunet_deploy.backends import nvidia_probe
from tinyunet_deploy.backends.cuda_device import PyCUDADevice
from tinyunet_deploy.backends.registry import open_backend
from tinyunet_deploy.backends.table import BACKENDS
from tinyunet_deploy.data import synthetic
from tinyunet_deploy.errors import RuntimeUnavailable
from tinyunet_deploy.quality.self_test import self_test
from tinyunet_deploy.speed.peaks import gpu_ceilings


def has_gpu() -> bool:
    try:
        return bool(nvidia_probe.gpus())
    except RuntimeUnavailable:
        return False


pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not has_gpu(), reason="there is no GPU"),
]


def images(count: int) -> np.ndarray:
    return np.stack(
        [synthetic.sample(1 + n, n, defective=True, size=512).image for n in range(count)]
    )[:, None]


def test_the_gpu_is_named_and_its_clocks_are_read() -> None:
    gpu = nvidia_probe.gpu(0)
    assert gpu.name.startswith("NVIDIA") and float(gpu.compute_capability) >= 7.0
    clocks = nvidia_probe.clocks(0)
    assert clocks is not None and clocks.sm_mhz > 0 and 0 < clocks.temperature_c < 110


def test_torch_answers_on_the_gpu_as_on_the_cpu() -> None:
    batch = images(3)
    with open_backend(DEFAULT_CHECKPOINT, "torch", "cpu") as cpu:
        wanted = cpu.run(batch).score.astype(int)
    with open_backend(DEFAULT_CHECKPOINT, "torch", "cuda:0") as gpu:
        run = gpu.run(batch)
    assert np.abs(run.score - wanted).max() <= 1
    assert run.device_ms > 0 and run.copy_in_ms > 0 and run.copy_out_ms > 0


@pytest.mark.parametrize("graphs", [True, False])
@pytest.mark.parametrize(
    ("name", "most"), [("torch", 0.01), ("torch-fp16", 0.5), ("torch-bf16", 4)]
)
def test_torch_overlaps_batches_of_every_size(name: str, most: float, graphs: bool) -> None:
    batch = images(4)
    with open_backend(DEFAULT_CHECKPOINT, "torch", "cpu") as cpu:
        wanted = cpu.run(batch).score.astype(int)
    implementation: Any = BACKENDS[name].load_class()
    parts = [slice(0, 2), slice(2, 4), slice(0, 4), slice(3, 4), slice(0, 2), slice(0, 4)]
    with implementation(read_artifact(DEFAULT_CHECKPOINT), "cuda:0", graphs=graphs) as gpu:
        for part, run in zip(parts, gpu.run_many(batch[part] for part in parts), strict=True):
            assert np.abs(run.score - wanted[part]).mean() <= most
            assert run.device_ms > 0 and run.copy_in_ms > 0 and run.copy_out_ms > 0


@pytest.mark.parametrize("graphs", [True, False])
def test_onnxruntime_answers_on_the_gpu_as_on_the_cpu_in_every_batch_size(graphs: bool) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime has no CUDA")
    from tinyunet_deploy.backends.onnxruntime import ONNXRuntimeBackend

    batch = images(4)
    with open_backend(DEFAULT_ONNX, "onnxruntime", "cpu") as cpu:
        wanted = cpu.run(batch).score.astype(int)
    with ONNXRuntimeBackend(read_artifact(DEFAULT_ONNX), "cuda:0", graphs=graphs) as gpu:
        for size in (4, 1, 2, 1, 4):  # back to a size whose graph is there already
            for start in range(5 - size):
                part = slice(start, start + size)
                assert np.abs(gpu.run(batch[part]).score - wanted[part]).max() <= 1


def test_pycuda_copies_orders_and_captures() -> None:
    pytest.importorskip("pycuda")
    device = PyCUDADevice(0)
    with device.current():
        copy_between_streams(device)
        replay_a_graph(device)
    device.close()


def copy_between_streams(device: PyCUDADevice) -> None:
    first, second, memory = device.stream(), device.stream(), device.allocate(1 << 20)
    there, back = device.pinned((1, 1, 1024, 1024)), device.pinned((1, 1, 1024, 1024))
    there[:] = np.random.default_rng(0).integers(0, 256, there.shape, np.uint8)
    begun, uploaded = device.event(), device.event()
    begun.record(first)
    device.upload(there, memory, first)
    uploaded.record(first)
    second.wait_for_event(uploaded)
    device.download(memory, back, second)
    second.synchronize()
    np.testing.assert_array_equal(back, there)
    assert uploaded.time_since(begun) > 0


def replay_a_graph(device: PyCUDADevice) -> None:
    pytest.importorskip("cuda.bindings.driver")
    stream, memory = device.stream(), device.allocate(256)
    there, back = device.pinned((256,)), device.pinned((256,))

    def enqueue() -> bool:
        device.upload(there, memory, stream)
        device.download(memory, back, stream)
        return True

    graph = device.capture(stream, enqueue)
    assert graph is not None
    there[:], back[:] = 7, 0
    graph.launch()
    stream.synchronize()
    assert (back == 7).all()
    assert device.capture(stream, lambda: False) is None


def test_the_context_of_pycuda_serves_other_threads_and_torch() -> None:
    torch = pytest.importorskip("torch")
    pytest.importorskip("pycuda")
    device = PyCUDADevice(0)
    seen = []

    def use() -> None:
        with device.current():
            memory, stream, host = device.allocate(16), device.stream(), device.pinned((16,))
            host[:] = 3
            device.upload(host, memory, stream)
            stream.synchronize()
            seen.append(True)
            del memory, stream, host

    threads = [threading.Thread(target=use) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seen) == 4
    assert int(torch.arange(4, device="cuda").sum()) == 6


def test_more_memory_than_there_is_is_refused_in_one_line() -> None:
    pytest.importorskip("pycuda")
    device = PyCUDADevice(0)
    with pytest.raises(RuntimeUnavailable, match="memory"), device.current():
        device.allocate(1 << 42)
    with device.current():  # and the context still works
        device.allocate(16)


def test_the_ceilings_of_the_gpu_are_plausible() -> None:
    found = {ceiling.kind: ceiling.value for ceiling in gpu_ceilings("cuda:0")}
    assert set(found) == {
        "float32", "tf32", "float16", "int8", "memory", "to device", "from device",
    }  # fmt: skip
    assert found["float32"] < found["float16"] and found["memory"] > 100


@pytest.mark.parametrize("flags", [[], ["--amp"], ["--amp", "--compile"]])
def test_what_is_trained_on_the_gpu_answers_on_the_cpu(flags: list[str], tmp_path: Path) -> None:
    data = tmp_path / "data"
    for args in (
        ["-c", "import sys; from tinyunet_deploy.cli import main; sys.exit(main())", "data",
         "synthesize", data, "--classes", "1", "--train", "8",
         "--test", "2", "--defective", "0.5"],
        ["-m", "training", "reference", "--data", data, "--steps", "6", "--device", "cuda",
         "--output", tmp_path / "run", *flags],
    ):  # fmt: skip
        done = subprocess.run(
            [sys.executable, *map(str, args)],
            cwd=Path(__file__).parent.parent, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    with open_backend(tmp_path / "run" / "checkpoint.safetensors") as backend:
        self_test(backend)
        assert backend.run(images(1)).score.shape == (1, 1, 512, 512)
