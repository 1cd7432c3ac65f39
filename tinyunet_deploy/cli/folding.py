"""Long lists of like lines on stderr: the first ten, and how many more there are."""

from __future__ import annotations

from collections import Counter
from typing import Final

import click

__all__ = ["SHOWN", "FoldedLines"]

SHOWN: Final = 10
"""Largest number of lines of one kind that are printed."""


class FoldedLines:
    """Prints lines as they come; of each kind and reason no more than
    the first ten.

    Args:
        rest: where the others are listed, such as ``the report has each reason``.
    """

    def __init__(self, rest: str = "") -> None:
        self._rest = rest
        self._counts: Counter[tuple[str, str]] = Counter()

    def add(self, kind: str, text: object, reason: str = "") -> None:
        """Print ``kind: text`` unless ten of this kind and reason are printed."""
        self._counts[kind, reason] += 1
        if self._counts[kind, reason] <= SHOWN:
            click.echo(f"{kind}: {text}", err=True)

    def finish(self) -> None:
        """Say how many lines of each kind were left out; call it once, at the end."""
        for (kind, reason), count in self._counts.items():
            if count > SHOWN:
                rest = f"; {self._rest}" if self._rest else ""
                of_reason = f" ({reason})" if reason else ""
                click.echo(f"{kind}: {count - SHOWN} more{of_reason}{rest}", err=True)
