"""Samples of one kind of time, and their percentiles."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

__all__ = ["PERCENTILES", "PERCENTILE_FORMULA", "TimeSamples", "percentile"]

PERCENTILES: Final = {"p50": 500, "p90": 900, "p95": 950, "p99": 990, "p99_9": 999}
"""Name -> share of the samples, in thousandths."""
PERCENTILE_FORMULA: Final = (
    "nearest rank: the ceil(p n)-th smallest of all n samples, none left out; null where no sample "
    "is above that rank (n < 1 / (1 - p)), as it would be the maximum under another name"
)


def percentile(samples: Sequence[float], thousandths: int) -> float:
    """Return a percentile by nearest rank.

    It is the ceil(p n)-th smallest of n samples (Hyndman & Fan 1996, definition 1; NumPy's
    ``inverted_cdf``).

    Args:
        samples: the samples, in any order.
        thousandths: 1000 p, 1 to 999.

    Returns:
        NaN if no sample is above that rank: it would be the maximum under another name.
    """
    if not 0 < thousandths < 1000:
        raise ValueError(f"{thousandths} thousandths is not a percentile")
    rank = -(-thousandths * len(samples) // 1000)
    return sorted(samples)[rank - 1] if rank < len(samples) else math.nan


@dataclass(frozen=True)
class TimeSamples:
    """One kind of time: all samples, in the order in which they were taken.

    In JSON, ``n``, ``mean_ms``, ``min_ms``, ``max_ms`` and ``p50_ms`` to ``p99_9_ms`` stand beside
    them.
    """

    samples_ms: tuple[float, ...]

    def percentile_ms(self, name: str) -> float:
        """Return one of :data:`PERCENTILES`; NaN if there are too few samples for it."""
        return percentile(self.samples_ms, PERCENTILES[name])

    def figures(self) -> dict[str, float]:
        """Return the figures that stand beside the samples in JSON."""
        samples = self.samples_ms
        return {
            "n": len(samples),
            "mean_ms": math.fsum(samples) / len(samples) if samples else math.nan,
            "min_ms": min(samples, default=math.nan),
            **{f"{name}_ms": self.percentile_ms(name) for name in PERCENTILES},
            "max_ms": max(samples, default=math.nan),
        }
