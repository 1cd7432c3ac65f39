"""Say a plateau in sentences."""

from __future__ import annotations

from tinyunet_deploy.quality.plateau import Interval, Plateau

__all__ = ["plateau_lines", "plateau_range"]


def plateau_range(plateau: Plateau) -> str:
    """Return the thresholds of a plateau as ``0.12-0.99``, or ``none``."""
    if plateau.steps is None:
        return "none"
    return _probabilities(plateau.steps).replace(" to ", "-")


def plateau_lines(plateau: Plateau) -> list[str]:
    """Return a line on how far the chosen point may move, and one for each broken limit."""
    lines = []
    if plateau.steps is not None and plateau.areas_px is not None:
        low, high = plateau.areas_px
        areas = f"{low} px or more" if high is None else f"{low} to {high} px"
        lines.append(
            f"plateau: threshold {_probabilities(plateau.steps)}, min_area {areas} "
            "change no verdict"
        )
    lines += [f"warning: {fault}" for fault in plateau.faults()]
    return lines


def _probabilities(steps: Interval) -> str:
    low, high = steps
    assert high is not None
    return f"{low / 255:.2f} to {high / 255:.2f}"
