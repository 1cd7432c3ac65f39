"""Take the plateau of the threshold and repeated photographs as evidence, with their pictures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final, Literal

from tinyunet_deploy.artifacts.strict_json import read_json
from tinyunet_deploy.errors import DataError, RuntimeUnavailable
from tinyunet_deploy.files import read_regular
from tinyunet_deploy.quality.acceptance.evidence import PlateauFigures, RepeatFigures
from tinyunet_deploy.quality.evaluation import Evaluation
from tinyunet_deploy.quality.plateau_picture import inline_plateaus
from tinyunet_deploy.quality.repeatability.pictures import inline_study
from tinyunet_deploy.quality.repeatability.study import RepeatabilityStudy

__all__ = ["plateau_evidence", "read_study", "repeat_evidence"]

MAX_BYTES: Final = 256 << 20
"""Largest study that is read: a million photographs take about 120 MB."""


def plateau_evidence(evaluation: Evaluation, share_of_reference: float | None) -> PlateauFigures:
    """Return the plateau on the judged parts; without a picture if matplotlib is not installed.

    Args:
        share_of_reference: width divided by that of the fp32 network; None if not measured.
    """
    plateau = evaluation.plateau
    assert plateau.steps is not None  # only verdicts of a reference could differ
    assert plateau.steps.high is not None
    margin = plateau.margin_steps / 255
    return PlateauFigures(
        threshold=plateau.threshold,
        lowest=plateau.steps.low / 255,
        highest=plateau.steps.high / 255,
        margin=margin if margin <= 1 else None,
        share_of_reference=share_of_reference,
        svg=_drawn(lambda: inline_plateaus([plateau])),
        edge=_kind_at_edge(evaluation),
    )


def _kind_at_edge(evaluation: Evaluation) -> Literal["good", "defective"] | None:
    """Return the kind of the parts whose verdict changes first when the threshold moves."""
    plateau = evaluation.plateau
    assert plateau.steps is not None and plateau.steps.high is not None
    low, high = plateau.steps.low, plateau.steps.high
    deciding = []  # deciding scores at the nearer edge; both where they are equally far
    if low > 0 and plateau.threshold_steps - low == plateau.margin_steps:
        deciding.append(low)  # such parts become NG one step below
    if high < 255 and high - plateau.threshold_steps == plateau.margin_steps:
        deciding.append(high + 1)  # and such become OK one step above
    kinds = {part.defective for part in evaluation.parts if part.deciding_score in deciding}
    if len(kinds) != 1:
        return None
    return "defective" if kinds.pop() else "good"


def read_study(path: Path) -> RepeatabilityStudy:
    """Read ``repeatability.json``, as ``tinyunet repeatability`` writes it.

    Raises:
        DataError: it cannot be read, or is not such a file.
    """
    try:
        return RepeatabilityStudy.from_fields(read_json(read_regular(path, limit=MAX_BYTES)))
    except OSError as error:
        raise DataError(path, f"cannot be read: {error.strerror}") from error
    except (ValueError, AttributeError) as error:
        hint = "give a folder of repeated photographs, or repeatability.json"
        raise DataError(path, f"is not a repeatability study: {error}", hint) from error


def repeat_evidence(name: str, study: RepeatabilityStudy, evaluation: Evaluation) -> RepeatFigures:
    """Return what a study shows of the model that is to run.

    Args:
        name: name of the folder of photographs, or of the study's file.
        evaluation: evaluation of the model.
    """
    mine, its = evaluation.scored_by, study.scored_by
    pairs = {
        "another model": (mine.model_sha256, its.model_sha256),
        "another backend": (mine.backend, its.backend),
        "another device": (mine.device, its.device),
        "another threshold": (evaluation.threshold, study.threshold),
        "another min_area": (evaluation.min_area, study.min_area_px),
    }
    return RepeatFigures(
        name=name,
        parts=len(study.parts),
        agreeing=study.agreeing,
        photographs=study.photographs,
        simulated=study.simulation is not None,
        kappa=study.kappa,
        kappa_lower=study.kappa_lower,
        flips=tuple(part.name for part in study.flips),
        skipped=study.skipped,
        mismatch=next((what for what, (one, other) in pairs.items() if one != other), None),
        svg=_drawn(lambda: inline_study(study)),
    )


def _drawn(draw: Callable[[], str]) -> str:
    """Return a picture; empty if matplotlib is not installed."""
    try:
        return draw()
    except RuntimeUnavailable:
        return ""
