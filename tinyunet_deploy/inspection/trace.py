"""What was done when, on which thread, for which images: the pipeline's own record of a run."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple

from tinyunet_deploy.backends.base import Run

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
"""Rows of a stage table, in the order in which an image meets them."""


class Span(NamedTuple):
    """A stretch of time."""

    stage: str
    """One of :data:`STAGES`."""
    images: tuple[int, ...]
    """Their places among the paths; empty for what is done once a run."""
    thread: str
    started_s: float
    """Of ``time.perf_counter``, as is the end."""
    ended_s: float

    @property
    def seconds(self) -> float:
        """How long it took."""
        return self.ended_s - self.started_s


class Trace:
    """Takes spans from any thread."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self._last: dict[int, float] = {}
        """Image -> end of its last span."""

    @contextlib.contextmanager
    def span(self, stage: str, *images: int) -> Iterator[None]:
        """Time what is done inside ``with``."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self._add(stage, images, started, time.perf_counter())

    def left_queue(self, *images: int) -> None:
        """Each image has waited since its last span ended, until now."""
        now = time.perf_counter()
        for image in images:
            self._add(QUEUEING, (image,), self._last.get(image, now), now)

    def ran(self, images: tuple[int, ...], started_s: float, run: Run) -> None:
        """A batch that was handed to the backend at ``started_s`` has its scores now.

        The backend says how long it copied and computed; what is left between copying in and
        computing is waiting for a batch before it.
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
        self.spans.append(Span(stage, images, threading.current_thread().name, started, ended))
        for image in images:
            self._last[image] = ended


def span(trace: Trace | None, stage: str, *images: int) -> contextlib.AbstractContextManager[None]:
    """``trace.span``, or nothing where nothing is recorded."""
    return contextlib.nullcontext() if trace is None else trace.span(stage, *images)


def chrome_trace(traces: Sequence[tuple[str, Trace]]) -> str:
    """JSON that chrome://tracing and Perfetto open: a process for each trace, a row per thread.

    Waiting is drawn as asynchronous events, as many images wait at once.
    Format: "Trace Event Format", Google, 2016.
    """
    events: list[dict[str, Any]] = []
    for process, (name, trace) in enumerate(traces, start=1):
        origin = min((each.started_s for each in trace.spans), default=0.0)
        threads = {each.thread: 0 for each in trace.spans}
        events.append(_named("process_name", name, process, 0))
        for number, thread in enumerate(threads, start=1):
            threads[thread] = number
            events.append(_named("thread_name", thread, process, number))
        for number, each in enumerate(trace.spans):
            event = {
                "name": each.stage,
                "cat": "tinyunet",
                "pid": process,
                "tid": threads[each.thread],
                "ts": (each.started_s - origin) * 1e6,
                "args": {"images": list(each.images)},
            }
            if each.stage == QUEUEING:
                events.append({**event, "ph": "b", "id": number})
                end = (each.ended_s - origin) * 1e6
                events.append({**event, "ph": "e", "id": number, "ts": end})
            else:
                events.append({**event, "ph": "X", "dur": each.seconds * 1e6})
    return json.dumps({"traceEvents": events, "displayTimeUnit": "ms"}) + "\n"


def _named(kind: str, name: str, process: int, thread: int) -> dict[str, Any]:
    return {"name": kind, "ph": "M", "pid": process, "tid": thread, "args": {"name": name}}
