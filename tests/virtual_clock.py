"""A clock whose time passes only while every thread of a test waits for it."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable

STUCK_S = 60.0
"""Real seconds after which a thread that nothing wakes fails its test."""


class VirtualClock:
    """Time jumps to the next instant for which a thread waits, as soon as all of them wait.

    So a run in which every step "takes" its time by :meth:`sleep` has the same times on every
    machine, however busy, and takes no time itself.

    Args:
        threads: number of threads that use this clock; until all wait, time stands still.
    """

    def __init__(self, threads: int = 1) -> None:
        self._threads = threads
        self._now_s = 0.0
        self._changed = threading.Condition()
        self._waits: list[_Wait] = []

    def now_s(self) -> float:
        with self._changed:
            return self._now_s

    def sleep(self, seconds: float) -> None:
        """Let the calling thread wait until so much virtual time has passed."""
        with self._changed:
            self._wait(lambda: False, seconds)

    def condition(self) -> threading.Condition:
        return _VirtualCondition(self, self._changed)

    def wait(self, event: threading.Event, timeout_s: float) -> bool:
        with self._changed:
            self._wait(event.is_set, timeout_s)
        return event.is_set()

    def _wait(self, ready: Callable[[], object], timeout_s: float) -> None:
        """Wait, with the lock held, until something is ready or time has passed."""
        wait = _Wait(ready, self._now_s + timeout_s)
        self._waits.append(wait)
        try:
            while not self._over(wait):
                self._advance()
                if not self._over(wait) and not self._changed.wait(STUCK_S):
                    raise AssertionError("a thread waits for what never happens")
        finally:
            self._waits.remove(wait)

    def _over(self, wait: _Wait) -> bool:
        return wait.until_s <= self._now_s or bool(wait.ready())

    def _advance(self) -> None:
        """Jump to the next instant if every thread waits and none has been woken."""
        if len(self._waits) < self._threads or any(map(self._over, self._waits)):
            return
        next_s = min(wait.until_s for wait in self._waits)
        if math.isfinite(next_s):
            self._now_s = next_s
            self._changed.notify_all()


class _Wait:
    def __init__(self, ready: Callable[[], object], until_s: float) -> None:
        self.ready = ready
        self.until_s = until_s


class _VirtualCondition(threading.Condition):
    """A condition on the clock's own lock, whose timeouts are virtual."""

    def __init__(self, clock: VirtualClock, changed: threading.Condition) -> None:
        super().__init__(changed._lock)  # type: ignore[attr-defined]
        self._clock = clock
        self._changed = changed

    def wait_for(self, predicate, timeout=None):  # type: ignore[no-untyped-def]
        self._clock._wait(predicate, math.inf if timeout is None else timeout)
        return predicate()

    def notify_all(self) -> None:
        self._changed.notify_all()
