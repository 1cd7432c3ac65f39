"""The belt: its speed, its reject gate, the station beside it, and when its parts trigger."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

__all__ = ["Belt", "Times", "triggers_ms"]

Times = NDArray[np.float64]
"""float64 [n]: milliseconds."""


@dataclass(frozen=True)
class Belt:
    """A belt and the station beside it."""

    parts_per_minute: float
    """Parts that pass the camera per minute while the belt runs."""
    deadline_ms: float
    """Time from the trigger of a part to the reject gate at this speed, milliseconds."""
    pitch_mm: float | None = None
    """Distance between parts, millimetres; None if unknown."""
    gate_mm: float | None = None
    """Distance from camera to gate, millimetres; None if the deadline does not depend on the speed.
    With a fixed distance a faster belt leaves less time."""
    cameras: int = 1
    """Number of images of each part, all triggered at once."""
    processes: int = 1
    """Inspecting processes; each takes one image at a time from the shared buffer."""
    buffer: int = 8
    """Images that can wait for a process; an image that finds the buffer full is dropped."""
    jitter: float = 0.0
    """Standard deviation of a part's position, in pitches: inaccuracy of encoder and feeder."""
    go_parts: int | None = None
    """Parts after which the belt stops; None if it never stops."""
    stop_ms: float = 0.0
    """Length of a stop, milliseconds."""

    @property
    def speed_mm_s(self) -> float:
        """Belt speed, millimetres per second; NaN if the pitch is unknown."""
        return math.nan if self.pitch_mm is None else self.parts_per_minute * self.pitch_mm / 60

    def at(self, parts_per_minute: float) -> Belt:
        """Return the same belt at another speed. Its stops keep their length."""
        deadline_ms = self.deadline_ms
        if self.gate_mm is not None:
            deadline_ms *= self.parts_per_minute / parts_per_minute
        return replace(self, parts_per_minute=parts_per_minute, deadline_ms=deadline_ms)

    def parts_in(self, seconds: float) -> int:
        """Return the average number of parts that pass in a time; at least 1."""
        part_ms = 60_000 / self.parts_per_minute
        if self.go_parts:
            part_ms += self.stop_ms / self.go_parts
        return max(1, int(seconds * 1e3 / part_ms))


def triggers_ms(belt: Belt, parts: int, seed: int) -> Times:
    """Return the instant at which each part triggers, float64 [parts], milliseconds.

    The first is 0 and none is earlier than the one before it. For one seed the parts lie at the
    same positions, in pitches, at every speed of the belt.
    """
    random = np.random.default_rng((seed, 0))
    position = np.arange(parts) + belt.jitter * random.standard_normal(parts)
    position = np.maximum.accumulate(position)
    trigger_ms: Times = (position - position[0]) * (60_000 / belt.parts_per_minute)
    if belt.go_parts:
        trigger_ms += np.arange(parts) // belt.go_parts * belt.stop_ms
    return trigger_ms
