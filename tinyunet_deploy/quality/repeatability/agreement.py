"""Agreement of the verdicts on parts that were judged several times."""

from __future__ import annotations

import math
from collections.abc import Sequence

__all__ = ["fleiss_kappa"]


def fleiss_kappa(rejections: Sequence[tuple[int, int]]) -> float:
    """Return Fleiss' kappa of verdicts: agreement beyond chance, 1 at best, 0 for chance alone.

    Parts may have been judged a different number of times. Fleiss 1971, "Measuring nominal scale
    agreement among many raters", whose formula this is where the numbers are the same.

    Args:
        rejections: for each part how often it was rejected, and how often it was judged, 2 or more.

    Returns:
        NaN if every verdict on every part is the same, for chance then explains all agreement, or
        if there are no parts.
    """
    if not rejections:
        return math.nan
    judged = sum(times for _, times in rejections)
    rejected = sum(count for count, _ in rejections)
    by_chance = (rejected / judged) ** 2 + (1 - rejected / judged) ** 2
    if rejected in (0, judged):
        return math.nan
    agreeing = [
        (count * (count - 1) + (times - count) * (times - count - 1)) / (times * (times - 1))
        for count, times in rejections
    ]
    observed = math.fsum(agreeing) / len(agreeing)
    return (observed - by_chance) / (1 - by_chance)
