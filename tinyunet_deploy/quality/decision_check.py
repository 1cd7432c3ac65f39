"""Check that an artifact decides on defects by the same rule as its reference."""

from __future__ import annotations

from dataclasses import dataclass

from tinyunet_deploy.artifacts.sidecar import Decision
from tinyunet_deploy.contract import score_threshold

__all__ = ["DecisionCheck"]


@dataclass(frozen=True)
class DecisionCheck:
    """The rule of an artifact's sidecar beside that of its reference's.

    Scores are compared by one rule for both. Where the sidecars have two, a part may get another
    verdict from the artifact than from its reference, whatever the scores say.
    """

    own: Decision
    reference: Decision
    reference_name: str
    adopted: bool = False
    """True if the artifact was made from a network of another origin."""
    tuned_alone: bool = False
    """True if the artifact was tuned and its reference was not, so that its rule is the one to
    keep."""

    @property
    def holds(self) -> bool:
        """Whether equal scores give equal verdicts."""
        return (score_threshold(self.own.threshold), self.own.min_area) == (
            score_threshold(self.reference.threshold),
            self.reference.min_area,
        )

    def __str__(self) -> str:
        return (
            f"decides by {_text(self.own)}, but its reference {self.reference_name} by "
            f"{_text(self.reference)}"
        )

    @property
    def hint(self) -> str:
        """Step that gives both files one rule."""
        if self.adopted:
            return f"tinyunet adopt the original again with {self.options}"
        return (
            "tinyunet tune DATA -m CHECKPOINT --in-place, then make the other files from it again: "
            "python -m export"
        )

    @property
    def options(self) -> str:
        """Options of the command line that give the rule to keep."""
        kept = self.own if self.tuned_alone else self.reference
        return f"--threshold {kept.threshold:g} --min-area {kept.min_area}"


def _text(rule: Decision) -> str:
    return f"threshold {rule.threshold:g}, min_area {rule.min_area} px"
