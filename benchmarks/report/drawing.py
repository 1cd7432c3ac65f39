"""Draw the report's figures with matplotlib, as SVG in the colours of the page.

Every colour is a CSS variable of the template, so one drawing is readable in light and in dark
mode. Text stays text, in the page's font. The same data give the same bytes.
"""

from __future__ import annotations

import io
import re
import zlib
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import matplotlib as mpl
import matplotlib.ticker
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tinyunet_deploy.artifacts.precision import PRECISIONS, precision_facts
from tinyunet_deploy.backends.table import BACKENDS
from tinyunet_deploy.inspection.drawing import plain_texts

if TYPE_CHECKING:
    from matplotlib.typing import RcKeyType

__all__ = [
    "COLORS", "GATE_DASHES", "MARKERS", "NARROW", "WIDE", "Series", "draw_dot", "draw_gate",
    "draw_legend", "figure_style", "new_figure", "plain_log", "svg_of",
]  # fmt: skip

_VARIABLES: Final = (
    "ink", "muted", "rule", "paper", "gate", "pass",
    *(precision_facts(name).color for name in reversed(PRECISIONS)), "peer",
    *(f"stage-{index}" for index in range(9)),
)  # fmt: skip
COLORS: Final = {name: f"#0{index:02x}f0a" for index, name in enumerate(_VARIABLES, start=1)}
"""CSS variable -> placeholder colour while matplotlib draws."""
MARKERS: Final = {name: row.marker for name, row in BACKENDS.items()}
"""Backend -> marker; a peer has a thin diamond."""
_DASHES: Final = {name: row.dashes for name, row in BACKENDS.items()}
GATE_DASHES: Final = (0, (4, 2))
"""Dash pattern of a limit: offset, (on, off), in line widths."""
NARROW: Final = 5.0
"""Width of a figure for a phone, inches: narrow enough for text of 9 points to be readable."""
WIDE: Final = 11.0
"""Width of the same figure for a screen, inches."""

_STYLE: Final[dict[RcKeyType, Any]] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "tinyunet",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": COLORS["muted"],
    "axes.labelcolor": COLORS["muted"],
    "axes.linewidth": 0.6,
    "axes.titlesize": 9,
    "axes.titlecolor": COLORS["ink"],
    "axes.titlelocation": "left",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": COLORS["rule"],
    "grid.linewidth": 0.5,
    "xtick.color": COLORS["muted"],
    "ytick.color": COLORS["muted"],
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.minor.width": 0.4,
    "ytick.minor.width": 0.4,
    "text.color": COLORS["ink"],
    "lines.linewidth": 1.4,
    "lines.markersize": 6,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "legend.labelcolor": COLORS["ink"],
    "figure.constrained_layout.use": True,
}


class Series(NamedTuple):
    """The configuration that one line or point of a figure shows."""

    label: str
    precision: str
    backend: str
    """Name of a backend of the library; any other name is a peer."""

    @property
    def color(self) -> str:
        """Colour of the precision; grey for a peer."""
        known = self.backend in MARKERS and self.precision in COLORS
        return COLORS[self.precision if known else "peer"]

    @property
    def marker(self) -> str:
        """Marker of the backend."""
        return MARKERS.get(self.backend, "d")

    @property
    def dashes(self) -> str:
        """Line style of the backend."""
        return _DASHES.get(self.backend, "-.")


def figure_style() -> AbstractContextManager[None]:
    """Return the context in which a figure must be drawn."""
    return mpl.rc_context(_STYLE)


def new_figure(height: float, width: float) -> tuple[Figure, Axes]:
    """Return an empty figure of ``width`` and ``height`` in inches."""
    figure = Figure(figsize=(width, height))
    return figure, figure.add_subplot()


def draw_dot(
    axes: Axes, series: Series, x: float, y: float, *, named: bool = True, hollow: bool = False
) -> None:
    """Draw the marker of a series.

    Args:
        named: list the series in the legend.
        hollow: draw only the outline.
    """
    axes.plot(
        [x], [y], marker=series.marker, linestyle="", zorder=3,
        color=COLORS["paper"] if hollow else series.color,
        markeredgecolor=series.color if hollow else COLORS["paper"],
        label=series.label if named else None,
    )  # fmt: skip


def draw_gate(axes: Axes, y: float, text: str) -> None:
    """Draw a limit as a dashed horizontal line with a label."""
    axes.axhline(y, color=COLORS["gate"], linewidth=1, linestyle=GATE_DASHES)
    axes.annotate(
        text, (0, y), xycoords=("axes fraction", "data"), xytext=(4, 3),
        textcoords="offset points", fontsize=8.5, color=COLORS["gate"],
    )  # fmt: skip


def plain_log(axis: Any) -> None:
    """Label a logarithmic axis 10, 20, 50 instead of with powers of ten."""
    axis.set_major_locator(mpl.ticker.LogLocator(subs=(1.0, 2.0, 5.0), numticks=8))
    axis.set_minor_locator(mpl.ticker.NullLocator())
    axis.set_major_formatter(lambda value, _: f"{value:,g}")


def draw_legend(figure: Figure, axes: Axes, column_inches: float = 2.4) -> None:
    """Draw the legend of ``axes`` above the figure, if any series is named.

    Args:
        column_inches: width of a column.
    """
    handles, labels = axes.get_legend_handles_labels()
    columns = max(1, int(figure.get_figwidth() / column_inches))
    if labels:
        figure.legend(
            handles, labels, loc="outside upper left", ncols=columns, handlelength=2.2,
            columnspacing=1.2,
        )  # fmt: skip


def svg_of(figure: Figure, name: str, title: str) -> str:
    """Return a figure as inline SVG, with a viewBox but no size, in the page's colours and font.

    Args:
        name: begins every id in it.
        title: text for screen readers.
    """
    buffer = io.StringIO()
    plain_texts(figure)
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    name = f"{name}-{zlib.crc32(text.encode()):08x}"  # a page may show two figures of one name
    head, _, rest = text.partition(">")
    box = re.search(r'viewBox="[^"]+"', head)
    assert box is not None
    head = f'<svg {box[0]} role="img" aria-label="{title}" xmlns="http://www.w3.org/2000/svg" '
    head += 'xmlns:xlink="http://www.w3.org/1999/xlink"'
    rest = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', rest)
    rest = re.sub(r"url\(#([^)]+)\)", rf"url(#{name}-\1)", rest)
    rest = re.sub(r'href="#([^"]+)"', rf'href="#{name}-\1"', rest)
    rest = re.sub(r"font-family: [^;\"]+", "font-family: var(--sans)", rest)
    rest = re.sub(r'<style type="text/css">.*?</style>', "", rest)  # would style the whole page
    for variable, color in COLORS.items():
        rest = rest.replace(color, f"var(--{variable})")
    return f"{head}>{rest}".strip()
