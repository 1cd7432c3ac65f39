"""Write the files of a repeatability study, and say it in sentences."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Final

from tinyunet_deploy.files import json_value, write_atomic
from tinyunet_deploy.quality.repeatability.pictures import draw_study
from tinyunet_deploy.quality.repeatability.study import CONFIDENCE, RepeatabilityStudy

__all__ = ["PICTURE", "RESULT", "study_json", "study_lines", "write_study"]

RESULT: Final = "repeatability.json"
PICTURE: Final = "repeatability.svg"
_LISTED: Final = 10
"""Largest number of flipping parts that are printed."""


def study_json(study: RepeatabilityStudy) -> str:
    """Return the text of ``repeatability.json``."""
    return json.dumps(json_value(study.as_fields()), indent=2, allow_nan=False) + "\n"


def write_study(study: RepeatabilityStudy, output: Path) -> None:
    """Write ``repeatability.json`` and ``repeatability.svg`` into an existing folder.

    Raises:
        RuntimeUnavailable: the disk is full or read-only, or matplotlib is not installed.
    """
    write_atomic(output / PICTURE, draw_study(study))
    write_atomic(output / RESULT, study_json(study).encode(), durable=True)


def study_lines(study: RepeatabilityStudy) -> list[str]:
    """Return what people read: agreement, kappa, spread, and the parts that flip."""
    lines = [_source(study)]
    parts, kappa = len(study.parts), study.kappa
    agreeing = f"{study.agreeing} of {parts} parts have one verdict on all photographs"
    lines.append(f"{agreeing}: at least {study.agreement_lower:.1%} at {CONFIDENCE:.0%} confidence")
    if math.isnan(kappa):
        lines.append("Fleiss' kappa is undefined: all verdicts are the same")
    else:
        lines.append(f"Fleiss' kappa {kappa:.3f}: {_kappa_bound(study.kappa_lower)}")
    lines.append(
        f"score within a part: standard deviation {study.repeatability_steps:.1f} steps of 1/255, "
        f"range at most {max(part.range_steps for part in study.parts)}"
    )
    variance = study.variance
    if variance is not None:
        shares = [("parts", variance.part), ("repeats", variance.repeat), ("error", variance.error)]
        for condition in variance.conditions:
            name = condition.condition
            if math.isnan(condition.repeat_variance):
                name += " (with repeats: one repeat for each)"
            shares.append((name, condition.variance))
        deviations = ", ".join(f"{name} {math.sqrt(share):.1f}" for name, share in shares)
        lines.append(f"standard deviation between {deviations}")
    for part in study.flips[:_LISTED]:
        rejected = f"{part.rejections} of {len(part.photographs)} photographs are NG"
        lines.append(f"flips: {part.name}: {rejected}, scores differ by {part.range_steps}")
    if len(study.flips) > _LISTED:
        lines.append(f"flips: {len(study.flips) - _LISTED} more; the result lists them all")
    if study.alone:
        lines.append(f"not counted: {len(study.alone)} parts with one usable photograph")
    return lines


def _kappa_bound(lower: float) -> str:
    if math.isnan(lower):
        return "no bound, as all parts but one have the same verdicts"
    return f"at least {lower:.3f} at {CONFIDENCE:.0%} confidence"


def _source(study: RepeatabilityStudy) -> str:
    counted = f"{study.photographs} photographs of {len(study.parts)} parts"
    simulation = study.simulation
    if simulation is None:
        return f"{counted}, {len(study.repeats)} repeats"
    return (
        f"SIMULATED: {counted}: shift up to {simulation.shift_px:g} px, gain "
        f"{simulation.gain_grey:g}, offset {simulation.offset_grey:g} and noise "
        f"{simulation.noise_grey:g} grey values; this shows nothing of your camera"
    )
