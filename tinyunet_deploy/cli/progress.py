"""Progress of a command on stderr: a bar on a terminal, elsewhere a line every ten seconds."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from typing import TYPE_CHECKING, Final, Self

import click

if TYPE_CHECKING:
    from rich.progress import Progress as Bar

__all__ = ["Progress", "duration"]

LINE_EVERY_S: Final = 10.0
"""Time between two lines where stderr is not a terminal, seconds."""


class Progress:
    """Counts finished pieces of work and shows them, with the total and the time that is left.

    The lines come from a thread of their own, so that they come while the command computes, too.

    Args:
        label: what is done, such as ``evaluating``.
        total: pieces of the whole work; None if it is not known, or not yet.
        unit: what is counted, in the plural.
        shown: False stays silent, as for all but one of several processes.
        bar: False prints lines on a terminal, too, between the results of the command.
        every_s: time between two lines, seconds.
    """

    def __init__(
        self,
        label: str,
        total: int | None = None,
        unit: str = "images",
        *,
        shown: bool = True,
        bar: bool = True,
        every_s: float = LINE_EVERY_S,
    ) -> None:
        self._label = label
        self._total = total
        self._unit = unit
        self._done = 0
        self._before = 0
        self._details = ""
        self._started_s = time.monotonic()
        self._stopped = threading.Event()
        self._every_s = every_s
        terminal = shown and bar and sys.stderr.isatty()
        self._bar = _open_bar() if terminal else None
        self._task = self._bar.add_task(label, total=total, details="") if self._bar else None
        self._lines: threading.Thread | None = None
        if shown and not terminal:
            self._lines = threading.Thread(target=self._say_lines, name="progress", daemon=True)

    @property
    def done(self) -> int:
        """Pieces that are done."""
        return self._done

    @property
    def seconds(self) -> float:
        """Time since the start."""
        return time.monotonic() - self._started_s

    def advance(self, count: int = 1, details: str | None = None) -> None:
        """Count newly finished pieces.

        Args:
            details: text for the end of the bar or line, which stays until another is given.
        """
        self._done += count
        self._update(details=details)

    def resume(self, done: int) -> None:
        """Start at pieces that an earlier run finished; they do not count for the time left."""
        self._done = self._before = done
        self._started_s = time.monotonic()
        self._update()

    def describe(self, label: str, details: str | None = None) -> None:
        """Say what is done now; nothing is counted."""
        self._label = label
        self._update(details=details)

    def expect(self, total: int) -> None:
        """Set the total, which may become known late."""
        self._total = total
        self._update()

    def line(self) -> str:
        """Return the progress as one line of text."""
        parts = []
        if self._total:
            percent = 100 * self._done // self._total
            parts.append(f"{self._done} of {self._total} {self._unit} ({percent} %)")
        elif self._done:
            parts.append(f"{self._done} {self._unit}")
        parts.append(duration(self.seconds))
        left_s = self._left_s()
        if left_s is not None:
            parts.append(f"about {duration(left_s)} left")
        if self._details:
            parts.append(self._details)
        return f"{self._label}: {', '.join(parts)}"

    def stop(self) -> None:
        """Leave the terminal as it was; safe to call again, and from another thread."""
        self._stopped.set()
        if self._bar is not None:
            self._bar.stop()

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
        if self._lines is not None:
            self._lines.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        if self._lines is not None:
            self._lines.join()

    def _left_s(self) -> float | None:
        """Estimate the time that is left from the pieces so far; None before the first."""
        fresh = self._done - self._before
        if not self._total or not fresh or self._done >= self._total:
            return None
        return self.seconds / fresh * (self._total - self._done)

    def _update(self, details: str | None = None) -> None:
        if details is not None:
            self._details = details
        if self._bar is not None and self._task is not None:
            self._bar.update(
                self._task,
                description=self._label,
                completed=self._done,
                total=self._total,
                details=self._details,
            )

    def _say_lines(self) -> None:
        while not self._stopped.wait(self._every_s):
            with contextlib.suppress(OSError, ValueError):  # stderr may be closed or full
                click.echo(self.line(), err=True)


def duration(seconds: float) -> str:
    """Return a time in words that fit its length: ``9 s``, ``3 min 05 s``, ``2 h 07 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest:02} s"
    return f"{minutes // 60} h {minutes % 60:02} min"


def _open_bar() -> Bar:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[details]}"),
        console=Console(stderr=True),
        redirect_stdout=False,  # results go where the user sends them, never to stderr
    )
