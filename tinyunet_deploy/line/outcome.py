"""Count the parts that reach the reject gate without a verdict, and bound the true miss rate."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from tinyunet_deploy.line.belt import Belt, Times
from tinyunet_deploy.quality.confidence import clopper_pearson_upper

__all__ = ["CONFIDENCE", "BeltOutcome", "count_outcome", "parts_to_show"]

CONFIDENCE: Final = 0.95
"""Confidence of the one-sided upper bound of a miss rate."""
_ROUNDING_MS: Final = 1e-6
"""Tolerance of the deadline: sums of float64 milliseconds round by less."""


@dataclass(frozen=True)
class BeltOutcome:
    """Misses and times of the parts of one run.

    ``FORMULAS`` in :mod:`tinyunet_deploy.line.study` says how each figure is computed.
    """

    parts: int
    missed: int
    """Parts without a verdict at the reject gate."""
    dropped: int
    """Missed parts with an image that found the buffer full."""
    longest_run: int
    """Largest number of consecutive missed parts."""
    miss_rate: float
    miss_rate_bound: float
    """Upper bound of the true miss rate with confidence :data:`CONFIDENCE`."""
    p50_ms: float
    """Median time to the verdict; infinite if the part of that rank has none, NaN if there are too
    few parts, or too few recorded ones. The same holds for the next two fields."""
    p99_ms: float
    p999_ms: float
    busy: float
    """Share of the time that the processes spend inspecting."""
    time_to_verdict_ms: Times
    """Time to the verdict of each part, [parts]; NaN if an image was dropped, infinite if a verdict
    never came."""

    def figures(self) -> dict[str, Any]:
        """Return every figure except the times of the parts; infinite figures become NaN."""
        fields = asdict(self)
        del fields["time_to_verdict_ms"]
        return {
            name: math.nan if isinstance(value, float) and math.isinf(value) else value
            for name, value in fields.items()
        }


def count_outcome(
    belt: Belt,
    trigger_ms: Times,
    service_ms: Times,
    verdict_ms: Times,
    *,
    recorded: int | None = None,
) -> BeltOutcome:
    """Count the misses of a run and rank its times.

    Args:
        trigger_ms: [parts].
        service_ms: [parts x cameras], part by part: inspection time of each image.
        verdict_ms: [parts x cameras]: instant of each verdict; NaN if the image was dropped,
            infinite if its verdict never came.
        recorded: number of recorded images, if the service times are replayed from a recording;
            the bound then counts no more parts than were recorded, and a percentile needs as many
            of them as of measured parts.
    """
    parts = len(trigger_ms)
    time_ms = verdict_ms.reshape(parts, belt.cameras).max(axis=1) - trigger_ms
    missed = ~(time_ms <= belt.deadline_ms + _ROUNDING_MS)
    runs = _run_lengths(missed)
    evidence = parts if recorded is None else min(parts, recorded // belt.cameras)
    trials = max(1, int(evidence * len(runs) / missed.sum())) if runs else max(1, evidence)
    events = min(trials, math.ceil(missed.mean() * trials - 1e-9))
    served = np.isfinite(verdict_ms)
    last_ms = float(verdict_ms[served].max()) if served.any() else math.nan
    ranked = np.sort(np.where(np.isnan(time_ms), np.inf, time_ms)).tolist()
    p50, p99, p999 = (
        ranked[_rank(thousandths, parts) - 1]
        if _rank(thousandths, evidence) < evidence
        else math.nan
        for thousandths in (500, 990, 999)
    )
    return BeltOutcome(
        parts=parts,
        missed=int(missed.sum()),
        dropped=int(np.isnan(time_ms).sum()),
        longest_run=max(runs, default=0),
        miss_rate=float(missed.mean()),
        miss_rate_bound=clopper_pearson_upper(events, trials, CONFIDENCE),
        p50_ms=p50,
        p99_ms=p99,
        p999_ms=p999,
        busy=float(service_ms[served].sum()) / (belt.processes * last_ms),
        time_to_verdict_ms=time_ms,
    )


def _rank(thousandths: int, parts: int) -> int:
    """Return the nearest rank of a percentile, from 1."""
    return -(-thousandths * parts // 1000)


def _run_lengths(flags: NDArray[np.bool_]) -> list[int]:
    """Return the lengths of the stretches of consecutive True."""
    edges = np.flatnonzero(np.diff(np.concatenate(([False], flags, [False]))))
    return [int(length) for length in edges[1::2] - edges[::2]]


def parts_to_show(miss_rate: float, confidence: float = CONFIDENCE) -> float:
    """Return how many parts without a miss would prove a miss rate; infinite for a rate of 0."""
    if miss_rate <= 0:
        return math.inf
    return math.ceil(math.log(1 - confidence) / math.log1p(-miss_rate)) if miss_rate < 1 else 1
