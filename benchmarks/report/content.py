"""Parts of a report section: text, tables, pictures, commands."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from benchmarks.report.drawing import NARROW, WIDE

__all__ = ["Picture", "Section", "Table", "no_benchmark"]


@dataclass(frozen=True)
class Table:
    """Table of text cells; columns from ``numbers`` on are right-aligned."""

    head: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    numbers: int = 1


@dataclass(frozen=True)
class Picture:
    """A thumbnail with its caption."""

    uri: str
    """The image as a data URI."""
    title: str
    text: str


@dataclass
class Section:
    """One numbered section of the report."""

    title: str
    lead: list[str] = field(default_factory=list)
    svg: str | None = None
    """The figure for a phone, inline SVG."""
    wide_svg: str | None = None
    """The same figure for a screen."""
    tables: list[Table] = field(default_factory=list)
    pictures: list[Picture] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    commands: list[str] = field(default_factory=list)
    """Commands that made the results."""
    absent: bool = False
    """True if there are no results for this section; ``commands`` would make them."""

    def draw(self, figure: Callable[[float], str]) -> None:
        """Draw the figure in both widths.

        Args:
            figure: returns inline SVG of a width in inches.
        """
        self.svg, self.wide_svg = figure(NARROW), figure(WIDE)


def no_benchmark(title: str, lead: str) -> Section:
    """Return the placeholder for a section whose results of ``tinyunet benchmark`` are missing."""
    command = "tinyunet benchmark IMAGES -m engines/ -o benchmarks/results/benchmark.json"
    return Section(title, lead=[lead], commands=[command], absent=True)
