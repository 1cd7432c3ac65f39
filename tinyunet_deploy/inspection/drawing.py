"""Draw figures as SVG files, if matplotlib is installed."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import TYPE_CHECKING

from tinyunet_deploy.telemetry import private_matplotlib

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["draw_svg"]


def draw_svg(width: float, height: float, draw: Callable[[Figure], None]) -> bytes | None:
    """Return a figure as an SVG file on white; the same figure gives the same bytes.

    Args:
        width, height: size of the figure, inches.
        draw: draws into the empty figure that it is called with.

    Returns:
        None if matplotlib is not installed.
    """
    private_matplotlib()
    try:
        import matplotlib
    except ImportError:
        return None
    from matplotlib.figure import Figure

    with matplotlib.rc_context({"svg.hashsalt": "tinyunet", "svg.fonttype": "none"}):
        figure = Figure(figsize=(width, height), layout="constrained")
        draw(figure)
        file = io.BytesIO()
        figure.savefig(file, format="svg", metadata={"Date": None})
    return file.getvalue()
