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


class SystemClock:
    """The clock of the machine."""

    def now_s(self) -> float:
        """Return ``time.perf_counter()``."""
        return time.perf_counter()

    def condition(self) -> threading.Condition:
        """Make an ordinary condition variable."""
        return threading.Condition()


SYSTEM_CLOCK: Final = SystemClock()
"""Default clock."""
