"""A fake GPU for tests: its memory is numpy arrays, and a stream is a queue of work.

Queued work runs later, in any order that the streams' waits allow. So a missing wait, a buffer that
is reused too early or a use after free causes a wrong score or an error.

>>> device = FakeDevice()
>>> with device.current():
...     stream = device.stream()
"""

from __future__ import annotations

import contextlib
import itertools
import random
import threading
import weakref
from collections import deque
from collections.abc import Callable, Collection, Iterator

import numpy as np

from tinyunet_deploy.backends.cuda_device import Device, Event, Graph, Memory, Stream
from tinyunet_deploy.backends.nvidia_probe import GPU
from tinyunet_deploy.contract import Batch
from tinyunet_deploy.errors import RuntimeUnavailable, unavailable

__all__ = [
    "POISON",
    "FakeDevice",
    "FakeEvent",
    "FakeGraph",
    "FakeMemory",
    "FakeStream",
    "Work",
    "interleavings",
]

POISON = 0xCD
"""Byte that fills memory before it is written."""


class Work:
    """One piece of queued work."""

    def __init__(
        self, name: str, run: Callable[[], None], after: Callable[[], bool] = lambda: True
    ) -> None:
        self.name = name
        self.run = run
        self.after = after
        """Function that returns whether the work may start."""


class FakeStream:
    """A queue whose work runs when the device decides, at the latest when a caller waits for it."""

    def __init__(self, device: FakeDevice, handle: int) -> None:
        self._device = device
        self.handle = handle
        self.queue: deque[Work] = deque()
        self.captured: list[Work] | None = None

    def put(self, work: Work) -> None:
        """Queue work, or add it to the graph that is being captured."""
        self._device.check_current()
        if self.captured is not None:
            self.captured.append(work)
            return
        self.queue.append(work)
        self._device.run_some()

    def wait_for_event(self, event: FakeEvent) -> None:
        """Make all work that is queued from now on wait for the event's last record."""
        happened = event.happened
        self.put(Work("wait", lambda: None, lambda: bool(happened)))

    def synchronize(self) -> None:
        """Do the queued work, and the work of other streams that it waits for."""
        self._device.check_current()
        if self.captured is not None:
            raise RuntimeUnavailable("fake", "a stream cannot be synchronized while it is captured")
        self._device.run_until_empty(self)


class FakeEvent:
    """A point in a stream's work."""

    def __init__(self, device: FakeDevice) -> None:
        self._device = device
        self.happened: list[float] = []
        """Time of the last record, milliseconds; empty until it is reached."""

    def record(self, stream: FakeStream) -> None:
        """Place the event after all work that is queued on the stream now."""
        happened = self.happened = []
        stream.put(Work("event", lambda: happened.append(self._device.clock_ms)))

    def time_since(self, earlier: FakeEvent) -> float:
        """Return the milliseconds from ``earlier`` to this event, by the device's clock."""
        if not (self.happened and earlier.happened):
            raise RuntimeUnavailable("fake", "an event has not happened yet")
        return self.happened[0] - earlier.happened[0]


class FakeMemory:
    """Bytes on the fake GPU."""

    def __init__(self, address: int, size: int) -> None:
        self._address = address
        self.data = np.full(size, POISON, np.uint8)

    def __int__(self) -> int:
        return self._address


class FakeGraph:
    """Captured work of one stream."""

    def __init__(self, device: FakeDevice, stream: FakeStream, works: list[Work]) -> None:
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
        gpu: name and compute capability.
        seed: None does work as late as possible; a number does it at random times and in a random
            order.
        switches: indices into ``history`` at which the device switches to another stream that is
            ready; without a seed, it otherwise stays with the stream that a caller waits for.
            :func:`interleavings` yields all useful values.
        graphs: True if work can be captured.
        memory: size of the memory, bytes.
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
        """Name and stream of each finished piece of work, in order."""
        self.launches = 0
        """Number of graphs launched."""
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
            raise RuntimeUnavailable(self.gpu.name, "its context was released")
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

    def free_bytes(self) -> int:
        self.check_current()
        return self._free

    def pinned(self, shape: tuple[int, ...]) -> Batch:
        self.check_current()
        return np.full(shape, POISON, np.uint8)

    def upload(self, host: Batch, memory: Memory, stream: Stream) -> None:
        def copy() -> None:
            self.bytes_at(address)[: host.size] = host.ravel()

        address = int(memory)
        self.stream_of(stream.handle).put(Work("upload", copy))

    def download(self, memory: Memory, host: Batch, stream: Stream) -> None:
        def copy() -> None:
            host[:] = self.bytes_at(address)[: host.size].reshape(host.shape)

        address = int(memory)
        self.stream_of(stream.handle).put(Work("download", copy))

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
        """Return the memory at an address; fail if it was freed."""
        memory = self._memory.get(address)
        if memory is None:
            raise RuntimeUnavailable(self.gpu.name, "an illegal memory access was encountered")
        return memory.data

    def next_address(self) -> int:
        """Return an address that was never used before."""
        return next(self._addresses)

    def stream_of(self, handle: int) -> FakeStream:
        """Return the stream with this handle."""
        return self._streams[handle]

    def run_some(self) -> None:
        """Do a random part of the queued work."""
        while self._random is not None and self._random.random() < 0.6:
            ready = [s for s in self._streams.values() if s.queue and s.queue[0].after()]
            if not ready:
                return
            self._do(self._random.choice(ready))

    def run_until_empty(self, stream: FakeStream) -> None:
        """Do a stream's work, and work of other streams that it waits for or the order requires."""
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
    """Yield every set of at most ``most`` switches, for ``FakeDevice(switches=...)``.

    Two switches suffice to run any part of one stream's work in the middle of another's.

    Args:
        first: length of the device's ``history`` where the work of interest begins.
        end: its length afterwards.
        most: largest number of switches.
    """
    for count in range(most + 1):
        yield from itertools.combinations(range(first, end), count)
