"""A GPU and a TensorRT without either, for tests: memory is numpy, a plan is a function.

Work that is queued on a stream happens later, in any order that the streams' waits allow, so a
forgotten wait, a buffer that is reused too early or a use after free shows as a wrong score or an
error.

>>> device = FakeDevice()
>>> trt = FakeTensorRT(device)
>>> backend = TensorRTBackend(artifact, tensorrt=trt.here, gpu=device)  # doctest: +SKIP
"""

from __future__ import annotations

import contextlib
import itertools
import random
import threading
import weakref
from collections import deque
from collections.abc import Callable, Collection, Iterator
from enum import Enum
from types import SimpleNamespace
from typing import Any

import numpy as np

from tinyunet_deploy.backends.cuda_device import Device, Event, Graph, Memory, Stream
from tinyunet_deploy.backends.nvidia_probe import GPU, TensorRT
from tinyunet_deploy.contract import INPUT_NAME, OUTPUT_NAME, Batch, Contract
from tinyunet_deploy.errors import RuntimeUnavailable, unavailable

_POISON = 0xCD


class _Work:
    def __init__(
        self, name: str, run: Callable[[], None], after: Callable[[], bool] = lambda: True
    ) -> None:
        self.name = name
        self.run = run
        self.after = after
        """Whether it may start."""


class FakeStream:
    """A queue whose work is done when the device decides, at the latest when it must be."""

    def __init__(self, device: FakeDevice, handle: int) -> None:
        self._device = device
        self.handle = handle
        self.queue: deque[_Work] = deque()
        self.captured: list[_Work] | None = None

    def put(self, work: _Work) -> None:
        """Queue work, or capture it."""
        self._device.check_current()
        if self.captured is not None:
            self.captured.append(work)
            return
        self.queue.append(work)
        self._device.run_some()

    def wait_for_event(self, event: FakeEvent) -> None:
        """What is queued from now on starts after the event's last record."""
        happened = event.happened
        self.put(_Work("wait", lambda: None, lambda: bool(happened)))

    def synchronize(self) -> None:
        """Do the queued work, and of other streams what it waits for."""
        self._device.check_current()
        if self.captured is not None:
            raise RuntimeUnavailable("fake", "a stream that is captured cannot be waited for")
        self._device.run_until_empty(self)


class FakeEvent:
    """A point in a stream's work."""

    def __init__(self, device: FakeDevice) -> None:
        self._device = device
        self.happened: list[float] = []
        """The time, once the last record was reached."""

    def record(self, stream: FakeStream) -> None:
        """Happen when what the stream holds now is done."""
        happened = self.happened = []
        stream.put(_Work("event", lambda: happened.append(self._device.clock_ms)))

    def time_since(self, earlier: FakeEvent) -> float:
        """Milliseconds of the device's clock."""
        if not (self.happened and earlier.happened):
            raise RuntimeUnavailable("fake", "an event has not happened yet")
        return self.happened[0] - earlier.happened[0]


class FakeMemory:
    """Bytes of the device."""

    def __init__(self, address: int, size: int) -> None:
        self._address = address
        self.data = np.full(size, _POISON, np.uint8)

    def __int__(self) -> int:
        return self._address


class FakeGraph:
    """Captured work."""

    def __init__(self, device: FakeDevice, stream: FakeStream, works: list[_Work]) -> None:
        self._device = device
        self._stream = stream
        self._works = works

    def launch(self) -> None:
        """Queue the work again."""
        self._device.launches += 1
        for work in self._works:
            self._stream.put(work)


