"""GPU interface of the TensorRT backend: memory, streams, events, copies, graphs.

Streams and events are explicit, so that copies can overlap computing. :class:`PyCUDADevice` is a
real GPU; :class:`tinyunet_deploy.testing.fake_cuda.FakeDevice` computes on numpy arrays.
"""

from __future__ import annotations

import abc
import contextlib
import functools
import importlib.metadata
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import numpy as np

from tinyunet_deploy.backends import nvidia_probe
from tinyunet_deploy.backends.install_hint import install_hint
from tinyunet_deploy.contract import Batch
from tinyunet_deploy.errors import RuntimeUnavailable, unavailable

__all__ = ["Device", "Event", "Graph", "Memory", "PyCUDADevice", "Stream"]


class Event(Protocol):
    """A point in a stream's work, with pycuda's interface."""

    def record(self, stream: Any) -> object:
        """Place the event after all work that is queued on the stream now."""

    def time_since(self, earlier: Any) -> float:
        """Return the milliseconds from ``earlier`` to this event; both must have happened."""


class Stream(Protocol):
    """A queue of work that the GPU runs in order, with pycuda's interface."""

    @property
    def handle(self) -> int:
        """Address of the stream, for TensorRT."""

    def wait_for_event(self, event: Any) -> None:
        """Make all work that is queued from now on wait for the event."""

    def synchronize(self) -> object:
        """Wait until all queued work is done."""


class Memory(Protocol):
    """Bytes on the GPU; freed with its last reference."""

    def __int__(self) -> int: ...


class Graph(Protocol):
    """Captured work that is launched as a whole; destroyed with its last reference."""

    def launch(self) -> None:
        """Queue the work on the stream it was captured from."""


class Device(abc.ABC):
    """One GPU.

    Every method except ``close`` must be called inside ``with device.current():``, on any thread.
    Streams, events, memory, arrays and graphs of the device must be dropped inside it too.
    """

    gpu: nvidia_probe.GPU
    versions: dict[str, str]
    """Package name -> version of the packages that access the GPU."""

    @abc.abstractmethod
    def current(self) -> contextlib.AbstractContextManager[None]:
        """Make the GPU's context current on this thread.

        Raises:
            RuntimeUnavailable: replaces the runtime's own errors, such as a lost GPU; it is
                OutOfMemory if memory is short.
        """

    @abc.abstractmethod
    def stream(self) -> Stream:
        """Return a new stream that does not wait for the default one."""

    @abc.abstractmethod
    def event(self) -> Event:
        """Return a new event that records the time."""

    @abc.abstractmethod
    def allocate(self, size: int) -> Memory:
        """Allocate ``size`` bytes on the GPU, aligned to 256 bytes."""

    @abc.abstractmethod
    def free_bytes(self) -> int:
        """Return how much of the GPU's memory is free, with other processes' use counted."""

    @abc.abstractmethod
    def pinned(self, shape: tuple[int, ...]) -> Batch:
        """Return a uint8 array in page-locked memory, for copies while the GPU computes."""

    @abc.abstractmethod
    def upload(self, host: Batch, memory: Memory, stream: Stream) -> None:
        """Queue a copy of a pinned array to the GPU."""

    @abc.abstractmethod
    def download(self, memory: Memory, host: Batch, stream: Stream) -> None:
        """Queue a copy from the GPU into a pinned array."""

    @abc.abstractmethod
    def capture(self, stream: Stream, enqueue: Callable[[], bool]) -> Graph | None:
        """Capture the work that ``enqueue`` queues on the stream; None if that is not possible."""

    @abc.abstractmethod
    def close(self) -> None:
        """Release the GPU; all its streams, events, memory and graphs must be gone."""


class PyCUDADevice(Device):
    """A GPU through pycuda, in the primary context, which CUDA's runtime and so TensorRT use too.

    ``pycuda.autoinit`` would make a second context. The primary one is kept for the life of the
    process, as CUDA's runtime does: pycuda's ``detach`` would leave it on the thread's stack.
    pycuda does not support graphs, so they are captured with cuda-python if it is installed.

    Args:
        index: index of the GPU, from 0.

    Raises:
        RuntimeUnavailable: the driver, the GPU or pycuda is missing.
    """

    def __init__(self, index: int) -> None:
        self.gpu = nvidia_probe.gpu(index)
        try:
            import pycuda.driver as cuda
        except ImportError as error:
            raise RuntimeUnavailable(
                "pycuda", f"cannot be imported: {error}", install_hint("pycuda", "gpu")
            ) from error
        self.versions = {"pycuda": importlib.metadata.version("pycuda")}
        self._cuda = cuda
        try:
            self._context = _primary_context(cuda, index)
        except cuda.Error as error:
            raise RuntimeUnavailable(self.gpu.name, str(error)) from error

    @contextlib.contextmanager
    def current(self) -> Iterator[None]:
        try:
            self._context.push()
            try:
                yield
            finally:
                self._cuda.Context.pop()
        except self._cuda.Error as error:
            raise unavailable(self.gpu.name, str(error)) from error

    def stream(self) -> Stream:
        non_blocking = 1  # CU_STREAM_NON_BLOCKING, for which pycuda has no name
        stream: Stream = self._cuda.Stream(flags=non_blocking)
        return stream

    def event(self) -> Event:
        event: Event = self._cuda.Event()
        return event

    def allocate(self, size: int) -> Memory:
        memory: Memory = self._cuda.mem_alloc(size)
        return memory

    def free_bytes(self) -> int:
        free, _ = self._cuda.mem_get_info()
        return int(free)

    def pinned(self, shape: tuple[int, ...]) -> Batch:
        array: Batch = self._cuda.pagelocked_empty(shape, np.uint8)
        return array

    def upload(self, host: Batch, memory: Memory, stream: Stream) -> None:
        self._cuda.memcpy_htod_async(memory, host, stream)

    def download(self, memory: Memory, host: Batch, stream: Stream) -> None:
        self._cuda.memcpy_dtoh_async(host, memory, stream)

    def capture(self, stream: Stream, enqueue: Callable[[], bool]) -> Graph | None:
        try:
            from cuda.bindings import driver
        except ImportError:
            return None
        return _capture(driver, stream, enqueue)

    def close(self) -> None:
        pass


@functools.cache
def _primary_context(cuda: Any, index: int) -> Any:
    cuda.init()
    return cuda.Device(index).retain_primary_context()


def _capture(driver: Any, stream: Stream, enqueue: Callable[[], bool]) -> Graph | None:
    done = driver.CUresult.CUDA_SUCCESS
    mode = driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
    (status,) = driver.cuStreamBeginCapture(stream.handle, mode)
    if status != done:
        return None
    enqueued = False
    try:
        enqueued = enqueue()
    finally:  # a stream left in capture mode cannot be used again
        status, graph = driver.cuStreamEndCapture(stream.handle)
    if status != done:
        return None
    try:
        if not enqueued:
            return None
        status, executable = driver.cuGraphInstantiate(graph, 0)
    finally:
        driver.cuGraphDestroy(graph)
    return _CUDAGraph(driver, executable, stream) if status == done else None


class _CUDAGraph:
    def __init__(self, driver: Any, executable: Any, stream: Stream) -> None:
        self._driver = driver
        self._executable = executable
        self._stream = stream

    def launch(self) -> None:
        (status,) = self._driver.cuGraphLaunch(self._executable, self._stream.handle)
        if status != self._driver.CUresult.CUDA_SUCCESS:
            raise RuntimeUnavailable("CUDA graph", f"does not launch: {status.name}")

    def __del__(self) -> None:
        self._driver.cuGraphExecDestroy(self._executable)
