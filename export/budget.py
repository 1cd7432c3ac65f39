"""Which calibration, and which convolutions must stay in float32, for an int8 file to be trusted.

All is measured, against the float32 file, on images that did not calibrate: the choice is made on
one lot of them and judged on another.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from export.compare import Likeness

Calibration = TypeVar("Calibration")

MAX_BYTES: Final = 2_200_000
"""What an int8 file should be at most: a little more than one byte for each weight of ``tiny``."""

MIN_AGREEMENT: Final = 0.95
"""Overlap that int8 masks must have with the float32 ones, besides the IoU budget: an average IoU
can hide masks that moved."""

Measure = Callable[[frozenset[str]], Likeness]
"""Convolutions in float32 -> figures of the int8 file."""


def meets(figures: Likeness, iou_budget: float) -> bool:
    """Within the budget, no verdict flipped, and masks that overlap."""
    return (
        figures.iou_drop <= iou_budget
        and figures.verdict_flips == 0
        and figures.agreement_iou >= MIN_AGREEMENT
    )


def badness(figures: Likeness) -> tuple[int, float]:
    """Sort key, the best first: fewest flipped verdicts, then the masks most like float32's.

    The overlap with float32's masks, not the IoU with the truth, decides: it counts what int8
    changed, where the other also rewards a mistake that happens to fit the drawn ellipse.
    """
    return figures.verdict_flips, -figures.agreement_iou


def best_of(candidates: Mapping[Calibration, Likeness]) -> Calibration:
    """The calibration to take, the first of equals."""
    return min(candidates, key=lambda calibration: badness(candidates[calibration]))


@dataclass(frozen=True)
class Choice:
    """Which convolutions stay in float32, and why."""

    iou_budget: float
    plain: Likeness
    """All convolutions in int8."""
    alone: dict[str, Likeness]
    """Convolution -> figures when it alone is in float32; empty where plain meets the budget."""
    kept: tuple[str, ...]
    """Those that stay in float32, those that gain the most per weight first."""
    chosen: Likeness
    """With these in float32."""

    def as_dict(self) -> dict[str, Any]:
        """The sensitivity table, plain values for JSON."""
        return {
            "iou_budget": self.iou_budget,
            "min_agreement_iou": MIN_AGREEMENT,
            "plain": self.plain.as_dict(),
            "alone_in_float32": {name: row.as_dict() for name, row in self.alone.items()},
            "kept_in_float32": list(self.kept),
            "chosen": self.chosen.as_dict(),
        }


def choose(
    weights: Mapping[str, int], measure: Measure, plain: Likeness, iou_budget: float
) -> Choice:
    """A small set of convolutions in float32 that meets the budget.

    Leave-one-out ranks them by what each gains per weight: a weight in float32 is three bytes
    more, and most weights lie where they gain little. The set grows in that order until it meets
    the budget; then each member, the last first, is put back to int8 if the budget still holds.
    So no member can be spared, though another, smaller set may exist that only trying all 2^23
    would find.

    Args:
        weights: convolution -> number of its weights.
        measure: costs one quantisation and one pass over the selection images; called once for
            each convolution and at most twice for each one kept.
        plain: figures of nothing kept.
    """
    if meets(plain, iou_budget):
        return Choice(iou_budget, plain, {}, (), plain)
    alone = {name: measure(frozenset([name])) for name in weights}

    def gain_per_weight(name: str) -> tuple[float, float]:
        flips, agreement = (
            before - after
            for before, after in zip(badness(plain), badness(alone[name]), strict=True)
        )
        return flips / weights[name], agreement / weights[name]

    ranked = sorted(weights, key=gain_per_weight, reverse=True)
    kept = ranked[:1]
    figures = alone[kept[0]]
    while not meets(figures, iou_budget) and len(kept) < len(ranked):
        kept.append(ranked[len(kept)])
        figures = measure(frozenset(kept))
    for name in reversed(kept[:-1]):  # without the last it was not met
        fewer = [other for other in kept if other != name]
        trial = measure(frozenset(fewer))
        if meets(trial, iou_budget):
            kept, figures = fewer, trial
    return Choice(iou_budget, plain, alone, tuple(kept), figures)


def chart(choice: Choice) -> bytes:
    """The sensitivity table as an SVG bar chart, the same bytes for the same table."""
    import matplotlib
    from matplotlib.figure import Figure

    names = list(choice.alone)
    figure = Figure(figsize=(9, 0.28 * len(names) + 1.4), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    colors = ["tab:orange" if name in choice.kept else "tab:blue" for name in names]
    left.barh(names, [choice.alone[name].agreement_iou for name in names], color=colors)
    left.axvline(choice.plain.agreement_iou, color="black", label="all in int8")
    left.axvline(MIN_AGREEMENT, color="tab:red", linestyle="--", label="wanted")
    left.set_xlabel("mask agreement with float32, IoU")
    left.set_ylabel("the one convolution in float32")
    right.barh(names, [choice.alone[name].iou_drop for name in names], color=colors)
    right.axvline(choice.plain.iou_drop, color="black", label="all in int8")
    right.axvline(choice.iou_budget, color="tab:red", linestyle="--", label="budget")
    right.set_xlabel("drop of iou_defective")
    left.invert_yaxis()
    low = min(choice.plain.agreement_iou, *(row.agreement_iou for row in choice.alone.values()))
    left.set_xlim(math.floor(10 * low) / 10, 1.0)
    left.legend(loc="lower left")
    right.legend(loc="lower right")
    figure.suptitle("Orange: kept in float32")
    file = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "tinyunet_deploy", "svg.fonttype": "none"}):
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    return file.getvalue()
