"""Draw mistakes over threshold and min_area, the plateau shaded and the chosen point marked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from tinyunet_deploy.inspection.drawing import draw_svg
from tinyunet_deploy.quality.plateau import CurvePoint, Interval, Plateau

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["PLATEAU", "draw_plateaus", "inline_plateaus"]

PLATEAU: Final = "plateau.svg"
"""File name of the picture."""

_ESCAPES, _OVERKILLS, _PLATEAU = "#d55e00", "#0072b2", "#009e73"
"""Colours that differ for colour-blind eyes, too (Okabe & Ito 2008)."""
_BROKEN: Final = "#cc3311"
"""Colour of a plateau that breaks a limit."""
_ROW_INCHES: Final = 2.0


def draw_plateaus(plateaus: Sequence[Plateau]) -> bytes:
    """Draw an SVG with a row for each plateau.

    Args:
        plateaus: one at least; the first is the reference of the others' widths. One that breaks a
            limit is shaded in red instead of green.

    Raises:
        RuntimeUnavailable: matplotlib is not installed.
    """
    height = 0.8 + _ROW_INCHES * len(plateaus)
    return draw_svg(9.5, height, lambda figure: _draw(figure, plateaus))


def inline_plateaus(plateaus: Sequence[Plateau]) -> str:
    """Draw the picture of :func:`draw_plateaus` as an ``<svg>`` element for an HTML page.

    Raises:
        RuntimeUnavailable: matplotlib is not installed.
    """
    text = draw_plateaus(plateaus).decode()
    return text[text.index("<svg") :]


def _draw(figure: Figure, plateaus: Sequence[Plateau]) -> None:
    grid = figure.subplots(len(plateaus), 2, squeeze=False, sharex="col", width_ratios=(3, 2))
    largest = max(plateau.areas_curve[-1].at for plateau in plateaus)
    largest = 2 * max(largest, *(plateau.min_area_px for plateau in plateaus))
    for row, plateau in enumerate(plateaus):
        steps, areas = grid[row]
        _draw_curve(steps, plateau.steps_curve, 255)
        reference = None if plateau is plateaus[0] else plateaus[0]
        color = _BROKEN if plateau.faults(reference) else _PLATEAU
        _shade(steps, plateau.steps, 0, 255, color)
        steps.axvline(plateau.threshold_steps, color="black", lw=1.5)
        steps.set_title(_title(plateau, plateaus[0]), loc="left", fontsize="medium")
        steps.set_xlim(0, 255)
        steps.set_ylabel("parts")
        ticks = (0, 0.2, 0.4, 0.6, 0.8, 1.0)
        steps.set_xticks([255 * tick for tick in ticks], [f"{tick:g}" for tick in ticks])
        _draw_curve(areas, plateau.areas_curve, largest)
        _shade(areas, plateau.areas_px, 1, largest, color)
        areas.axvline(plateau.min_area_px, color="black", lw=1.5)
        areas.set_xscale("log")
        areas.set_xlim(1, largest)
        areas.xaxis.set_major_formatter("{x:g}")
    grid[-1][0].set_xlabel(f"threshold, at min_area {plateaus[0].min_area_px} px")
    grid[-1][1].set_xlabel(f"min_area, px, at threshold {plateaus[0].threshold:g}")
    handles, labels = grid[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper right", ncols=2, frameon=False)


def _draw_curve(axes: Axes, curve: Sequence[CurvePoint], end: int) -> None:
    from matplotlib.ticker import MaxNLocator

    at = [point.at for point in curve] + [end]
    for name, color, style in (("escapes", _ESCAPES, "-"), ("overkills", _OVERKILLS, "--")):
        counts = [getattr(point, name) for point in curve]
        axes.step(
            at, [*counts, counts[-1]], where="post", color=color, ls=style, label=name, lw=1.8
        )
    axes.yaxis.set_major_locator(MaxNLocator(nbins=4, integer=True))
    axes.set_ylim(bottom=-0.02 * max(1, *(max(point[1:]) for point in curve)))
    axes.grid(alpha=0.3)


def _shade(axes: Axes, interval: Interval | None, start: int, end: int, color: str) -> None:
    if interval is not None:
        high = end if interval.high is None else interval.high
        axes.axvspan(max(interval.low, start), high, color=color, alpha=0.18, lw=0)


def _title(plateau: Plateau, reference: Plateau) -> str:
    name = f"{plateau.scored_by.precision} on {plateau.scored_by.backend}"
    if plateau.steps is None:
        return f"{name}: no plateau, a verdict differs from the reference's"
    low, high = plateau.steps
    assert high is not None
    width = f"{name}: no verdict changes from {low / 255:.3f} to {high / 255:.3f}"
    if plateau is reference:
        return width
    return f"{width}, {plateau.kept(reference):.0%} of {reference.scored_by.precision}"
