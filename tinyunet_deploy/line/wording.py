"""Numbers as words for the people who read a report of a line."""

from __future__ import annotations

__all__ = ["count", "per_minute", "percent"]


def per_minute(speed: float) -> str:
    """Return a belt speed as text, such as ``1,200.0 parts/min``."""
    return f"{speed:,.1f} parts/min"


def count(number: int, name: str, plural: str = "s") -> str:
    """Return a number with its noun, such as ``2 cameras``."""
    return f"{number} {name}{'' if number == 1 else plural}"


def percent(share: float) -> str:
    """Return a share in percent with three digits, such as ``0.1 %``."""
    return f"{100 * share:.3g} %"
