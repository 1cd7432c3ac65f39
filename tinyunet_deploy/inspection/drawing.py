"""Draw figures as SVG files, if matplotlib is installed."""

from __future__ import annotations

import functools
import io
import os
import sys
import tempfile
from collections.abc import Callable
from typing import TYPE_CHECKING

from tinyunet_deploy.files import remove_at_end

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["draw_svg"]


__all__ = ["draw_svg", "private_matplotlib"]


@functools.cache
def private_matplotlib() -> None:
    """Give matplotlib a folder of this process for its font list, removed when the process ends.

    Call it before matplotlib is imported, which otherwise writes to ``~/.cache`` and ``~/.config``.
    The user's ``MPLCONFIGDIR`` is kept.
    """
    if "MPLCONFIGDIR" not in os.environ and "matplotlib" not in sys.modules:
        os.environ["MPLCONFIGDIR"] = tempfile.mkdtemp(prefix="tinyunet-matplotlib-")
        remove_at_end(os.environ["MPLCONFIGDIR"])


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
