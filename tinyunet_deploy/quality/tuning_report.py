"""Write a tuning as JSON, and draw the sweep and the choice."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Any, Final

from tinyunet_deploy import __version__
from tinyunet_deploy.files import json_value
from tinyunet_deploy.inspection.drawing import draw_svg
from tinyunet_deploy.quality.threshold_sweep import SweepPoint
from tinyunet_deploy.quality.tuning import Tuning

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["CURVE", "RESULT", "draw_curve", "tuning_json"]

SCHEMA_VERSION: Final = 1
"""Version of the fields of ``tune.json``."""
RESULT: Final = "tune.json"
"""File name of the result."""
CURVE: Final = "tune.svg"
"""File name of the picture of all pairs."""


def tuning_json(tuning: Tuning) -> str:
    """Return the text of ``tune.json``: the choice, the curve, and the whole table."""

    def described(point: SweepPoint) -> dict[str, Any]:
        return {**dataclasses.asdict(point), **tuning.bounds(point)}

    fields = {
        "schema_version": SCHEMA_VERSION,
        "tinyunet_deploy": __version__,
        "model": {
            "name": tuning.artifact.path.name,
            "sha256": tuning.artifact.sidecar.sha256,
            "precision": tuning.artifact.sidecar.precision,
        },
        "backend": tuning.backend,
        "dataset": {"name": tuning.dataset.root.resolve().name, "images": list(tuning.images)},
        "images": len(tuning.images),
        "images_trained_on": tuning.trained_on,
        "defective": tuning.sweep.defective,
        "good": tuning.sweep.good,
        "skipped": [
            {"name": path.name, "reason": error.reason, "what": error.what}
            for path, error in tuning.skipped.items()
        ],
        "notes": list(tuning.notes),
        "rule": {"text": str(tuning.rule), **dataclasses.asdict(tuning.rule)},
        "chosen": described(tuning.chosen),
        "before": described(tuning.before),
        "plateau": tuning.plateau.as_fields(),
        "curve": [described(point) for point in tuning.sweep.best_for_each_escape_count()],
        "table": {
            "thresholds": tuning.sweep.thresholds,
            "min_areas_px": tuning.sweep.min_areas,
            "escapes": tuning.sweep.escapes.tolist(),
            "overkills": tuning.sweep.overkills.tolist(),
        },
    }
    return json.dumps(json_value(fields), indent=2, allow_nan=False) + "\n"


def draw_curve(tuning: Tuning) -> bytes:
    """Draw an SVG of the cost of every pair and of escapes against overkills.

    Raises:
        RuntimeUnavailable: matplotlib is not installed.
    """
    return draw_svg(9.5, 3.8, lambda figure: _draw_curve(figure, tuning))


def _draw_curve(figure: Figure, tuning: Tuning) -> None:
    from matplotlib.ticker import LogLocator, MaxNLocator

    swept, chosen = tuning.sweep, tuning.chosen
    cost = tuning.rule.escape_cost * swept.escapes + swept.overkills
    table, curve = figure.subplots(1, 2, width_ratios=(3, 2))
    shown = table.imshow(cost.T + 1, norm="log", origin="lower", aspect="auto", cmap="cividis")
    figure.colorbar(
        shown,
        ax=table,
        label=f"1 + {tuning.rule.escape_cost:g} x escapes + overkills",
        ticks=LogLocator(subs=(1.0, 2.0, 5.0)),
        format="{x:g}",
    ).minorticks_off()
    columns = range(0, len(swept.thresholds), 7)
    table.set_xticks(columns, [f"{swept.thresholds[at]:g}" for at in columns])
    rows = range(0, len(swept.min_areas), 3)
    table.set_yticks(rows, [f"{swept.min_areas[at]}" for at in rows])
    table.set(xlabel="threshold", ylabel="min_area, px", title="cost of every pair")
    table.plot(
        swept.thresholds.index(chosen.threshold),
        swept.min_areas.index(chosen.min_area),
        marker="o",
        ms=10,
        mfc="none",
        mec="red",
        mew=2,
    )
    best = swept.best_for_each_escape_count()
    curve.step(
        [point.escapes for point in best],
        [point.overkills for point in best],
        where="post",
        color="0.3",
    )
    for point, label, marker, size in (
        (tuning.before, "before", "s", 13),
        (chosen, "chosen", "o", 7),
    ):
        curve.plot(
            point.escapes,
            point.overkills,
            linestyle="none",
            marker=marker,
            ms=size,
            mfc="none",
            mew=2,
            mec="red" if point is chosen else "0.4",
            label=f"{label}: threshold {point.threshold:g}, min_area {point.min_area}",
        )
    curve.set(xlabel=f"escapes of {swept.defective}", ylabel=f"overkills of {swept.good}")
    for axis in (curve.xaxis, curve.yaxis):
        axis.set_major_locator(MaxNLocator(integer=True))
    curve.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), frameon=False)
    curve.grid(alpha=0.3)
