"""Report of a shadow run, and its JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final, Self

from tinyunet_deploy.inspection.defects import Verdict
from tinyunet_deploy.quality.confidence import clopper_pearson_upper
from tinyunet_deploy.quality.plateau import Plateau
from tinyunet_deploy.quality.scored_by import ScoredBy

__all__ = ["ChallengerLatency", "ShadowFlip", "ShadowReport"]

SCHEMA_VERSION: Final = 1
"""Version of the fields of :meth:`ShadowReport.as_fields`."""


@dataclass(frozen=True)
class ShadowFlip:
    """A part on which the two models disagree."""

    name: str
    leader: Verdict
    challenger: Verdict
    leader_score: int
    """Score that decides the leader's verdict, 0..255."""
    challenger_score: int
    picture: str | None
    """File name of the picture in the report's folder; None after the first pictures."""


@dataclass(frozen=True)
class ChallengerLatency:
    """Time that the challenger took for a part, milliseconds, in its own process."""

    p50_ms: float
    p99_ms: float
    max_ms: float


@dataclass(frozen=True)
class ShadowReport:
    """Figures of a challenger that ran beside a leader on the same parts."""

    leader: ScoredBy
    leader_threshold: float
    leader_min_area_px: int
    challenger: ScoredBy | None
    """None if the challenger was never loaded."""
    challenger_threshold: float
    challenger_min_area_px: int
    offered: int
    """Number of parts on which the leader gave a verdict while the shadow run lasted."""
    seen: int
    """Number of parts that the challenger judged, too."""
    new_rejects: int
    """Parts that only the challenger rejects."""
    new_passes: int
    """Parts that only the challenger passes."""
    flips: tuple[ShadowFlip, ...]
    """Disagreements in their order; the first thousand."""
    unseen: dict[str, int]
    """Reason why the challenger did not judge a part -> number of parts."""
    failure: str | None
    """How the challenger ended before its time; None if it did not."""
    latency: ChallengerLatency | None
    """None if no part was seen."""
    leader_plateau: Plateau | None
    """Of the leader on the parts that both judged; its verdicts stand for the truth."""
    challenger_plateau: Plateau | None
    """Of the challenger on the same parts, with the leader's verdicts for the truth."""

    @property
    def complete(self) -> bool:
        """Whether the challenger judged every part that was offered."""
        return self.failure is None and self.seen == self.offered

    @property
    def disagreement_upper(self) -> float:
        """One-sided 95 % bound of the share of parts that are judged otherwise; NaN if none was."""
        return clopper_pearson_upper(self.new_rejects + self.new_passes, self.seen)

    def as_fields(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        bound = self.disagreement_upper
        return {
            "schema_version": SCHEMA_VERSION,
            "leader": self.leader.as_fields(),
            "leader_threshold": self.leader_threshold,
            "leader_min_area_px": self.leader_min_area_px,
            "challenger": None if self.challenger is None else self.challenger.as_fields(),
            "challenger_threshold": self.challenger_threshold,
            "challenger_min_area_px": self.challenger_min_area_px,
            "complete": self.complete,
            "offered": self.offered,
            "seen": self.seen,
            "new_rejects": self.new_rejects,
            "new_passes": self.new_passes,
            "disagreement_upper_95": None if math.isnan(bound) else bound,
            "unseen": self.unseen,
            "failure": self.failure,
            "latency": None if self.latency is None else asdict(self.latency),
            "leader_plateau": _plateau_fields(self.leader_plateau),
            "challenger_plateau": _plateau_fields(self.challenger_plateau),
            "flips": [asdict(flip) for flip in self.flips],
        }

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any]) -> Self:
        """Return the report of :meth:`as_fields`.

        Raises:
            ValueError: a field is missing or has another type, or the version is unknown.
        """
        try:
            if fields["schema_version"] != SCHEMA_VERSION:
                raise ValueError(f"schema_version {fields['schema_version']!r} is unknown")
            challenger, latency = fields["challenger"], fields["latency"]
            failure = fields["failure"]
            return cls(
                leader=ScoredBy.from_fields(fields["leader"]),
                leader_threshold=float(fields["leader_threshold"]),
                leader_min_area_px=int(fields["leader_min_area_px"]),
                challenger=None if challenger is None else ScoredBy.from_fields(challenger),
                challenger_threshold=float(fields["challenger_threshold"]),
                challenger_min_area_px=int(fields["challenger_min_area_px"]),
                offered=int(fields["offered"]),
                seen=int(fields["seen"]),
                new_rejects=int(fields["new_rejects"]),
                new_passes=int(fields["new_passes"]),
                flips=tuple(ShadowFlip(**flip) for flip in fields["flips"]),
                unseen={str(reason): int(count) for reason, count in fields["unseen"].items()},
                failure=None if failure is None else str(failure),
                latency=None if latency is None else _latency(latency),
                leader_plateau=_plateau(fields["leader_plateau"]),
                challenger_plateau=_plateau(fields["challenger_plateau"]),
            )
        except (AttributeError, KeyError, TypeError) as error:
            raise ValueError(f"a field is missing or wrong: {error!r}") from error


def _latency(fields: Mapping[str, Any]) -> ChallengerLatency:
    return ChallengerLatency(*(float(fields[name]) for name in ("p50_ms", "p99_ms", "max_ms")))


def _plateau_fields(plateau: Plateau | None) -> dict[str, Any] | None:
    return None if plateau is None else plateau.as_fields()


def _plateau(fields: Mapping[str, Any] | None) -> Plateau | None:
    return None if fields is None else Plateau.from_fields(fields)
