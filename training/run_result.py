"""The result of a run: what it reached on its validation images, as ``result.json``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from tinyunet_deploy.artifacts.strict_json import read_json
from tinyunet_deploy.errors import DataError
from tinyunet_deploy.files import json_value, read_regular, write_atomic
from tinyunet_deploy.quality.confidence import clopper_pearson_upper
from training.sources import Example
from training.state import State

__all__ = ["RESULT", "WORST_FOLDER", "describe_result", "read_result", "write_result"]

RESULT: Final = "result.json"
WORST_FOLDER: Final = "worst"
"""Folder of the pictures of the worst validation images, in the folder of a run."""
_CONFIDENCE: Final = 0.95
_LARGEST: Final = 1 << 20
"""Largest result that is read, bytes; ours have a few kilobytes."""


def write_result(output: Path, state: State, steps: int, validation: Sequence[Example]) -> None:
    """Write what the best weights of a run reached into its folder, as ``result.json``.

    Args:
        steps: number of steps of the recipe, of which fewer may have been done.
        validation: the images on which the best weights, threshold and min_area were chosen.

    Raises:
        RuntimeUnavailable: the disk is full, read-only or failing.
    """
    best = state.best
    assert best is not None
    point = best.point
    fields: dict[str, Any] = {
        "schema_version": 1,
        "step": best.step,
        "steps_done": state.step,
        "steps": steps,
        "threshold": point.threshold,
        "min_area_px": point.min_area,
        "validation": None,
    }
    if point.escapes is not None and point.overkills is not None:
        defective = point.validation_defective
        good = point.validation_images - defective
        fields["validation"] = {
            "images": point.validation_images,
            "defective": defective,
            "good": good,
            "iou_defective": point.iou_defective if defective else None,
            "escapes": point.escapes,
            "escape_rate_at_most": clopper_pearson_upper(point.escapes, defective, _CONFIDENCE),
            "overkills": point.overkills,
            "overkill_rate_at_most": clopper_pearson_upper(point.overkills, good, _CONFIDENCE),
            "confidence": _CONFIDENCE,
            "worst": [
                {
                    "number": number,
                    "image": validation[number].item.image.name,
                    "picture": f"{WORST_FOLDER}/{rank:02}.png",
                }
                for rank, number in enumerate(point.worst, start=1)
            ],
        }
    text = json.dumps(json_value(fields), indent=2, allow_nan=False) + "\n"
    write_atomic(output / RESULT, text.encode(), durable=True)


def read_result(output: Path) -> dict[str, Any] | None:
    """Return the result of a finished run; None if an earlier version of this software ran it.

    Raises:
        DataError: the file is damaged.
    """
    path = output / RESULT
    try:
        result = read_json(read_regular(path, limit=_LARGEST))
        if not isinstance(result, dict) or result.get("schema_version") != 1:
            raise ValueError("it is not a result of this version")
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise DataError(path, f"is not readable: {error}") from error
    return result


def describe_result(result: dict[str, Any]) -> list[str]:
    """Return a result as lines of text."""
    kept = f"step {result['step']} of {result['steps']}"
    if result["steps_done"] < result["steps"]:
        kept += f" (ended after step {result['steps_done']})"
    point = f"threshold {result['threshold']}, min_area {result['min_area_px']} px"
    reached = result["validation"]
    if reached is None:
        return [
            f"{kept}, {point}, not chosen by images: the recipe keeps none apart. "
            "`tinyunet tune` chooses them, `tinyunet evaluate` measures."
        ]
    lines = [f"{kept}, {point}, chosen on {reached['images']} validation images:"]
    if reached["iou_defective"] is not None:
        lines.append(f"  iou_defective  {reached['iou_defective']:.3f}")
    for name, one, of in (("escapes", "escape", "defective"), ("overkills", "overkill", "good")):
        rate = reached[f"{one}_rate_at_most"]
        bound = "not measured" if rate is None else f"at most {rate:.1%} with 95 % confidence"
        lines.append(f"  {name:<13}  {reached[name]} of {reached[of]} {of}, {bound}")
    lines.append(
        "  They chose the model and so flatter it: `tinyunet evaluate` measures on other images."
    )
    return lines
