"""A live run: parts pass a real model in real time, whether or not it is ready."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Final

import numpy as np

from tinyunet_deploy.clock import SYSTEM_CLOCK, Clock
from tinyunet_deploy.errors import RefusedError
from tinyunet_deploy.inspection.defects import Verdict
from tinyunet_deploy.line.belt import Belt, Times, triggers_ms
from tinyunet_deploy.line.outcome import BeltOutcome, count_outcome
from tinyunet_deploy.line.recording import Recording, split_at_stops

__all__ = ["Inspector", "LiveRun", "run_live"]

Inspector = Callable[[int], Verdict]
"""Function that takes the number of an image and returns the verdict on it."""

PATIENCE_S: Final = 10.0
"""Time to wait for verdicts after the last trigger, in addition to the deadline, seconds."""
_START_S: Final = 0.02
"""Time from the start of the threads to the first trigger, so that they are ready, seconds."""
_LATE_MS: Final = 5.0
"""Warn when a trigger fires later than this, milliseconds."""


@dataclass(frozen=True)
class LiveRun:
    """Measurements of a live run."""

    outcome: BeltOutcome
    service_ms: Times
    """[parts x cameras]: time from when both the image and a process were ready until the verdict,
    including waking up; NaN if the image was dropped, infinite if its verdict never came."""
    largest_lateness_ms: float
    """Largest delay of a trigger; more than a few milliseconds mean that the machine was too busy
    to keep pace with the belt."""

    def recording(self, belt: Belt, source: str) -> Recording:
        """Return the service times, to be replayed.

        Raises:
            RefusedError: no image has a verdict.
        """
        stretches = split_at_stops(asdict(belt), self.service_ms)
        if not stretches:
            raise RefusedError(source, "no image was inspected during the whole run")
        return Recording(source, stretches, belt.processes, idle=True)

    def warnings(self) -> list[str]:
        """Return the reasons why the run may differ from the requested one."""
        if self.largest_lateness_ms <= _LATE_MS:
            return []
        return [
            f"a trigger came {self.largest_lateness_ms:.0f} ms late: the machine is too "
            "busy to keep pace with the belt"
        ]


def run_live(
    belt: Belt,
    inspectors: Sequence[Inspector],
    *,
    parts: int,
    seed: int,
    progress: Callable[[int], None] | None = None,
    clock: Clock = SYSTEM_CLOCK,
) -> LiveRun:
    """Let parts pass in real time: each triggers at its instant, ready or not.

    Args:
        inspectors: one for each of the belt's processes. Each is called from its own thread and
            must release the interpreter lock while it computes or waits.
        parts: number of parts that pass.
        seed: seed of the positions of the parts.
        progress: called with 1 after each part's trigger.
        clock: gives the time of triggers and verdicts.

    Raises:
        Exception: an inspector raised it.
    """
    run = _LiveBuffer(belt, triggers_ms(belt, parts, seed), clock)
    for inspector in inspectors:
        threading.Thread(target=run.inspect, args=(inspector,), daemon=True).start()
    try:
        lateness_ms = run.trigger_parts(progress)
        run.wait_for_verdicts()
    finally:
        run.stop()
    service_ms, verdict_ms = run.times()
    outcome = count_outcome(belt, run.trigger_ms, service_ms, verdict_ms)
    return LiveRun(outcome, service_ms, lateness_ms)


class _LiveBuffer:
    """The buffer and the times of one live run, shared by the belt and the inspecting threads."""

    def __init__(self, belt: Belt, trigger_ms: Times, clock: Clock) -> None:
        self.trigger_ms = trigger_ms
        self._belt = belt
        self._clock = clock
        images = len(trigger_ms) * belt.cameras
        self._service_ms = np.full(images, np.nan)
        self._verdict_ms = np.full(images, np.nan)
        self._changed = clock.condition()
        """Guards the fields below."""
        self._waiting: deque[int] = deque()
        self._present = 0
        """Number of images that wait or are being inspected."""
        self._over = False
        self._failures: list[BaseException] = []
        self._started_s = clock.now_s() + _START_S

    def _now_ms(self) -> float:
        return (self._clock.now_s() - self._started_s) * 1e3

    def trigger_parts(self, progress: Callable[[int], None] | None) -> float:
        """Put the images of each part into the buffer at its instant; return the largest delay."""
        cameras, places = self._belt.cameras, self._belt.processes + self._belt.buffer
        lateness_ms = 0.0
        for part, due_ms in enumerate(self.trigger_ms.tolist()):
            with self._changed:
                wait_s = max(0.0, due_ms - self._now_ms()) / 1e3
                self._changed.wait_for(lambda: self._failures, timeout=wait_s)
                if self._failures:
                    break
                lateness_ms = max(lateness_ms, self._now_ms() - due_ms)
                for image in range(part * cameras, (part + 1) * cameras):
                    if self._present < places:
                        self._present += 1
                        self._verdict_ms[image] = self._service_ms[image] = np.inf
                        self._waiting.append(image)
                self._changed.notify_all()
            if progress:
                progress(1)
        return lateness_ms

    def inspect(self, inspector: Inspector) -> None:
        """Inspect waiting images, first come first served, until the run is over."""
        free_ms = 0.0
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._over)
                if not self._waiting:
                    return
                image = self._waiting.popleft()
            try:
                inspector(image)
            except BaseException as error:
                with self._changed:
                    self._failures.append(error)
                    self._changed.notify_all()
                return
            with self._changed:
                end_ms = self._now_ms()
                ready_ms = max(free_ms, self.trigger_ms[image // self._belt.cameras])
                self._service_ms[image] = end_ms - ready_ms
                self._verdict_ms[image] = free_ms = end_ms
                self._present -= 1
                self._changed.notify_all()

    def wait_for_verdicts(self) -> None:
        """Wait until every image has its verdict, for a limited time after the deadline."""
        with self._changed:
            patience_s = PATIENCE_S + self._belt.deadline_ms / 1e3
            self._changed.wait_for(lambda: not self._present or self._failures, timeout=patience_s)

    def stop(self) -> None:
        """Tell the inspecting threads to end."""
        with self._changed:
            self._over = True
            self._waiting.clear()
            self._changed.notify_all()

    def times(self) -> tuple[Times, Times]:
        """Return copies of service and verdict times: a late inspector may still write.

        Raises:
            Exception: the first inspector that failed raised it.
        """
        with self._changed:
            if self._failures:
                raise self._failures[0]
            return self._service_ms.copy(), self._verdict_ms.copy()
