"""The current time and waits with a timeout, from a clock that tests can replace."""

from __future__ import annotations

import threading
import time
from typing import Final, Protocol

__all__ = ["SYSTEM_CLOCK", "Clock", "SystemClock"]


class Clock(Protocol):
    """Source of time for real-time code."""

    def now_s(self) -> float:
        """Return the seconds since an arbitrary origin; they never decrease."""

    def condition(self) -> threading.Condition:
        """Make a condition variable whose timeouts count by this clock."""

    def wait(self, event: threading.Event, timeout_s: float) -> bool:
        """Wait until an event is set or the time has passed; return whether it is set."""


class SystemClock:
    """The clock of the machine."""

    def now_s(self) -> float:
        """Return ``time.perf_counter()``."""
        return time.perf_counter()

    def condition(self) -> threading.Condition:
        """Make an ordinary condition variable."""
        return threading.Condition()

    def wait(self, event: threading.Event, timeout_s: float) -> bool:
        """Wait for the event."""
        return event.wait(timeout_s)


SYSTEM_CLOCK: Final = SystemClock()
"""Default clock."""
