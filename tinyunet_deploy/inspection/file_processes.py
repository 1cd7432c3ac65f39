"""Decode images and write masks in processes, where threads would wait for Python's lock.

A run begins in threads. If these are busy most of the time, so that files limit the rate, processes
are started beside them, which then take every image. An image lies in one slot of shared memory
from its decoding until its mask is written, both by the same process; successive images lie in
successive slots, so that a batch of them needs no copy. Requests and answers go through pipes,
several in a message, and the next message is sent while one is answered.
"""

from __future__ import annotations

import functools
import logging
import math
import mmap
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from tinyunet_deploy.contract import Batch, Contract
from tinyunet_deploy.errors import ImageError, RuntimeUnavailable
from tinyunet_deploy.inspection.child_process import ChildProcess, shared_memory
from tinyunet_deploy.inspection.executors import executor
from tinyunet_deploy.inspection.file_messages import encoded, error_of, inspection_fields
from tinyunet_deploy.inspection.identity import FileIdentity
from tinyunet_deploy.inspection.outputs import Inspection
from tinyunet_deploy.inspection.report_line import ReportLine
from tinyunet_deploy.inspection.scoring import Scored, address, decode_part

__all__ = ["FileProcesses"]

log = logging.getLogger(__name__)

_WATCHED_FILES: Final = 256
"""Files after which the threads' load decides."""
_WATCHED_S: Final = 1.0
"""Time after which the threads' load decides, seconds; starting a process costs half of it."""
_BUSY: Final = 0.5
"""Share of the time in which the decoding threads are busy, above which files limit the rate: with
a slower backend the threads wait for room in the queue."""
_MOST: Final = 16
"""Most processes: this one hands out files no faster."""
_LARGEST_BYTES: Final = 256 << 20
"""Most shared memory; where it does not hold the images in flight, they are so large that threads
decode them without Python's lock nearly all the time."""
_IN_A_MESSAGE: Final = 8
"""Most requests in one message."""
_PIPE_BYTES: Final = 4096
"""Bytes that an empty pipe takes at least while nobody reads."""
_IN_QUEUE: Final = 10
"""Images of each process before and again behind the backend: with fewer, messages are so short
that processes wait for this one."""


class _Request(NamedTuple):
    future: Future[Any]
    message: tuple[Any, ...]
    result: Callable[..., Any]
    """Makes the future's result of the process and its answer."""


class _Driver:
    """One process, the requests that only it can answer, and the thread that hands them over."""

    def __init__(self, process: ChildProcess, lock: threading.Lock) -> None:
        self.process = process
        self.waiting: deque[_Request] = deque()
        self.idle = False
        self.changed = threading.Condition(lock)


