"""Take the plateau of the threshold as evidence, with its picture."""

from __future__ import annotations

from tinyunet_deploy.errors import RuntimeUnavailable
from tinyunet_deploy.quality.acceptance.evidence import PlateauFigures
from tinyunet_deploy.quality.evaluation import Evaluation
from tinyunet_deploy.quality.plateau_picture import inline_plateaus

__all__ = ["plateau_evidence"]


def plateau_evidence(evaluation: Evaluation) -> PlateauFigures:
    """Return the plateau on the judged parts; without a picture if matplotlib is not installed."""
    plateau = evaluation.plateau
    assert plateau.steps is not None  # only verdicts of a reference could differ
    assert plateau.steps.high is not None
    try:
        picture = inline_plateaus([plateau])
    except RuntimeUnavailable:
        picture = ""
    margin = plateau.margin_steps / 255
    return PlateauFigures(
        threshold=plateau.threshold,
        lowest=plateau.steps.low / 255,
        highest=plateau.steps.high / 255,
        margin=margin if margin <= 1 else None,
        share_of_reference=None,
        svg=picture,
    )