class FakeDevice(Device):
    """A GPU whose memory is numpy arrays.

    Args:
        gpu: what it calls itself.
        seed: None does work as late as possible; a number does it in a random order, early or late.
        switches: where the device turns to another stream that is ready, as indices into
            ``history``; without a seed it otherwise stays with the stream that is waited for.
            :func:`interleavings` gives the ones worth trying.
        graphs: whether work can be captured.
        memory: bytes of the device; more cannot be allocated.
    """

    def __init__(
        self,
        gpu: GPU = GPU("Fake GPU", "8.6"),  # noqa: B008  immutable
        *,
        seed: int | None = None,
        switches: Collection[int] = (),
        graphs: bool = True,
        memory: int = 1 << 30,
    ) -> None:
        self.gpu = gpu
        self.versions = {}
        self.clock_ms = 0.0
        self.history: list[str] = []
        """Names of the work done, in its order."""
        self.launches = 0
        """Graphs launched."""
        self.closed = False
        self._random = None if seed is None else random.Random(seed)
        self._switches = frozenset(switches)
        self._capturing = graphs
        self._free = memory
        self._addresses = itertools.count(1 << 20, 1 << 20)
        self._memory: weakref.WeakValueDictionary[int, FakeMemory] = weakref.WeakValueDictionary()
        self._streams: weakref.WeakValueDictionary[int, FakeStream] = weakref.WeakValueDictionary()
        self._thread = threading.local()

    @contextlib.contextmanager
    def current(self) -> Iterator[None]:
        if self.closed:
            raise RuntimeUnavailable(self.gpu.name, "its context was given back")
        self._thread.depth = getattr(self._thread, "depth", 0) + 1
        try:
            yield
        finally:
            self._thread.depth -= 1

    def check_current(self) -> None:
        """Fail unless the context is current on this thread."""
        if not getattr(self._thread, "depth", 0):
            raise RuntimeUnavailable(self.gpu.name, "invalid device context")

    def stream(self) -> Stream:
        self.check_current()
        stream = FakeStream(self, self.next_address())
        self._streams[stream.handle] = stream
        return stream

    def event(self) -> Event:
        self.check_current()
        return FakeEvent(self)

    def allocate(self, size: int) -> Memory:
        self.check_current()
        if size > self._free:
            raise unavailable(self.gpu.name, "cuMemAlloc failed: out of memory")
        self._free -= size
        memory = FakeMemory(self.next_address(), size)
        self._memory[int(memory)] = memory
        weakref.finalize(memory, self._freed, size).atexit = False
        return memory

    def _freed(self, size: int) -> None:
        self._free += size

    def pinned(self, shape: tuple[int, ...]) -> Batch:
        self.check_current()
        return np.full(shape, _POISON, np.uint8)

    def upload(self, host: Batch, memory: Memory, stream: Stream) -> None:
        def copy() -> None:
            self.bytes_at(address)[: host.size] = host.ravel()

        address = int(memory)
        self.stream_of(stream.handle).put(_Work("upload", copy))

    def download(self, memory: Memory, host: Batch, stream: Stream) -> None:
        def copy() -> None:
            host[:] = self.bytes_at(address)[: host.size].reshape(host.shape)

        address = int(memory)
        self.stream_of(stream.handle).put(_Work("download", copy))

    def capture(self, stream: Stream, enqueue: Callable[[], bool]) -> Graph | None:
        if not self._capturing:
            return None
        captured = self.stream_of(stream.handle)
        captured.captured = []
        try:
            enqueued = enqueue()
        finally:
            works, captured.captured = captured.captured, None
        return FakeGraph(self, captured, works) if enqueued else None

    def close(self) -> None:
        if self._memory or self._streams:
            raise RuntimeUnavailable(self.gpu.name, "memory or streams outlive the context")
        self.closed = True

    def bytes_at(self, address: int) -> Batch:
        """The memory at an address, which must not have been freed."""
        memory = self._memory.get(address)
        if memory is None:
            raise RuntimeUnavailable(self.gpu.name, "an illegal memory access was encountered")
        return memory.data

    def next_address(self) -> int:
        """One that was never given before."""
        return next(self._addresses)

    def stream_of(self, handle: int) -> FakeStream:
        """The stream with this handle."""
        return self._streams[handle]

    def run_some(self) -> None:
        """Do a random part of what is queued."""
        while self._random is not None and self._random.random() < 0.6:
            ready = [s for s in self._streams.values() if s.queue and s.queue[0].after()]
            if not ready:
                return
            self._do(self._random.choice(ready))

    def run_until_empty(self, stream: FakeStream) -> None:
        """Do a stream's work, and of other streams what it waits for or what the order says."""
        running = stream
        while stream.queue:
            ready = [s for s in self._streams.values() if s.queue and s.queue[0].after()]
            if self._random is not None:
                running = self._random.choice(ready)
            elif len(self.history) in self._switches:
                running = next((s for s in ready if s is not running), running)
            if running not in ready:
                running = stream if stream in ready else ready[0]
            self._do(running)

    def _do(self, stream: FakeStream) -> None:
        work = stream.queue.popleft()
        self.history.append(f"{work.name} {stream.handle}")
        self.clock_ms += 1.0
        work.run()


def interleavings(first: int, end: int, most: int = 2) -> Iterator[tuple[int, ...]]:
    """Every choice of up to so many switches between streams, for ``FakeDevice(switches=...)``.

    Two switches are enough to do any part of one stream's work in the middle of another's.

    Args:
        first: length of the device's ``history`` where the work of interest begins.
        end: its length afterwards.
        most: largest number of switches.
    """
    for count in range(most + 1):
        yield from itertools.combinations(range(first, end), count)


class _Severity(Enum):
    INTERNAL_ERROR = 0
    ERROR = 1


class _IOMode(Enum):
    INPUT = 1
    OUTPUT = 2


class _DataType(Enum):
    UINT8 = 0
    FLOAT = 1


class _AllocationStrategy(Enum):
    USER_MANAGED = 2


class _ILogger:
    Severity = _Severity

    def __init__(self) -> None: ...


