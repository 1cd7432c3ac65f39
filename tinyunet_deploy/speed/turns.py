"""Time several things in turn, so that all of them meet the same load of the machine."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Final

__all__ = ["ROUNDS", "time_in_turns"]

ROUNDS: Final = 9
"""Usual number of rounds: enough for the interval of a ratio, and odd."""
_WARM_UP: Final = 2
"""Untimed calls of each before the first round: the first calls allocate memory."""


def time_in_turns(
    calls: Mapping[str, Callable[[], object]],
    rounds: int = ROUNDS,
    calls_each: int = 3,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Return the median time of a call in each round, milliseconds.

    In a round, everything is called ``calls_each`` times in a row; the next round starts with
    another one, so that none always comes after the same neighbour.

    Args:
        calls: name -> function that does the work once.
        rounds: number of rounds, at least 1.
        calls_each: calls of each in a round, at least 1.
        clock: function that returns seconds.

    Returns:
        Name -> one figure for each round.
    """
    for call in calls.values():
        for _ in range(_WARM_UP):
            call()
    names = list(calls)
    figures: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(rounds):
        first = turn % len(names)
        for name in (*names[first:], *names[:first]):
            figures[name].append(statistics.median(_times(calls[name], calls_each, clock)))
    return figures


def _times(call: Callable[[], object], count: int, clock: Callable[[], float]) -> list[float]:
    times = []
    for _ in range(count):
        started = clock()
        call()
        times.append((clock() - started) * 1e3)
    return times
