"""Decode images and write masks in processes, where threads would wait for Python's lock.

A run begins in threads. If these are busy most of the time, so that files limit the rate, processes
are started beside them, which then take every image. An image lies in one slot of shared memory
from its decoding until its mask is written; requests and answers go through pipes, several in a
message.
"""

from __future__ import annotations

import logging
import math
import mmap
import os
import threading
import time
from collections import deque
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from tinyunet_deploy.contract import Contract
from tinyunet_deploy.errors import RuntimeUnavailable
from tinyunet_deploy.inspection.child_process import ChildProcess, shared_memory
from tinyunet_deploy.inspection.executors import executor
from tinyunet_deploy.inspection.file_messages import (
    error_of,
    inspection_fields,
    scored_fields,
    scored_of,
)
from tinyunet_deploy.inspection.outputs import Inspection
from tinyunet_deploy.inspection.report_line import ReportLine
from tinyunet_deploy.inspection.scoring import Scored, decode_part

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
_IN_QUEUE: Final = 10
"""Images of each process before and again behind the backend: with fewer, messages are so short
that processes wait for this one."""


class _Request(NamedTuple):
    future: Future[Any]
    message: list[Any]
    slot: int


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
        self._slot_count = 6 * batch_size + 2 * in_queue
        self._bytes = 2 * self._slot_count * contract.height * contract.width
        self.in_queue = in_queue if self._bytes <= _LARGEST_BYTES else 2 * workers
        """Images of the network's size that wait for the backend, and as many for their files."""
        self._slots = np.empty((0, 2, 0), np.uint8)
        self._free: list[int] = []
        self._slot_of: dict[int, int] = {}
        """Number of an image whose pixels lie in shared memory -> slot."""
        self._changed = threading.Condition()
        self._waiting: deque[_Request] = deque()
        self._began: float | None = None
        self._busy_s = 0.0
        self._files = 0
        self._threads: list[threading.Thread] = []
        self._processes: list[ChildProcess] = []
        self._used = False
        self._killed = False
        self._closing = False

    def decode(self, index: int, path: Path) -> Future[Scored]:
        """Read one image, as :func:`~tinyunet_deploy.inspection.scoring.decode_part`.

        The future raises RuntimeUnavailable if a process was killed.
        """
        with self._changed:
            slot = self._free.pop() if self._used and self._free else None
        if slot is None:
            return self._decoders.submit(self._decode_watched, index, path)
        return self._submit(["decode", index, os.fspath(path), slot], slot)

    def finish(self, scored: Scored) -> Future[ReportLine]:
        """Write the files of one image, as :meth:`.Inspection.finish`.

        The future raises RuntimeUnavailable if the disk is full, or a process was killed.
        """
        with self._changed:
            slot = self._slot_of.pop(scored.index, None)
        if slot is None:
            return self._writers.submit(self._inspection.finish, scored)
        assert scored.image is not None
        assert scored.score is not None
        self._slots[slot, 1, : scored.score.size] = scored.score.reshape(-1)
        return self._submit(["finish", scored_fields(scored), scored.image.shape, slot], slot)

    def close(self) -> None:
        """End the processes and threads; what has not begun is not done."""
        with self._changed:
            self._closing = True
            if not self._used:
                for process in self._processes:
                    process.kill()  # it may still be starting
            for request in self._waiting:
                request.future.cancel()
            self._waiting.clear()
            self._changed.notify_all()
        self._writers.shutdown(cancel_futures=True)
        self._decoders.shutdown(cancel_futures=True)
        for thread in self._threads:
            thread.join()
        for process in self._processes:
            process.close()

    def _submit(self, message: list[Any], slot: int) -> Future[Any]:
        request = _Request(Future(), message, slot)
        with self._changed:
            if self._killed:
                request.future.set_exception(self._error())
            else:
                self._waiting.append(request)
                self._changed.notify()
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
        with self._changed:
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
                    with self._changed:
                        self._processes.append(process)
                        if self._closing:
                            return
            run = inspection_fields(self._inspection, self._contract)
            for process in self._processes:
                process.send(run)
            for process in self._processes:
                process.receive()
        except (OSError, EOFError, ValueError) as error:
            reason = str(error) or "it ended at once"
            if self._closing:
                return
            log.warning("a process that decodes files cannot be started: %s", reason)
            return
        self._slots = np.frombuffer(buffer, np.uint8).reshape(-1, 2, size)
        drivers = [
            threading.Thread(target=self._drive, args=(process,), name="process", daemon=True)
            for process in self._processes
        ]
        with self._changed:
            self._threads += drivers
            self._free = list(range(self._slot_count))
            self._used = True
            for driver in drivers:
                driver.start()

    def _drive(self, process: ChildProcess) -> None:
        """Hand requests to one process until the run ends."""
        while requests := self._take():
            try:
                process.send([request.message for request in requests])
                answers = process.receive()
            except (OSError, EOFError, ValueError):
                self._fail(requests)
                return
            for request, (kind, answer) in zip(requests, answers, strict=True):
                if kind == "error":
                    request.future.set_exception(error_of(answer))
                elif request.message[0] == "decode":
                    self._decoded(request, *answer)
                else:
                    with self._changed:
                        self._free.append(request.slot)
                    request.future.set_result(answer)

    def _take(self) -> list[_Request]:
        """Wait for requests, and return this process's share of them; none at the end."""
        with self._changed:
            while not self._waiting and not self._closing and not self._killed:
                self._changed.wait()
            share = math.ceil(len(self._waiting) / len(self._processes))
            return [self._waiting.popleft() for _ in range(min(share, _IN_A_MESSAGE))]

    def _decoded(
        self, request: _Request, fields: list[Any], shape: list[int] | None, largest: int | None
    ) -> None:
        scored = scored_of(fields)
        if largest is not None:
            self._inspection.depth.on_shallow(scored.path, largest)
        with self._changed:
            if shape is not None:
                self._slot_of[scored.index] = request.slot
            else:
                self._free.append(request.slot)
            if shape is None and scored.error is None:
                self._used = False  # larger than a slot, as its neighbours will be
        if shape is not None:
            pixels = self._slots[request.slot, 0, : math.prod(shape)]
            scored = replace(scored, image=pixels.reshape(shape))
        elif scored.error is None:
            scored = self._decode_watched(scored.index, scored.path)
        request.future.set_result(scored)

    def _fail(self, requests: list[_Request]) -> None:
        """Let all requests fail: a process was killed."""
        with self._changed:
            self._killed = True
            requests = [*requests, *self._waiting]
            self._waiting.clear()
            self._changed.notify_all()
        for request in requests:
            request.future.set_exception(self._error())

    def _error(self) -> RuntimeUnavailable:
        return RuntimeUnavailable(
            self._inspection.output,
            "a process that decodes images and writes masks was killed",
            "run the same command again to resume",
        )