class FakeTensorRT:
    """A TensorRT whose plans compute a function.

    Args:
        device: where it computes.
        score: uint8 [N, 1, H, W] images -> uint8 [N, 1, H, W] scores; None gives the image back.
        contract: what a plan takes; its ``max_batch`` is the profile's.
        least: the profile's smallest batch.
        flavour, version: what it calls itself.
        dtype: of a plan's tensors, by its name in TensorRT.
        refuses: plans are not deserialised, for this reason.
        enqueues: how many executions succeed, None for all.
    """

    def __init__(
        self,
        device: FakeDevice,
        score: Callable[[Batch], Batch] | None = None,
        *,
        contract: Contract = Contract(16, 16, max_batch=4),  # noqa: B008  immutable
        least: int = 1,
        flavour: str = "tensorrt",
        version: str = "11.4.0.106",
        dtype: str = "UINT8",
        refuses: str | None = None,
        enqueues: int | None = None,
    ) -> None:
        assert contract.max_batch is not None
        self.device = device
        self.score = score or (lambda image: image)
        self.contract = contract
        self.least = least
        self.dtype = _DataType[dtype]
        self.refuses = refuses
        self.enqueues = enqueues
        self.deserialised = 0
        """Plans that were deserialised or refused."""
        self.shapes: list[tuple[int, ...]] = []
        """Input shapes that contexts were made for."""
        self.here = TensorRT(
            flavour,
            version,
            SimpleNamespace(
                ILogger=_ILogger,
                Runtime=lambda log: _Runtime(self, log),
                TensorIOMode=_IOMode,
                DataType=_DataType,
                ExecutionContextAllocationStrategy=_AllocationStrategy,
            ),
        )
        """As :func:`tinyunet_deploy.backends.nvidia_probe.tensorrt` gives it."""


class _Runtime:
    def __init__(self, trt: FakeTensorRT, log: Any) -> None:
        trt.device.check_current()
        self._trt = trt
        self._log = log

    def deserialize_cuda_engine(self, data: bytes) -> _Engine | None:
        self._trt.deserialised += 1
        if self._trt.refuses is not None:
            self._log.log(_Severity.ERROR, self._trt.refuses)
            return None
        return _Engine(self._trt, self._log)


class _Engine:
    num_io_tensors = 2
    device_memory_size_v2 = 512

    def __init__(self, trt: FakeTensorRT, log: Any) -> None:
        self._trt = trt
        self._log = log

    def get_tensor_name(self, index: int) -> str:
        return (INPUT_NAME, OUTPUT_NAME)[index]

    def get_tensor_mode(self, name: str) -> _IOMode:
        return _IOMode.INPUT if name == INPUT_NAME else _IOMode.OUTPUT

    def get_tensor_dtype(self, name: str) -> _DataType:
        return self._trt.dtype

    def get_tensor_profile_shape(self, name: str, index: int) -> list[tuple[int, ...]]:
        contract = self._trt.contract
        batches = (self._trt.least, self._trt.least, contract.max_batch or 1)
        return [(batch, 1, contract.height, contract.width) for batch in batches]

    def create_execution_context(self, strategy: _AllocationStrategy) -> _Context:
        return _Context(self._trt, self._log)


class _Context:
    def __init__(self, trt: FakeTensorRT, log: Any) -> None:
        self._trt = trt
        self._log = log
        self._shape: tuple[int, ...] = ()
        self._addresses: dict[str, int] = {}
        self._activations = 0

    def set_device_memory(self, memory: int, size: int) -> None:
        assert len(self._trt.device.bytes_at(memory)) >= size
        self._activations = memory

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        contract = self._trt.contract
        ok = self._trt.least <= shape[0] <= (contract.max_batch or 1)
        ok = ok and shape[1:] == (1, contract.height, contract.width)
        if not ok:
            self._log.log(_Severity.ERROR, f"{name} {shape} is outside the profile")
        self._shape = shape
        self._trt.shapes.append(shape)
        return ok

    def set_tensor_address(self, name: str, address: int) -> bool:
        self._addresses[name] = address
        return True

    def infer_shapes(self) -> list[str]:
        return [] if self._shape else [INPUT_NAME]

    def execute_async_v3(self, handle: int) -> bool:
        trt = self._trt
        if trt.enqueues is not None:
            if not trt.enqueues:
                self._log.log(_Severity.ERROR, "IExecutionContext::enqueueV3: no executions left")
                return False
            trt.enqueues -= 1
        shape, size = self._shape, int(np.prod(self._shape))
        image, score = self._addresses[INPUT_NAME], self._addresses[OUTPUT_NAME]
        device, activations = trt.device, self._activations
        token = device.next_address() >> 20 & 0xFF

        def begin() -> None:
            result = trt.score(device.bytes_at(image)[:size].reshape(shape).copy())
            device.bytes_at(score)[:size] = _POISON
            device.bytes_at(activations)[:] = token
            results.append(result)

        def end() -> None:
            result = results.pop()
            if (device.bytes_at(activations) == token).all():
                device.bytes_at(score)[:size] = result.ravel()

        results: list[Batch] = []
        stream = device.stream_of(handle)
        stream.put(_Work("compute", begin))
        stream.put(_Work("computed", end))
        return True
