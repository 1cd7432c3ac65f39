"""Count the answers of a challenger, in a few bytes for each part."""

from __future__ import annotations

from array import array
from typing import Any, Final

import numpy as np

from tinyunet_deploy.artifacts.sidecar import Decision
from tinyunet_deploy.inspection.defects import Verdict
from tinyunet_deploy.quality.part_score import PartScore
from tinyunet_deploy.quality.plateau import Plateau, plateau_of
from tinyunet_deploy.quality.scored_by import ScoredBy
from tinyunet_deploy.quality.shadow.report import ChallengerLatency, ShadowFlip

__all__ = ["ShadowTally"]

_MOST_FLIPS: Final = 1000
"""Most disagreements that are kept one by one."""


class ShadowTally:
    """Scores, times and disagreements of the parts that both models judged."""

    def __init__(self) -> None:
        self.flips: list[ShadowFlip] = []
        """The first disagreements."""
        self.new_rejects = 0
        """Parts that only the challenger rejects."""
        self.new_passes = 0
        """Parts that only the challenger passes."""
        self._rejected = array("B")
        """Whether the leader rejected each part."""
        self._leader = array("B"), array("L")
        """Deciding scores, and areas of the largest defect."""
        self._challenger = array("B"), array("L")
        self._took_ms = array("f")

    def __len__(self) -> int:
        return len(self._took_ms)

    def add(self, name: str, leader: Verdict, answer: dict[str, Any]) -> None:
        """Add the answer of :func:`~tinyunet_deploy.quality.shadow.process.judge` on a part.

        Args:
            leader: the leader's verdict.
        """
        self._rejected.append(leader == "NG")
        for columns, names in (
            (self._leader, ("leader_score", "leader_largest_px")),
            (self._challenger, ("deciding_score", "largest_px")),
        ):
            for column, field in zip(columns, names, strict=True):
                column.append(answer[field])
        self._took_ms.append(answer["took_ms"])
        challenger: Verdict = answer["verdict"]
        if challenger == leader:
            return
        self.new_rejects += challenger == "NG"
        self.new_passes += challenger == "OK"
        if len(self.flips) < _MOST_FLIPS:
            scores = answer["leader_score"], answer["deciding_score"]
            self.flips.append(ShadowFlip(name, leader, challenger, *scores, answer["picture"]))

    def leader_plateau(self, leader: ScoredBy, decision: Decision) -> Plateau | None:
        """Return the leader's plateau; None without a part. Its verdicts stand for the truth."""
        return self._plateau(self._leader, leader, decision)

    def challenger_plateau(self, challenger: ScoredBy, decision: Decision) -> Plateau | None:
        """Return the challenger's plateau, with the leader's verdicts for the truth."""
        return self._plateau(self._challenger, challenger, decision)

    @property
    def latency(self) -> ChallengerLatency | None:
        """Times of the challenger; None without a part."""
        if not self._took_ms:
            return None
        p50, p99, most = np.quantile(np.asarray(self._took_ms), (0.5, 0.99, 1.0))
        return ChallengerLatency(*(round(float(value), 3) for value in (p50, p99, most)))

    def _plateau(
        self, columns: tuple[array[int], array[int]], scored_by: ScoredBy, decision: Decision
    ) -> Plateau | None:
        if not self._took_ms:
            return None
        parts = [
            PartScore("", bool(rejected), score, area)
            for rejected, score, area in zip(self._rejected, *columns, strict=True)
        ]
        return plateau_of(parts, scored_by, *decision, truth=False)
