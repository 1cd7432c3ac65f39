"""Score batches on a GPU with two in flight: one is copied while the other is computed.

The engine is a parameter: a TensorRT plan and a PyTorch network use the same buffers, streams,
events and CUDA graphs, and the same tests on a fake GPU.
"""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Final, Protocol

from tinyunet_deploy.backends.base import Run
from tinyunet_deploy.backends.cuda_device import Device, Event
from tinyunet_deploy.contract import Batch
from tinyunet_deploy.errors import RuntimeUnavailable

__all__ = ["SLOTS", "DoubleBuffer", "Program", "Slot"]

SLOTS: Final = 2
"""Batches in flight: one is copied while the other is computed."""


class Program(Protocol):
    """The engine's work for one batch size in one slot."""

    def enqueue(self) -> None:
        """Queue the work on the slot's stream, from the slot's images to its scores.

        Raises:
            RuntimeUnavailable: the engine refuses; nothing is queued then.
        """


class Slot:
    """Stream, buffers and events of one batch in flight."""

    def __init__(self) -> None:
        self.programs: dict[int, Program] = {}
        """Batch size -> program that runs it."""
        self.rows = 0
        """Largest batch that the buffers hold."""
        self.batch: int | None = None
        """Images in flight; None if the slot is free."""
        self.staging_ms = 0.0
        """Time to copy the images into page-locked memory, milliseconds."""
        self.enqueue_ms = 0.0
        """Time in which the engine's work was handed to the GPU, milliseconds."""

    def open(self, device: Device) -> None:
        """Make the stream and events."""
        self.stream = device.stream()
        self.uploading, self.uploaded = device.event(), device.event()
        self.begin, self.end, self.downloaded = device.event(), device.event(), device.event()

    def hold(self, device: Device, shape: tuple[int, int, int, int]) -> None:
        """Allocate buffers for batches of up to ``shape``, and drop the programs of smaller ones.

        Args:
            shape: [N, 1, H, W].
        """
        self.programs.clear()  # their graphs have the addresses of the buffers that are replaced
        self.image, self.score = device.pinned(shape), device.pinned(shape)
        self.device_image = device.allocate(self.image.nbytes)
        self.device_score = device.allocate(self.score.nbytes)
        self.rows = shape[0]

    def close(self) -> None:
        """Free everything now, even if a loop or a traceback still refers to the slot."""
        vars(self).clear()


class DoubleBuffer:
    """Two slots that take turns. The caller makes the GPU's context current only for ``open``,
    ``idle_slot``, ``synchronize`` and ``close``.

    Args:
        device: the GPU.
        height, width: size of the images, pixels.
        make_program: function that returns the program of a batch size in a slot. It is called once
            for each, with the GPU's context current and the slot's buffers allocated.
        rows_of: function that returns the number of images that a batch runs with, at least its
            own; None takes the batch as it is.
    """

    def __init__(
        self,
        device: Device,
        height: int,
        width: int,
        make_program: Callable[[Slot, int], Program],
        rows_of: Callable[[int], int] | None = None,
    ) -> None:
        self._device = device
        self._size = height, width
        self._make_program = make_program
        self._rows_of = rows_of
        self._slots: list[Slot] = []
        self._computed: Event | None = None
        """End of the last batch's computing; the next waits for it, as both share memory."""

    def open(self, rows: int = 0) -> None:
        """Make the slots.

        Args:
            rows: largest batch; buffers grow at the first larger one.
        """
        self._slots += [Slot() for _ in range(SLOTS)]
        for slot in self._slots:
            slot.open(self._device)
            if rows:
                slot.hold(self._device, (rows, 1, *self._size))

    @property
    def buffer_bytes(self) -> int:
        """Size of the images and scores on the GPU."""
        return sum(slot.image.nbytes + slot.score.nbytes for slot in self._slots if slot.rows)

    def run_many(self, images: Iterator[Batch]) -> Iterator[Run]:
        """Score batches in order; two are taken before the first is waited for."""
        running: deque[Slot] = deque()
        try:
            for image in images:
                while (slot := self._free_slot()) is None:
                    yield self._finish(running.popleft())
                self._start(slot, image)
                running.append(slot)
            while running:
                yield self._finish(running.popleft())
        finally:
            for slot in running:
                if slot in self._slots:  # not closed in the meantime
                    self._finish(slot)

    def _free_slot(self) -> Slot | None:
        return next((slot for slot in self._slots if slot.batch is None), None)

    def idle_slot(self) -> Slot:
        """Return a slot that has no batch in flight.

        Raises:
            ValueError: both have one.
        """
        slot = self._free_slot()
        if slot is None:
            raise ValueError("expected no batch in flight, got two")
        return slot

    def synchronize(self) -> None:
        """Wait until all queued work is done."""
        for slot in self._slots:
            slot.stream.synchronize()

    def _start(self, slot: Slot, image: Batch) -> None:
        rows = len(image) if self._rows_of is None else self._rows_of(len(image))
        with self._device.current():
            if rows > slot.rows:
                slot.hold(self._device, (rows, 1, *self._size))
            program = slot.programs.get(rows)
            if program is None:
                program = slot.programs[rows] = self._make_program(slot, rows)
            started = time.perf_counter()
            slot.image[: len(image)] = image
            slot.staging_ms = (time.perf_counter() - started) * 1e3
            slot.uploading.record(slot.stream)
            self._device.upload(slot.image[:rows], slot.device_image, slot.stream)
            slot.uploaded.record(slot.stream)
            if self._computed is not None:
                slot.stream.wait_for_event(self._computed)
            slot.begin.record(slot.stream)
            started = time.perf_counter()
            try:
                program.enqueue()
            except RuntimeUnavailable:
                slot.stream.synchronize()
                raise
            slot.enqueue_ms = (time.perf_counter() - started) * 1e3
            slot.end.record(slot.stream)
            self._computed = slot.end
            self._device.download(slot.device_score, slot.score[:rows], slot.stream)
            slot.downloaded.record(slot.stream)
        slot.batch = len(image)

    def _finish(self, slot: Slot) -> Run:
        batch, slot.batch = slot.batch, None
        with self._device.current():
            slot.stream.synchronize()
            started = time.perf_counter()
            score = slot.score[:batch].copy()
            copied_ms = (time.perf_counter() - started) * 1e3
            return Run(
                score,
                slot.end.time_since(slot.begin),
                copy_in_ms=slot.staging_ms + slot.uploaded.time_since(slot.uploading),
                copy_out_ms=slot.downloaded.time_since(slot.end) + copied_ms,
                enqueue_ms=slot.enqueue_ms,
            )

    def close(self) -> None:
        """Wait for the batches in flight and free everything."""
        for slot in self._slots:
            if slot.batch is not None:
                with contextlib.suppress(RuntimeUnavailable):
                    slot.stream.synchronize()
        for slot in self._slots:
            slot.close()
        self._slots.clear()
        self._computed = None
