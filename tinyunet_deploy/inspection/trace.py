"""Record when each stage of each image ran, and on which thread."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple

from tinyunet_deploy.backends.base import Run

__all__ = ["QUEUEING", "STAGES", "UNACCOUNTED", "StageSpan", "Trace", "chrome_trace", "timed"]

QUEUEING: Final = "queueing"
UNACCOUNTED: Final = "unaccounted"
STAGES: Final = (
    "read",
    "decode",
    "copy in",
    "run",
    "copy out",
    "post-process",
    "encode",
    "write",
    QUEUEING,
    UNACCOUNTED,
)
"""Rows of a stage table, in the order in which an image passes them."""


class StageSpan(NamedTuple):
    """The time that one stage took for some images."""

    stage: str
    """One of :data:`STAGES`."""
    images: tuple[int, ...]
    """Positions of the images among the paths; empty for work that is done once per run."""
    thread: str
    """Name of the thread that ran the stage."""
    started_s: float
    """Reading of ``time.perf_counter`` at the start, seconds."""
    ended_s: float
    """Reading of ``time.perf_counter`` at the end, seconds."""

    @property
    def seconds(self) -> float:
        """Duration."""
        return self.ended_s - self.started_s


class Trace:
    """Collects the spans of one run, from any thread."""

    def __init__(self) -> None:
        self.spans: list[StageSpan] = []
        self._last: dict[int, float] = {}
        """Image -> end of its last span, seconds."""

    @contextlib.contextmanager
    def timed(self, stage: str, *images: int) -> Iterator[None]:
        """Record the time spent inside ``with``."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self._add(stage, images, started, time.perf_counter())

    def left_queue(self, *images: int) -> None:
        """Record that each image has waited from the end of its last span until now."""
        now = time.perf_counter()
        for image in images:
            self._add(QUEUEING, (image,), self._last.get(image, now), now)

    def ran(self, images: tuple[int, ...], started_s: float, run: Run) -> None:
        """Record a batch that the backend received at ``started_s`` and has just scored.

        The backend says how long it copied and computed; the rest of the time between copying in
        and computing was spent waiting for an earlier batch.
        """
        now = time.perf_counter()
        copied_in = started_s + run.copy_in_ms / 1e3
        computed = now - run.copy_out_ms / 1e3
        computing = max(computed - run.device_ms / 1e3, copied_in)
        self._add("copy in", images, started_s, copied_in)
        self._add(QUEUEING, images, copied_in, computing)
        self._add("run", images, computing, computed)
        self._add("copy out", images, computed, now)

    def _add(self, stage: str, images: tuple[int, ...], started: float, ended: float) -> None:
        self.spans.append(StageSpan(stage, images, threading.current_thread().name, started, ended))
        for image in images:
            self._last[image] = ended


def timed(trace: Trace | None, stage: str, *images: int) -> contextlib.AbstractContextManager[None]:
    """Return ``trace.timed(...)``, or a context that does nothing if there is no trace."""
    return contextlib.nullcontext() if trace is None else trace.timed(stage, *images)


def chrome_trace(traces: Sequence[tuple[str, Trace]]) -> str:
    """Return JSON for chrome://tracing and Perfetto: a process per trace, a row per thread.

    Waiting becomes asynchronous events because many images wait at once.
    Format: "Trace Event Format", Google, 2016.
    """
    events: list[dict[str, Any]] = []
    for process, (name, trace) in enumerate(traces, start=1):
        origin = min((span.started_s for span in trace.spans), default=0.0)
        threads = {span.thread: 0 for span in trace.spans}
        events.append(_named("process_name", name, process, 0))
        for number, thread in enumerate(threads, start=1):
            threads[thread] = number
            events.append(_named("thread_name", thread, process, number))
        for number, span in enumerate(trace.spans):
            event = {
                "name": span.stage,
                "cat": "tinyunet",
                "pid": process,
                "tid": threads[span.thread],
                "ts": (span.started_s - origin) * 1e6,
                "args": {"images": list(span.images)},
            }
            if span.stage == QUEUEING:
                events.append({**event, "ph": "b", "id": number})
                end = (span.ended_s - origin) * 1e6
                events.append({**event, "ph": "e", "id": number, "ts": end})
            else:
                events.append({**event, "ph": "X", "dur": span.seconds * 1e6})
    return json.dumps({"traceEvents": events, "displayTimeUnit": "ms"}) + "\n"


def _named(kind: str, name: str, process: int, thread: int) -> dict[str, Any]:
    return {"name": kind, "ph": "M", "pid": process, "tid": thread, "args": {"name": name}}
