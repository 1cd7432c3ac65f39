"""Draw figures as SVG files with matplotlib."""

from __future__ import annotations

import functools
import importlib.util
import io
import os
import sys
import tempfile
from collections.abc import Callable
from typing import TYPE_CHECKING

from tinyunet_deploy.errors import RuntimeUnavailable
from tinyunet_deploy.files import remove_at_end

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["draw_svg", "private_matplotlib", "require_matplotlib"]


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


def draw_svg(width: float, height: float, draw: Callable[[Figure], None]) -> bytes:
    """Return a figure as an SVG file on white; the same figure gives the same bytes.

    Args:
        width, height: size of the figure, inches.
        draw: draws into the empty figure that it is called with.

    Raises:
        RuntimeUnavailable: matplotlib is not installed.
    """
    require_matplotlib()
    private_matplotlib()
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context({"svg.hashsalt": "tinyunet", "svg.fonttype": "none"}):
        figure = Figure(figsize=(width, height), layout="constrained")
        draw(figure)
        file = io.BytesIO()
        figure.savefig(file, format="svg", metadata={"Date": None})
    return file.getvalue()
