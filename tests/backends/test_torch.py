"""The PyTorch backend: number types on the CPU, and buffers, streams and graphs on a fake GPU."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import gc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from tests.conftest import part
from tinyunet_deploy.artifacts.checkpoint import network_of
from tinyunet_deploy.artifacts.network import Network
from tinyunet_deploy.artifacts.sidecar import Artifact, read_artifact
from tinyunet_deploy.backends.nvidia_probe import GPU
from tinyunet_deploy.backends.table import BACKENDS
from tinyunet_deploy.backends.torch import TorchBackend, TorchBf16Backend, TorchFp16Backend
from tinyunet_deploy.backends.torch_device import TorchCUDADevice
from tinyunet_deploy.contract import Batch
from tinyunet_deploy.errors import OutOfMemory, RefusedError, RuntimeUnavailable
from tinyunet_deploy.testing.fake_cuda import interleavings
from tinyunet_deploy.testing.fake_torch_device import FakeTorchDevice

CLASSES = (TorchBackend, TorchFp16Backend, TorchBf16Backend)


@pytest.fixture(scope="module")
def artifact(tiny_checkpoint: Path) -> Artifact:
    """A checkpoint for images of 16x16 pixels, which are scored in a millisecond."""
    tiny = read_artifact(tiny_checkpoint)
    contract = dataclasses.replace(tiny.sidecar.contract, height=16, width=16)
    return dataclasses.replace(tiny, sidecar=dataclasses.replace(tiny.sidecar, contract=contract))


@pytest.fixture(scope="module")
def network(artifact: Artifact) -> Network:
    return network_of(artifact)


@pytest.fixture(autouse=True)
def one_network(artifact: Artifact, network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    """Copy a network instead of making one: that takes longer than to score with it."""

    def load(asked: Artifact) -> Network:
        return copy.deepcopy(network) if asked is artifact else network_of(asked)

    monkeypatch.setattr("tinyunet_deploy.backends.torch.network_of", load)


def batches(sizes: list[int]) -> list[Batch]:
    random = np.random.default_rng(1)
    return [random.integers(0, 256, (size, 1, 16, 16), dtype=np.uint8) for size in sizes]


def steps(first: Batch, second: Batch) -> Any:
    return np.abs(first.astype(int) - second.astype(int))


# --- number types ---------------------------------------------------------------------------------


def test_each_class_computes_in_its_own_type(artifact: Artifact) -> None:
    seen: list[torch.dtype] = []

    def look(module: Any, inputs: Any, output: torch.Tensor) -> None:
        seen.append(output.dtype)

    for backend_class in CLASSES:
        assert BACKENDS[backend_class.name].load_class() is backend_class
        seen.clear()
        with backend_class(artifact) as loaded:
            for module in loaded._graph.modules():
                if isinstance(module, torch.nn.Conv2d):
                    module.register_forward_hook(look)
            loaded.run(batches([1])[0])
        assert len(seen) == 23 and set(seen) == {backend_class.number_type}


def test_rounded_numbers_stay_near_float32_and_are_not_float32(tiny_checkpoint: Path) -> None:
    images = np.stack([part(seed)[None] for seed in range(2)])
    checkpoint = read_artifact(tiny_checkpoint)
    with TorchBackend(checkpoint) as exact:
        wanted = exact.run(images).score
    for backend_class, most in ((TorchFp16Backend, 0.5), (TorchBf16Backend, 4.0)):
        with backend_class(checkpoint) as loaded:
            difference = steps(loaded.run(images).score, wanted)
            assert loaded.versions == {"torch": torch.__version__}
        assert 0 < difference.mean() < most


def test_weights_that_half_precision_cannot_hold_are_refused(artifact: Artifact) -> None:
    weights = safetensors.torch.load(artifact.data)
    next(iter(weights.values()))[0] = 1e5  # float16 ends at 65504
    large = dataclasses.replace(artifact, data=safetensors.torch.save(weights))
    with pytest.raises(RefusedError, match=r"float16 cannot hold \(use --compute bf16"):
        TorchFp16Backend(large)
    TorchBf16Backend(large).close()


# --- buffers, streams and graphs, on a fake GPU ---------------------------------------------------


def on_fake_gpu(
    artifact: Artifact,
    device: FakeTorchDevice,
    backend_class: type[TorchBackend] = TorchBackend,
    **options: Any,
) -> TorchBackend:
    return backend_class(artifact, "cuda:0", gpu=device, **options)


@pytest.mark.parametrize(("seed", "graphs"), [(None, True), (0, True), (1, False)])
def test_every_batch_gets_its_own_scores_as_buffers_grow(
    artifact: Artifact, seed: int | None, graphs: bool
) -> None:
    images = batches([1, 2, 3, 3, 1, 2])
    with TorchBackend(artifact) as cpu:
        wanted = [cpu.run(image).score for image in images]
    device = FakeTorchDevice(seed=seed)
    with on_fake_gpu(artifact, device, graphs=graphs) as loaded:
        runs = list(loaded.run_many(images))
        once = [loaded.run(image).score for image in images]
    for score, run, single in zip(wanted, runs, once, strict=True):
        assert steps(run.score, score).max() <= 1, "another batch size sums in another order"
        assert np.array_equal(run.score, single)
        assert run.device_ms > 0 and run.copy_in_ms > 0 and run.copy_out_ms > 0
    assert (device.launches > 0) == graphs
    assert device.closed


def test_no_order_that_the_streams_allow_changes_a_score(
    artifact: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tinyunet_deploy.backends.torch._WARM_UP", 1)
    images = batches([1, 1])
    expected: list[Batch] = []

    def scores(switches: tuple[int, ...]) -> tuple[int, int]:
        device = FakeTorchDevice(switches=switches)
        with on_fake_gpu(artifact, device) as loaded:
            list(loaded.run_many(images))  # both slots make their programs
            first = len(device.history)
            answers = [run.score for run in loaded.run_many(images)]
            expected.extend(answers if not expected else [])
            for answer, wanted in zip(answers, expected, strict=True):
                np.testing.assert_array_equal(answer, wanted, str(switches))
            return first, len(device.history)

    first, end = scores(())
    for switches in interleavings(first, end, most=1):
        scores(switches)


def test_one_graph_is_captured_for_each_batch_size_and_slot(artifact: Artifact) -> None:
    device = FakeTorchDevice()
    with on_fake_gpu(artifact, device, TorchFp16Backend) as loaded:
        list(loaded.run_many(batches([2, 2, 1, 1])))
        before = len(device.history)
        list(loaded.run_many(batches([2, 2, 1, 1])))
        again = device.history[before:]
    assert device.launches == 8
    assert sum(step.startswith("compute") for step in again) == 4, "no warm-up the second time"


def test_a_forgotten_backend_frees_the_gpu(artifact: Artifact) -> None:
    device = FakeTorchDevice()
    loaded = on_fake_gpu(artifact, device)
    loaded.run(batches([2])[0])
    del loaded
    gc.collect()
    assert device.closed


def test_too_little_memory_is_said_and_a_smaller_batch_still_runs(artifact: Artifact) -> None:
    device = FakeTorchDevice(memory=6 * 256)
    with on_fake_gpu(artifact, device) as loaded:
        with pytest.raises(OutOfMemory):
            loaded.run(batches([8])[0])
        assert loaded.run(batches([1])[0]).score.shape == (1, 1, 16, 16)


def test_an_old_gpu_does_not_compute_in_bfloat16(artifact: Artifact) -> None:
    old = FakeTorchDevice(GPU("Fake T4", "7.5"))
    with pytest.raises(RuntimeUnavailable, match=r"does not compute in bf16 \(use --compute fp16"):
        on_fake_gpu(artifact, old, TorchBf16Backend)
    on_fake_gpu(artifact, old, TorchFp16Backend).close()


def test_a_gpu_that_torch_does_not_see_is_named(artifact: Artifact) -> None:
    if torch.cuda.is_available():
        pytest.skip("torch sees a GPU")
    with pytest.raises(RuntimeUnavailable, match=r"cuda:0: torch sees no such GPU"):
        TorchFp16Backend(artifact, "cuda:0")


# --- the calls of torch.cuda, with stand-ins on the CPU -------------------------------------------


class Stream:
    """Stands for torch.cuda.Stream; its work is done at once."""

    def __init__(self, device: torch.device) -> None:
        self.cuda_stream = id(self)
        self.waited: list[object] = []

    def wait_event(self, event: object) -> None:
        self.waited.append(event)

    def synchronize(self) -> None: ...


class Event:
    """Stands for torch.cuda.Event; each one happens a millisecond after the one before."""

    count = 0

    def __init__(self, *, enable_timing: bool) -> None:
        assert enable_timing

    def record(self, stream: Stream) -> None:
        Event.count += 1
        self.at = Event.count

    def elapsed_time(self, later: Event) -> float:
        return float(later.at - self.at)


class Graph:
    """Stands for torch.cuda.CUDAGraph; it replays what the network wrote when it was captured."""

    replays = 0

    def replay(self) -> None:
        Graph.replays += 1


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Let torch.cuda work on the CPU; "capture" is the error of a capture."""
    state: dict[str, Any] = {"capture": None, "current": []}

    @contextlib.contextmanager
    def entered(value: Any) -> Iterator[None]:
        state["current"].append(value)
        yield
        state["current"].pop()

    @contextlib.contextmanager
    def capturing(graph: Graph, *, pool: int, stream: Stream, capture_error_mode: str) -> Any:
        assert capture_error_mode == "thread_local"
        state.setdefault("pools", []).append((pool, stream))
        if state["capture"]:
            raise RuntimeError(state["capture"])
        yield

    empty = torch.empty
    handles = iter(range(100))
    replaced: dict[str, Any] = {
        "device_count": lambda: 1,
        "get_device_capability": lambda place: (9, 0),
        "get_device_name": lambda place: "NVIDIA H200",
        "mem_get_info": lambda place: (5, 9),
        "device": entered,
        "stream": entered,
        "Stream": Stream,
        "Event": Event,
        "CUDAGraph": Graph,
        "graph": capturing,
        "graph_pool_handle": lambda: next(handles),
        "empty_cache": lambda: state.update(emptied=True),
    }
    for name, value in replaced.items():
        assert hasattr(torch.cuda, name)
        monkeypatch.setattr(torch.cuda, name, value)

    def empty_on_cpu(*size: Any, device: Any = None, pin_memory: bool = False, **more: Any) -> Any:
        return empty(*size, **more)

    monkeypatch.setattr(torch, "empty", empty_on_cpu)
    monkeypatch.setattr(torch.nn.Module, "to", lambda self, *args, **options: self)
    return state


