"""Ratios of times, and how large one must be before it is called a difference.

A cell is timed once in each round, in its own process. Each round counts with the median of
its samples, so a figure has as many independent values as there are rounds.

    ratio     median over rounds of a's round medians / the same of b's
    interval  99 % percentile bootstrap over rounds (Efron & Tibshirani 1993, ch. 13), 10,000
              resamples; the rounds of one run are drawn jointly, those of two runs independently
    floor     of a run: the end of the interval of its A/A ratio (one cell, timed as two) that is
              further from 1, as a factor of at least 1
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["LEAST_ROUNDS", "STATISTICS", "Ratio", "ratio_in_run", "ratio_of_runs"]

_RESAMPLES: Final = 10_000
"""Bootstrap samples of an interval."""
_LEVEL: Final = 0.99
"""Confidence of an interval."""
LEAST_ROUNDS: Final = 5
"""Smallest number of rounds that gives a meaningful interval."""
STATISTICS: Final = (
    "A round's figure is the median of its samples; a ratio is of medians over rounds, its "
    f"interval the {_LEVEL:.0%} percentile bootstrap over rounds ({_RESAMPLES:,} resamples). "
    "The floor is the end of the A/A ratio's interval that is further from 1."
)


class Ratio(NamedTuple):
    """A ratio and its interval."""

    value: float
    low: float
    high: float

    def as_dict(self) -> dict[str, float]:
        """Return the values for JSON."""
        return self._asdict()

    @property
    def floor(self) -> float:
        """The factor, at least 1, by which the interval reaches away from 1."""
        return float(max(self.high, 1 / self.low, 1.0))

    def outside(self, floor: float) -> bool:
        """Return whether the whole interval lies above ``floor`` or below 1 / ``floor``."""
        return self.low > floor or self.high < 1 / floor


def ratio_in_run(a: Sequence[float], b: Sequence[float]) -> Ratio:
    """Return the ratio of two cells of one run: a / b.

    Args:
        a, b: the figure of each round, in the order of the rounds; both of one length.
    """
    if len(a) != len(b):
        raise ValueError(f"{len(a)} rounds cannot be compared with {len(b)}")
    rounds = _draw(len(a), 0)
    return _ratio(_medians(a, rounds) / _medians(b, rounds), np.median(a) / np.median(b))


def ratio_of_runs(
    a: tuple[Sequence[float], Sequence[float]], b: tuple[Sequence[float], Sequence[float]]
) -> Ratio:
    """Return the ratio of one cell in two runs: (a's cell / reference) / (b's cell / reference).

    Dividing by the reference removes effects that make a whole run slower than another.

    Args:
        a, b: for each run, the figures of the cell's rounds and those of the reference's.
    """
    drawn, values = [], []
    for seed, (cell, reference) in enumerate((a, b)):
        rounds = _draw(len(cell), seed)
        drawn.append(_medians(cell, rounds) / _medians(reference, rounds))
        values.append(np.median(cell) / np.median(reference))
    return _ratio(drawn[0] / drawn[1], values[0] / values[1])


def _draw(rounds: int, seed: int) -> NDArray[np.int64]:
    return np.random.default_rng(seed).integers(0, rounds, (_RESAMPLES, rounds))


def _medians(figures: Sequence[float], rounds: NDArray[np.int64]) -> NDArray[np.float64]:
    return np.median(np.asarray(figures, np.float64)[rounds], axis=1)


def _ratio(drawn: NDArray[np.float64], value: float) -> Ratio:
    tail = (1 - _LEVEL) / 2
    low, high = np.quantile(drawn, (tail, 1 - tail))
    return Ratio(float(value), float(low), float(high))
