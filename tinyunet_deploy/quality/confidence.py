"""Confidence bound of a rate that was counted on a sample, and the sample that a bound needs."""

from __future__ import annotations

import math

__all__ = ["clopper_pearson_upper", "trials_to_show"]


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


def trials_to_show(rate: float, events: int = 0, confidence: float = 0.95) -> float:
    """Return the smallest number of trials with so many events that proves a rate.

    Args:
        rate: the rate to prove: :func:`clopper_pearson_upper` must be at most this.
        events: number of events among the trials, 0 or more.
        confidence: in (0, 1).

    Returns:
        A whole number; infinite for a rate of 0, which no sample proves.
    """
    if rate <= 0:
        return math.inf
    if rate >= 1:
        return max(1, events)
    low, high = events, events + 1  # so many trials do not prove it; perhaps so many do
    while clopper_pearson_upper(events, high, confidence) > rate:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        if clopper_pearson_upper(events, middle, confidence) > rate:
            low = middle
        else:
            high = middle
    return high