def test_the_gpu_is_driven_through_torch_cuda(artifact: Artifact, cuda: dict[str, Any]) -> None:
    images = batches([2, 2, 2])
    with TorchBackend(artifact) as cpu:
        wanted = [cpu.run(image).score for image in images]
    with TorchBackend(artifact, "cuda:0", graphs=False) as loaded:
        for run, score in zip(loaded.run_many(images), wanted, strict=True):
            assert steps(run.score, score).max() <= 1
            assert (run.copy_in_ms, run.device_ms) >= (1.0, 1.0)
    assert cuda["emptied"] and not cuda["current"]
    device = TorchCUDADevice("cuda:0")
    assert device.gpu == ("NVIDIA H200", "9.0") and device.free_bytes() == 5


def test_graphs_of_one_stream_share_memory_and_those_of_two_do_not(
    artifact: Artifact, cuda: dict[str, Any]
) -> None:
    Graph.replays = 0
    with TorchBackend(artifact, "cuda:0") as loaded:
        list(loaded.run_many(batches([2, 2, 1, 1])))
    assert Graph.replays == 4 and len(cuda["pools"]) == 4
    assert len({pool for pool, _ in cuda["pools"]}) == 2
    assert len(set(cuda["pools"])) == 2, "each stream has its own pool"


def test_without_a_capture_it_runs_and_says_so(
    artifact: Artifact, cuda: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    cuda["capture"] = "operation not permitted when stream is capturing"
    with TorchBackend(artifact) as cpu, TorchBackend(artifact, "cuda:0") as loaded:
        (image,) = batches([2])
        assert steps(loaded.run(image).score, cpu.run(image).score).max() <= 1
    assert "runs without a CUDA graph: operation not permitted" in caplog.text


def test_errors_of_torch_are_one_line(cuda: dict[str, Any]) -> None:
    device = TorchCUDADevice("cuda:0")
    for message, error in (
        ("CUDA out of memory. Tried to allocate", OutOfMemory),
        ("CUDA error: an illegal memory access\nCompile with ...", RuntimeUnavailable),
    ):
        failed = pytest.raises(error, match="NVIDIA H200: torch failed: CUDA")
        with failed as caught, device.current():
            raise RuntimeError(message)
        assert "\n" not in str(caught.value)
