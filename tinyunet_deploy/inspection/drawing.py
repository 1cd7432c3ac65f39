"""Figures of the library: SVG, for people, where matplotlib is installed."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import TYPE_CHECKING

from tinyunet_deploy.telemetry import private_matplotlib

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw_svg(width: float, height: float, draw: Callable[[Figure], None]) -> bytes | None:
    """What ``draw`` puts into an empty figure, as an SVG file on white; the same bytes every time.

    Args:
        width, height: inches.

    Returns:
        None where matplotlib is not installed.
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
