"""Which calibration, and which convolutions must stay in float32, for an int8 file to be trusted.

All is measured, against the float32 file, on images that did not calibrate and on every runtime
that is here, of which the worst counts: the choice is made on one lot of images and judged on
another.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, TypeVar

from export.likeness import Likeness
from tinyunet_deploy.quality.parity_limits import Limit, read_limits
from tinyunet_deploy.telemetry import private_matplotlib

Calibration = TypeVar("Calibration")

MAX_BYTES: Final = 2_200_000
"""What an int8 file should be at most: a little more than one byte for each weight of ``tiny``."""

Measure = Callable[[frozenset[str]], Likeness]
"""Convolutions in float32 -> figures of the int8 file."""


def limits(iou_budget: float) -> list[Limit]:
    """What ``parity_limits.toml`` says of int8, with the budget as the limit of the IoU's drop."""
    return [
        replace(limit, value=iou_budget) if limit.figure == "iou_drop" else limit
        for limit in read_limits().of("int8")
    ]


def meets(likeness: Likeness, iou_budget: float) -> bool:
    """Within all the limits that labelled images can be held against."""
    figures = likeness.figures
    return all(
        limit.holds(figures[limit.figure])
        for limit in limits(iou_budget)
        if limit.figure in figures
    )


def badness(likeness: Likeness) -> tuple[float, float]:
    """Sort key, the best first: fewest flipped verdicts, then the masks most like float32's.

    The overlap with float32's masks, not the IoU with the truth, decides: it counts what int8
    changed, where the other also rewards a mistake that happens to fit the drawn ellipse.
    """
    return likeness.figures["flips"], -likeness.figures["agreement"]


def best_of(
    quick: Mapping[Calibration, Likeness], measure: Callable[[Calibration], Likeness]
) -> dict[Calibration, Likeness]:
    """The calibrations worth a full measurement, the one to take first.

    Args:
        quick: figures on one runtime.
        measure: figures on all, the worst of each: none can be better than the quick ones, so
            what follows the best is left out.
    """
    full: dict[Calibration, Likeness] = {}
    for calibration in sorted(quick, key=lambda one: badness(quick[one])):
        if full and badness(quick[calibration]) >= min(map(badness, full.values())):
            break
        full[calibration] = measure(calibration)
    return dict(sorted(full.items(), key=lambda item: badness(item[1])))


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
            "limits": {limit.figure: str(limit) for limit in limits(self.iou_budget)},
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
    private_matplotlib()
    import matplotlib
    from matplotlib.figure import Figure

    names = list(choice.alone)
    figure = Figure(figsize=(9, 0.28 * len(names) + 1.4), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    colors = ["tab:orange" if name in choice.kept else "tab:blue" for name in names]
    for axes, name, text in (
        (left, "agreement", "mask agreement with float32, IoU"),
        (right, "iou_drop", "drop of iou_defective"),
    ):
        axes.barh(names, [choice.alone[one].figures[name] for one in names], color=colors)
        axes.axvline(choice.plain.figures[name], color="black", label="all in int8")
        for limit in limits(choice.iou_budget):
            if limit.figure == name:
                axes.axvline(limit.value, color="tab:red", linestyle="--", label=str(limit))
        axes.set_xlabel(text)
        axes.legend(loc="lower left" if axes is left else "lower right")
    left.set_ylabel("the one convolution in float32")
    left.invert_yaxis()
    low = min(row.figures["agreement"] for row in (choice.plain, *choice.alone.values()))
    left.set_xlim(math.floor(10 * low) / 10, 1.0)
    figure.suptitle("Orange: kept in float32")
    file = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "tinyunet_deploy", "svg.fonttype": "none"}):
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    return file.getvalue()
