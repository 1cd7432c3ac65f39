"""GPU interface of the PyTorch backend: the device of TensorRT's backend, through torch."""

from __future__ import annotations

import abc
import contextlib
import importlib.metadata
import logging
import math
from collections.abc import Callable, Iterator
from typing import Any

import torch

from tinyunet_deploy.backends.cuda_device import Device, Event, Graph, Memory, Stream
from tinyunet_deploy.backends.nvidia_probe import GPU, gpu_index
from tinyunet_deploy.contract import Batch
from tinyunet_deploy.errors import RuntimeUnavailable, unavailable

__all__ = ["TorchCUDADevice", "TorchDevice"]

log = logging.getLogger(__name__)


class TorchDevice(Device):
    """A GPU on which torch computes.

    :class:`TorchCUDADevice` is a real one;
    :class:`tinyunet_deploy.testing.fake_torch_device.FakeTorchDevice` computes on the CPU.
    """

    place: torch.device
    """Where the weights belong."""

    @abc.abstractmethod
    def tensor(self, memory: Memory, shape: tuple[int, ...]) -> torch.Tensor:
        """Return memory of the GPU as a uint8 tensor of this shape, without a copy."""

    @abc.abstractmethod
    def queue(self, stream: Stream, work: Callable[[], None]) -> None:
        """Queue torch operations on a stream."""


class TorchCUDADevice(TorchDevice):
    """An NVIDIA GPU through ``torch.cuda``. Not yet run on hardware.

    Args:
        device: ``cuda:N``.

    Raises:
        RuntimeUnavailable: torch sees no such GPU.
    """

    def __init__(self, device: str) -> None:
        index = gpu_index(device)
        if index >= torch.cuda.device_count():
            raise RuntimeUnavailable(device, "torch sees no such GPU", "use --device cpu")
        self.place = torch.device("cuda", index)
        major, minor = torch.cuda.get_device_capability(self.place)
        self.gpu = GPU(torch.cuda.get_device_name(self.place), f"{major}.{minor}")
        self.versions = {"torch": importlib.metadata.version("torch")}
        self._pools: dict[int, Any] = {}
        """Address of a stream -> memory pool of its graphs. Graphs of one stream run one after the
        other, so they may share their memory; those of two streams may not."""

    @contextlib.contextmanager
    def current(self) -> Iterator[None]:
        try:
            with torch.cuda.device(self.place):
                yield
        except RuntimeError as error:  # also torch.OutOfMemoryError and torch.AcceleratorError
            reason = (str(error).strip() or repr(error)).splitlines()[0]
            raise unavailable(self.gpu.name, f"torch failed: {reason}") from error

    def stream(self) -> Stream:
        return _TorchStream(torch.cuda.Stream(self.place))  # type: ignore[no-untyped-call]

    def event(self) -> Event:
        return _TorchEvent(torch.cuda.Event(enable_timing=True))  # type: ignore[no-untyped-call]

    def allocate(self, size: int) -> Memory:
        return _TorchMemory(torch.empty(size, dtype=torch.uint8, device=self.place))

    def free_bytes(self) -> int:
        free, _ = torch.cuda.mem_get_info(self.place)
        return int(free)

    def pinned(self, shape: tuple[int, ...]) -> Batch:
        array: Batch = torch.empty(shape, dtype=torch.uint8, pin_memory=True).numpy()
        return array

    def tensor(self, memory: Memory, shape: tuple[int, ...]) -> torch.Tensor:
        assert isinstance(memory, _TorchMemory)
        return memory.data[: math.prod(shape)].view(shape)

    def upload(self, host: Batch, memory: Memory, stream: Stream) -> None:
        there = self.tensor(memory, host.shape)
        # CUDA recognises page-locked memory by its address, so the copy is asynchronous
        self.queue(stream, lambda: _copy(there, torch.from_numpy(host)))

    def download(self, memory: Memory, host: Batch, stream: Stream) -> None:
        there = self.tensor(memory, host.shape)
        self.queue(stream, lambda: _copy(torch.from_numpy(host), there))

    def queue(self, stream: Stream, work: Callable[[], None]) -> None:
        with _entered(stream):
            work()

    def capture(self, stream: Stream, enqueue: Callable[[], bool]) -> Graph | None:
        assert isinstance(stream, _TorchStream)
        graph = torch.cuda.CUDAGraph()
        pool = self._pools.get(stream.handle)
        if pool is None:
            pool = self._pools[stream.handle] = torch.cuda.graph_pool_handle()
        capturing = torch.cuda.graph(
            graph, pool=pool, stream=stream.torch, capture_error_mode="thread_local"
        )
        try:
            with capturing:
                enqueued = enqueue()
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[0]
            log.warning("%s: runs without a CUDA graph: %s", self.gpu.name, reason)
            return None
        return _TorchGraph(graph, stream) if enqueued else None

    def close(self) -> None:
        """Return the freed memory to other programs."""
        self._pools.clear()
        torch.cuda.empty_cache()


def _copy(target: torch.Tensor, source: torch.Tensor) -> None:
    target.copy_(source, non_blocking=True)


def _entered(stream: Stream) -> contextlib.AbstractContextManager[Any]:
    """Make a stream the one that torch queues on."""
    assert isinstance(stream, _TorchStream)
    context: contextlib.AbstractContextManager[Any] = torch.cuda.stream(stream.torch)
    return context


class _TorchStream:
    def __init__(self, stream: torch.cuda.Stream) -> None:
        self.torch = stream

    @property
    def handle(self) -> int:
        return int(self.torch.cuda_stream)

    def wait_for_event(self, event: _TorchEvent) -> None:
        self.torch.wait_event(event.torch)

    def synchronize(self) -> None:
        self.torch.synchronize()


class _TorchEvent:
    def __init__(self, event: torch.cuda.Event) -> None:
        self.torch = event

    def record(self, stream: _TorchStream) -> None:
        self.torch.record(stream.torch)

    def time_since(self, earlier: _TorchEvent) -> float:
        return float(earlier.torch.elapsed_time(self.torch))


class _TorchMemory:
    def __init__(self, data: torch.Tensor) -> None:
        self.data = data

    def __int__(self) -> int:
        return self.data.data_ptr()


class _TorchGraph:
    def __init__(self, graph: torch.cuda.CUDAGraph, stream: _TorchStream) -> None:
        self._graph = graph
        self._stream = stream

    def launch(self) -> None:
        with _entered(self._stream):
            self._graph.replay()
