"""Numbers of the acceptance page in words."""

from __future__ import annotations

import math
from typing import Literal

__all__ = ["count", "percent"]


def count(number: int, noun: str) -> str:
    """Return a number with its noun, such as ``1 image`` or ``2,000 images``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def percent(share: float, rounded: Literal["nearest", "up", "down"] = "nearest") -> str:
    """Return a share as a percentage of three digits, such as ``2.95 %``.

    Args:
        share: 0..1.
        rounded: ``up`` for an upper bound and ``down`` for a lower one, so that neither looks
            better than it is.
    """
    if not share:
        return "0 %"
    digits = max(0, 2 - math.floor(math.log10(100 * abs(share))))
    exact = 100 * share * 10**digits
    whole = round(exact)
    if rounded != "nearest" and abs(exact - whole) > 1e-6:  # more than floats round by
        whole = math.floor(exact) if rounded == "down" else math.ceil(exact)
    text = f"{whole / 10**digits:.{digits}f}"
    return f"{text.rstrip('0').rstrip('.') if digits else text} %"
