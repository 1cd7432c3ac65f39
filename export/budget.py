"""Choose the calibration of an int8 file and the convolutions that must stay in float32.

Candidates are compared with the float32 file, on images that were not used for calibration. They
run on every installed runtime, and the worst result counts. The choice is made on one set of images
and tested on another.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from export.likeness import Likeness
from tinyunet_deploy.inspection.drawing import private_matplotlib
from tinyunet_deploy.quality.parity_limits import Limit, read_limits

__all__ = [
    "Measure",
    "MixedPrecision",
    "badness",
    "chart",
    "choose",
    "limits",
    "meets",
    "rank_calibrations",
]

Candidate = TypeVar("Candidate")

Measure = Callable[[Sequence[str]], Likeness]
"""Convolutions in float32 -> figures of the int8 file."""


def limits(iou_budget: float) -> list[Limit]:
    """Return the limits of int8 in ``parity_limits.toml``, with the budget as the limit of
    iou_drop."""
    return [
        replace(limit, value=iou_budget) if limit.figure == "iou_drop" else limit
        for limit in read_limits().of("int8")
    ]


def meets(likeness: Likeness, iou_budget: float) -> bool:
    """Return whether a file keeps all limits that labelled images can check; NaN breaks them."""
    figures = likeness.figures
    return all(
        limit.holds(figures[limit.figure])
        for limit in limits(iou_budget)
        if limit.figure in figures
    )


def badness(likeness: Likeness) -> tuple[float, float]:
    """Return a sort key, smaller is better: flipped verdicts, then overlap with float32's masks.

    The overlap with float32's masks decides, not the IoU with the truth: it counts what int8
    changed, while the IoU also rewards a mistake that happens to fit the drawn ellipse.
    """
    return likeness.figures["flips"], -likeness.figures["agreement"]


def rank_calibrations(
    quick: Mapping[Candidate, Likeness], measure: Callable[[Candidate], Likeness]
) -> dict[Candidate, Likeness]:
    """Measure the most promising calibrations on all runtimes, and return the best first.

    Args:
        quick: figures on one runtime.
        measure: returns the worst figures of all runtimes. They cannot be better than the quick
            ones, so measuring stops at the first calibration that cannot win any more.
    """
    full: dict[Candidate, Likeness] = {}
    for candidate in sorted(quick, key=lambda one: badness(quick[one])):
        if full and badness(quick[candidate]) >= min(map(badness, full.values())):
            break
        full[candidate] = measure(candidate)
    return dict(sorted(full.items(), key=lambda item: badness(item[1])))


@dataclass(frozen=True)
class MixedPrecision:
    """Choice of the convolutions that stay in float32, and the figures behind it."""

    iou_budget: float
    """iou_defective that int8 may lose."""
    plain: Likeness
    """Figures with all convolutions in int8."""
    alone: dict[str, Likeness]
    """Convolution -> figures with it alone in float32; empty if ``plain`` meets the budget."""
    kept: tuple[str, ...]
    """Convolutions that stay in float32, the largest gain per weight first."""
    chosen: Likeness
    """Figures with ``kept`` in float32."""

    def as_dict(self) -> dict[str, Any]:
        """Return the sensitivity table as plain values for JSON."""
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
) -> MixedPrecision:
    """Choose a small set of convolutions in float32 that meets the budget.

    Keeping a single convolution in float32 at a time ranks them by gain per weight: a weight in
    float32 takes three bytes more, and the convolutions with most weights gain little. The set
    grows in that order until it meets the budget; then each member, the last first, goes back to
    int8 if the budget still holds. So every member is needed, but a smaller set may exist that only
    trying all 2^23 would find.

    Args:
        weights: convolution -> number of its weights.
        measure: quantises once and runs once over the selection images; called once for each
            convolution and at most twice for each one that is kept.
        plain: figures with all convolutions in int8.
        iou_budget: iou_defective that int8 may lose.
    """
    if meets(plain, iou_budget):
        return MixedPrecision(iou_budget, plain, {}, (), plain)
    alone = {name: measure([name]) for name in weights}

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
        figures = measure(kept)
    for name in reversed(kept[:-1]):  # without the last the budget was not met
        fewer = [other for other in kept if other != name]
        trial = measure(fewer)
        if meets(trial, iou_budget):
            kept, figures = fewer, trial
    return MixedPrecision(iou_budget, plain, alone, tuple(kept), figures)


def chart(choice: MixedPrecision) -> bytes:
    """Draw the sensitivity table as an SVG bar chart, the same bytes for the same table."""
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
