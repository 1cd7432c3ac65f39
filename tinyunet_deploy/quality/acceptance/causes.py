"""Requirements that fail together by one fact, so that the page names one cause and not three.

A threshold that stands among the scores of the defective parts lets them pass. Then the smallest
defects are missed, too, and the threshold has no room around it: that is one thing to mend. Each
rule asks the evidence for the fact; two requirements that only happen to fail both stand for
themselves.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

from tinyunet_deploy.quality.acceptance.evidence import Evidence
from tinyunet_deploy.quality.acceptance.requirements import Requirements

__all__ = ["Cause", "cause_of"]


class Cause(NamedTuple):
    """The requirement that states the same fact."""

    name: str
    """Name of its table in ``acceptance.toml``."""
    sentence: str
    """The fact that both state."""


def cause_of(
    name: str, not_met: Collection[str], requirements: Requirements, evidence: Evidence
) -> Cause | None:
    """Return the requirement with which another fails; None if it stands for itself.

    Args:
        name: a requirement that is not met.
        not_met: names of all requirements that are not met.
    """
    match name:
        case "smallest_defect":
            cause = _of_smallest_defect(requirements, evidence)
        case "parity":
            cause = Cause(
                "self_test", "the file does not return the scores that it had when it was made"
            )
        case "plateau":
            cause = _of_plateau(requirements, evidence)
        case _:
            return None
    return cause if cause is not None and cause.name in not_met else None


def _of_smallest_defect(requirements: Requirements, evidence: Evidence) -> Cause | None:
    """Missed defects are the escapes again if every one lies in a part that slips through."""
    detection, least = evidence.detection, requirements.smallest_defect.area_px or 1
    assert detection is not None
    passed = sum(area >= least for area in detection.areas_missed_in_passed_px)
    if passed < sum(area >= least for area in detection.areas_missed_px):
        return None
    return Cause("escapes", "all these defects lie in parts that slip through")


def _of_plateau(requirements: Requirements, evidence: Evidence) -> Cause | None:
    """A near edge is the mistakes again if the threshold stands among the scores of such parts."""
    plateau, limit = evidence.plateau, requirements.plateau
    assert plateau is not None
    if plateau.share_of_reference is not None and plateau.share_of_reference < limit.min_share:
        return None
    match plateau.edge:
        case "defective":
            return Cause("escapes", "the threshold stands among the scores of defective parts")
        case "good":
            return Cause("overkills", "the threshold stands among the scores of good parts")
        case _:
            return None
