"""Confidence bound of a rate that was counted on a sample."""

from __future__ import annotations

import math

__all__ = ["clopper_pearson_upper"]


def clopper_pearson_upper(events: int, trials: int, confidence: float = 0.95) -> float:
    """Return the one-sided exact upper bound of a rate.

    The bound is the p at which P(X <= events | trials, p) = 1 - confidence for a binomial X
    (Clopper & Pearson 1934), to the last digits, by bisection. Without events it is
    ``1 - (1 - confidence) ** (1 / trials)``: if 0 of 71 were missed, at most 4.1 % are missed with
    95 % confidence. The upper end of the two-sided interval, 5.1 %, is confidence 0.975 here.

    Args:
        events: 0..trials.
        trials: 0 or more.
        confidence: in (0, 1).

    Returns:
        0..1; NaN without trials.
    """
    if not trials:
        return math.nan
    if events == trials:
        return 1.0
    log_ways = [
        math.lgamma(trials + 1) - math.lgamma(k + 1) - math.lgamma(trials - k + 1)
        for k in range(events + 1)
    ]

    def at_most_events(rate: float) -> float:
        hit, miss = math.log(rate), math.log1p(-rate)
        return math.fsum(
            math.exp(ways + k * hit + (trials - k) * miss) for k, ways in enumerate(log_ways)
        )

    low, high = 0.0, 1.0
    while low < (middle := (low + high) / 2) < high:
        if at_most_events(middle) > 1 - confidence:
            low = middle
        else:
            high = middle
    return high