class FileProcesses:
    """Decodes files and writes masks: in threads, then in processes.

    Args:
        inspection: rules and folders of the run.
        contract: size of the network's images.
        batch_size: images per call of the backend.
        workers: threads that decode, as many that write, and processes in their place.
    """

    def __init__(
        self, inspection: Inspection, contract: Contract, *, batch_size: int, workers: int
    ) -> None:
        self._inspection = inspection
        self._contract = contract
        self._workers = workers
        self._decoders = executor(workers, "decode")
        self._writers = executor(workers, "write")
        in_queue = _IN_QUEUE * workers
        # decoded ahead, in and around the backend, and waiting for their masks to be written
        self._slot_count = 6 * batch_size + batch_size * math.ceil(2 * in_queue / batch_size)
        self._bytes = 2 * self._slot_count * contract.height * contract.width
        self.in_queue = in_queue if self._bytes <= _LARGEST_BYTES else 2 * workers
        """Images of the network's size that wait for the backend, and as many for their files."""
        self._images = self._scores = np.empty((0, 0), np.uint8)
        self._free: set[int] = set()
        self._driver_of: dict[int, _Driver] = {}
        """Number of an image whose pixels lie in shared memory -> driver of its process."""
        self._lock = threading.Lock()
        self._waiting: deque[_Request] = deque()
        """Requests that any process can answer."""
        self._began: float | None = None
        self._busy_s = 0.0
        self._files = 0
        self._threads: list[threading.Thread] = []
        self._processes: list[ChildProcess] = []
        self._drivers: list[_Driver] = []
        self._used = False
        self._killed = False
        self._closing = False

    def decode(self, index: int, path: Path) -> Future[Scored]:
        """Read one image, as :func:`~tinyunet_deploy.inspection.scoring.decode_part`.

        The future raises RuntimeUnavailable if a process was killed.
        """
        slot = index % self._slot_count
        with self._lock:
            if fits := self._used and slot in self._free:
                self._free.remove(slot)
        if not fits:
            return self._decoders.submit(self._decode_watched, index, path)
        decoded = functools.partial(self._decoded, index, path)
        return self._submit(None, ("decode", slot, index, os.fspath(path)), decoded)

    def finish(self, scored: Scored) -> Future[ReportLine]:
        """Write the files of one image, as :meth:`.Inspection.finish`.

        The future raises RuntimeUnavailable if the disk is full, or a process was killed.
        """
        with self._lock:
            driver = self._driver_of.pop(scored.index, None)
        if driver is None:
            return self._writers.submit(self._inspection.finish, scored)
        assert scored.score is not None
        slot = scored.index % self._slot_count
        if address(scored.score) != address(self._scores[slot]):
            self._scores[slot, : scored.score.size] = scored.score.reshape(-1)
        finished = functools.partial(self._finished, slot)
        return self._submit(driver, ("finish", slot, scored.fit, scored.approximate), finished)

    def new_scores(self, batch: Batch) -> Batch:
        """Return the memory for the scores of a batch: beside its images if these are shared."""
        at = address(batch) - address(self._images)
        if not 0 <= at < self._images.nbytes:
            return np.empty_like(batch)
        return self._scores.reshape(-1)[at : at + batch.nbytes].reshape(batch.shape)

    def close(self) -> None:
        """End the processes and threads; what has not begun is not done."""
        with self._lock:
            self._closing = True
            if not self._used:
                for process in self._processes:
                    process.kill()  # it may still be starting
            for request in self._take_all():
                request.future.cancel()
        self._writers.shutdown(cancel_futures=True)
        self._decoders.shutdown(cancel_futures=True)
        for thread in self._threads:
            thread.join()
        for process in self._processes:
            process.close()

    def _submit(
        self, driver: _Driver | None, message: tuple[Any, ...], result: Callable[..., Any]
    ) -> Future[Any]:
        request = _Request(Future(), message, result)
        with self._lock:
            if self._killed:
                request.future.set_exception(self._error())
                return request.future
            (driver.waiting if driver else self._waiting).append(request)
            driver = driver or next((driver for driver in self._drivers if driver.idle), None)
            if driver is not None and driver.idle:
                driver.idle = False
                driver.changed.notify()
        return request.future

    def _decode_watched(self, index: int, path: Path) -> Scored:
        """Read one image in this thread; start the processes once that is worth it."""
        started = time.perf_counter()
        inspection = self._inspection
        scored = decode_part(
            index,
            path,
            contract=self._contract,
            tile=inspection.tile,
            identify=True,
            depth=inspection.depth,
            max_pixels=inspection.max_pixels,
        )
        ended = time.perf_counter()
        with self._lock:
            self._began = self._began or started
            self._busy_s += ended - started
            self._files += 1
            if self._is_worth_it(ended - self._began):
                starter = threading.Thread(target=self._start, name="processes", daemon=True)
                self._threads.append(starter)
                starter.start()
        return scored

    def _is_worth_it(self, elapsed_s: float) -> bool:
        if self._threads or self._closing:
            return False
        return (
            self._files >= _WATCHED_FILES
            and elapsed_s >= _WATCHED_S
            and self._busy_s >= _BUSY * elapsed_s * self._workers
            and self._bytes <= _LARGEST_BYTES
        )

    def _start(self) -> None:
        """Start the processes; the threads go on until all are ready, and for good if one fails."""
        size = self._contract.height * self._contract.width
        try:
            with shared_memory(self._bytes) as descriptor:
                buffer = mmap.mmap(descriptor, 0)
                for _ in range(min(self._workers, _MOST)):
                    process = ChildProcess(descriptor)
                    with self._lock:
                        self._processes.append(process)
                        if self._closing:
                            return
            run = inspection_fields(self._inspection, self._contract)
            for process in self._processes:
                process.send(encoded(run))
            for process in self._processes:
                process.receive()
        except (OSError, EOFError, ValueError, OverflowError) as error:
            reason = str(error) or "it ended at once"
            if self._closing:
                return
            log.warning("a process that decodes files cannot be started: %s", reason)
            return
        self._images, self._scores = np.frombuffer(buffer, np.uint8).reshape(2, -1, size)
        drivers = [_Driver(process, self._lock) for process in self._processes]
        threads = [
            threading.Thread(target=self._drive, args=(driver,), name="process", daemon=True)
            for driver in drivers
        ]
        with self._lock:
            self._drivers = drivers
            self._threads += threads
            self._free = set(range(self._slot_count))
            self._used = True
            for thread in threads:
                thread.start()

    def _drive(self, driver: _Driver) -> None:
        """Hand requests to one process until the run ends, the next while some are answered."""
        sent: deque[list[_Request]] = deque()
        while (requests := self._take(driver, wait=not sent)) or sent:
            try:
                if not requests:
                    self._settle(driver, sent)
                    continue
                message = encoded([request.message for request in requests])
                # While a process writes an answer, it reads nothing: both could wait for ever.
                while len(sent) == 2 or (sent and len(message) > _PIPE_BYTES):
                    self._settle(driver, sent)
                sent.append(requests)
                driver.process.send(message)
            except (OSError, EOFError, ValueError):
                self._fail([request for requests in sent for request in requests])
                return

    def _settle(self, driver: _Driver, sent: deque[list[_Request]]) -> None:
        """Wait for the answers to the oldest requests, and set their futures."""
        answers = driver.process.receive()
        for request, (kind, answer) in zip(sent.popleft(), answers, strict=True):
            try:
                if kind == "error":
                    raise error_of(answer)
                request.future.set_result(request.result(driver, *answer))
            except Exception as error:
                request.future.set_exception(error)

    def _take(self, driver: _Driver, *, wait: bool) -> list[_Request]:
        """Return the requests of one process and its share of the others, if there are any.

        Args:
            wait: wait for requests until the end of the run.
        """
        own, others = driver.waiting, self._waiting
        with self._lock:
            while wait and not (own or others or self._closing or self._killed):
                driver.idle = True
                driver.changed.wait()
            driver.idle = False
            requests = [own.popleft() for _ in range(min(len(own), _IN_A_MESSAGE))]
            share = math.ceil(len(others) / len(self._drivers))
            room = _IN_A_MESSAGE - len(requests)
            return requests + [others.popleft() for _ in range(min(share, room))]

    def _take_all(self) -> list[_Request]:
        """Return all requests that wait, and wake all drivers, so that they end."""
        waiting = [self._waiting, *(driver.waiting for driver in self._drivers)]
        requests = [request for queue in waiting for request in queue]
        for queue in waiting:
            queue.clear()
        for driver in self._drivers:
            driver.changed.notify()
        return requests

    def _decoded(
        self,
        index: int,
        path: Path,
        driver: _Driver,
        shape: list[int] | None,
        *details: Any,
    ) -> Scored:
        """Return the image of an answer.

        Args:
            details: the largest value of a shallow image, else None; without a shape the error and
                the identity of the file.
        """
        slot = index % self._slot_count
        if shape is not None:
            (largest,) = details
            if largest is not None:
                self._inspection.depth.on_shallow(path, largest)
            with self._lock:
                self._driver_of[index] = driver
            return Scored(index, path, self._images[slot, : math.prod(shape)].reshape(shape))
        error, identity = details
        with self._lock:
            self._free.add(slot)
            if error is None:
                self._used = False  # larger than a slot, as its neighbours will be
        if error is None:
            return self._decode_watched(index, path)
        reason = error_of(error)
        assert isinstance(reason, ImageError)
        known = None if identity is None else FileIdentity(*identity)
        return Scored(index, path, error=reason, identity=known)

    def _finished(self, slot: int, _: _Driver, line: ReportLine) -> ReportLine:
        with self._lock:
            self._free.add(slot)
        return line

    def _fail(self, requests: list[_Request]) -> None:
        """Let all requests fail: a process was killed."""
        with self._lock:
            self._killed = True
            requests = requests + self._take_all()
        for request in requests:
            request.future.set_exception(self._error())

    def _error(self) -> RuntimeUnavailable:
        return RuntimeUnavailable(
            self._inspection.output,
            "a process that decodes images and writes masks was killed",
            "run the same command again to resume",
        )
