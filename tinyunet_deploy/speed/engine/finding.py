"""A sentence of an engine report, and how it writes times and sizes."""

from __future__ import annotations

from typing import Literal, NamedTuple, TypeAlias

__all__ = ["Finding", "Kind", "mib_text", "ms_text", "percent_text"]

Kind: TypeAlias = Literal["limit", "warning", "fact"]
"""``limit``: it holds the engine back; ``warning``: it makes the figures doubtful."""


class Finding(NamedTuple):
    """One sentence and the rule that wrote it."""

    rule: str
    kind: Kind
    text: str


def ms_text(value: float) -> str:
    """Return a time with three digits, ``1.23 ms`` or ``4.5 us``."""
    return f"{value:.3g} ms" if value >= 1e-2 or not value else f"{value * 1e3:.2g} us"


def percent_text(share: float) -> str:
    """Return a share of 0..1 as a whole percentage, ``12 %``."""
    return f"{100 * share:.0f} %"


def mib_text(value: float) -> str:
    """Return a size with three digits, ``1.23 MiB``."""
    return f"{value / 2**20:.3g} MiB"
