"""Result of one check, before it becomes a row of the page."""

from __future__ import annotations

from typing import Literal, NamedTuple

__all__ = ["Finding", "Outcome"]

Outcome = Literal["met", "not met", "not shown", "waived"]


class Finding(NamedTuple):
    """Whether the evidence meets a requirement."""

    outcome: Outcome
    sentence: str
    """What was measured, and why it gives this outcome."""
    missing: str = ""
    """What would show the requirement, or mend it; empty if it is met."""
