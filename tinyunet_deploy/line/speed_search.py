"""Search for the fastest belt, and for the fewest processes, that keep a miss rate."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from tinyunet_deploy.line.belt import Belt
from tinyunet_deploy.line.outcome import BeltOutcome
from tinyunet_deploy.line.recording import Recording
from tinyunet_deploy.line.resampling import draw_services_ms
from tinyunet_deploy.line.simulation import replay, simulate_belt

__all__ = [
    "BUSIEST",
    "MOST_PROCESSES",
    "SearchSettings",
    "SpeedSearch",
    "find_fastest",
    "processes_needed",
]

BUSIEST: Final = 0.95
"""Largest share of its time that a process may work. Closer to 1, a queue grows so slowly that no
recording is long enough to show its final length."""
MOST_PROCESSES: Final = 8
"""Largest number of processes that :func:`processes_needed` tries."""
_GRID: Final = 24
"""Number of speeds in the curve; the fastest speed lies between two of them."""
_BISECTIONS: Final = 12
"""Halvings of one interval of the grid: the fastest speed is exact to capacity / 24 / 2^12."""


@dataclass(frozen=True)
class SearchSettings:
    """Settings of the simulated runs, and the miss rate that a speed must keep."""

    parts: int
    """Number of parts in each simulated run."""
    seed: int
    max_miss_rate: float
    """Largest share of parts that may reach the gate without a verdict."""


@dataclass(frozen=True)
class SpeedSearch:
    """Fastest speeds of the belt, parts per minute; NaN if no speed keeps the miss rate."""

    fastest_shown: float
    """Fastest speed at which the upper bound of the miss rate is within the allowed rate."""
    fastest_seen: float
    """Fastest speed at which the miss rate itself is within the allowed rate, whatever its
    bound."""
    capacity: float
    """Speed above which the station has no time in reserve (:data:`BUSIEST`); no faster speed is
    tried."""
    curve: list[tuple[float, BeltOutcome]]
    """Speeds from slow to fast, and the outcome at each."""


def find_fastest(belt: Belt, recording: Recording, settings: SearchSettings) -> SpeedSearch:
    """Find the fastest speed that keeps a miss rate, by bisection over speeds.

    Every speed is tried on the same positions of parts and the same service times.
    """
    parts, seed = settings.parts, settings.seed
    service_ms = draw_services_ms(recording, belt, parts * belt.cameras, seed)
    recorded = len(recording.service_ms)

    def outcome_at(speed: float) -> BeltOutcome:
        return simulate_belt(belt.at(speed), service_ms, parts, seed, recorded)

    capacity = _capacity(belt, float(recording.service_ms.mean()))
    speeds = np.linspace(0, capacity, _GRID + 1)[1:].tolist()
    curve = [(speed, outcome_at(speed)) for speed in speeds]

    def fastest(keeps: Callable[[BeltOutcome], bool]) -> float:
        fast = math.nan
        for speed, outcome in curve:
            if not keeps(outcome):
                break
            fast = speed
        else:
            return capacity
        if math.isnan(fast):
            return fast
        for _ in range(_BISECTIONS):
            middle = (fast + speed) / 2
            if keeps(outcome_at(middle)):
                fast = middle
            else:
                speed = middle
        return fast

    return SpeedSearch(
        fastest_shown=fastest(lambda outcome: outcome.miss_rate_bound <= settings.max_miss_rate),
        fastest_seen=fastest(lambda outcome: outcome.miss_rate <= settings.max_miss_rate),
        capacity=capacity,
        curve=curve,
    )


def _capacity(belt: Belt, mean_ms: float) -> float:
    """Return the speed at which processes are busy for :data:`BUSIEST` of the time.

    Stops give time to catch up, for up to ten times the speed.
    """
    part_ms = belt.cameras * mean_ms / (belt.processes * BUSIEST)
    going_ms = part_ms - (belt.stop_ms / belt.go_parts if belt.go_parts else 0.0)
    return 60_000 / max(going_ms, part_ms / 10)


def processes_needed(belt: Belt, recording: Recording, settings: SearchSettings) -> int | None:
    """Return the fewest processes that keep the miss rate, if each is as fast as the recorded ones.

    None if more than :data:`MOST_PROCESSES` are needed. Processes that share a processor are
    slower: only a live run with as many of them shows how much.
    """
    for processes in range(1, MOST_PROCESSES + 1):
        wider = replace(belt, processes=processes)
        outcome = replay(wider, recording, parts=settings.parts, seed=settings.seed)
        if outcome.miss_rate <= settings.max_miss_rate:
            return processes
    return None
