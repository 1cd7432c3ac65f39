"""Draw figures as SVG or PNG files with matplotlib."""

from __future__ import annotations

import functools
import importlib.util
import io
import os
import sys
import tempfile
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Literal

from tinyunet_deploy.errors import RuntimeUnavailable, printable
from tinyunet_deploy.files import remove_at_end

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["draw_png", "draw_svg", "plain_texts", "private_matplotlib", "require_matplotlib"]


_DPI: Final = 150
"""Resolution of a PNG, pixels per inch; an SVG has none."""


@functools.cache
def private_matplotlib() -> None:
    """Give matplotlib a folder of this process for its font list, removed when the process ends.

    Call it before matplotlib is imported, which otherwise writes to ``~/.cache`` and ``~/.config``.
    The user's ``MPLCONFIGDIR`` is kept.
    """
    if "MPLCONFIGDIR" not in os.environ and "matplotlib" not in sys.modules:
        os.environ["MPLCONFIGDIR"] = tempfile.mkdtemp(prefix="tinyunet-matplotlib-")
        remove_at_end(os.environ["MPLCONFIGDIR"])


def require_matplotlib() -> None:
    """Check that a figure can be drawn; call it before the work whose result the figure shows.

    Raises:
        RuntimeUnavailable: matplotlib is not installed.
    """
    if importlib.util.find_spec("matplotlib") is None:
        raise RuntimeUnavailable(
            "matplotlib", "is not installed", "pip install 'tinyunet-deploy[pictures]'"
        )


def plain_texts(figure: Figure) -> None:
    """Make every text of a figure plain text: names in it may be hostile.

    Characters that cannot be printed, or that change the direction of writing, are spelled out, and
    dollar signs are dollar signs, not formulas.
    """
    from matplotlib.text import Text
    from matplotlib.ticker import FuncFormatter

    def lines(text: str) -> str:
        return "\n".join(map(printable, text.split("\n")))

    def plain_tick(formatter: FuncFormatter, value: float, position: int | None = None) -> str:
        return lines(formatter(value, position)).replace("$", r"\$")

    ticks = set()
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            ticks.update(axis.findobj(Text, include_self=False))
            ticks.discard(axis.label)
            formatter = axis.get_major_formatter()
            if isinstance(formatter, FuncFormatter):  # it makes the texts of ticks while drawing
                axis.set_major_formatter(FuncFormatter(functools.partial(plain_tick, formatter)))
    for text in figure.findobj(Text):
        assert isinstance(text, Text)
        text.set_text(lines(text.get_text()))
        text.set_parse_math(text in ticks)  # powers of ten are formulas of matplotlib


def draw_svg(width: float, height: float, draw: Callable[[Figure], None]) -> bytes:
    """Return a figure as an SVG file on white; the same figure gives the same bytes.

    Args:
        width, height: size of the figure, inches.
        draw: draws into the empty figure that it is called with.

    Raises:
        RuntimeUnavailable: matplotlib is not installed.
    """
    return _drawn(width, height, draw, "svg")


def draw_png(width: float, height: float, draw: Callable[[Figure], None]) -> bytes:
    """Return a figure as a PNG file on white, 150 pixels per inch.

    Args:
        width, height: size of the figure, inches.
        draw: draws into the empty figure that it is called with.

    Raises:
        RuntimeUnavailable: matplotlib is not installed.
    """
    return _drawn(width, height, draw, "png")


def _drawn(
    width: float, height: float, draw: Callable[[Figure], None], style: Literal["svg", "png"]
) -> bytes:
    require_matplotlib()
    private_matplotlib()
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context({"svg.hashsalt": "tinyunet", "svg.fonttype": "none"}):
        figure = Figure(figsize=(width, height), layout="constrained")
        draw(figure)
        plain_texts(figure)
        file = io.BytesIO()
        metadata = {"Date": None} if style == "svg" else {"Software": None}
        figure.savefig(file, format=style, dpi=_DPI, metadata=metadata)
    return file.getvalue()
