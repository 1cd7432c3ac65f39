"""Plateau of an operating point: how far threshold and min_area may move without another verdict.

Two models of one accuracy can differ in it. One whose good parts score 10 and whose defective parts
score 250 keeps its verdicts at almost any threshold; one that separates them by three steps loses
them with the next lamp, runtime or precision.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, NamedTuple, Self

from tinyunet_deploy.contract import score_threshold
from tinyunet_deploy.quality.part_score import PartScore
from tinyunet_deploy.quality.scored_by import ScoredBy

__all__ = [
    "LEAST_KEPT",
    "MARGIN_AREA",
    "MARGIN_STEPS",
    "CurvePoint",
    "Interval",
    "Plateau",
    "plateau_of",
]

SCHEMA_VERSION: Final = 1
"""Version of the fields of :meth:`Plateau.as_fields`."""
MARGIN_STEPS: Final = 13
"""Smallest distance of the chosen threshold from an edge of its plateau, steps of 1/255: 0.05 of
probability, by which the scores of quantised models of others have been seen to move."""
MARGIN_AREA: Final = 1.25
"""Smallest ratio between the chosen min_area and an edge of its plateau: a defect 16 pixels across
grows by that much when its outline moves by one pixel."""
LEAST_KEPT: Final = 0.8
"""Smallest share of the float32 plateau that another precision has to keep."""


class Interval(NamedTuple):
    """Values from ``low`` to ``high``, both included."""

    low: int
    high: int | None
    """None if there is no upper end."""


class CurvePoint(NamedTuple):
    """Mistakes from one value of threshold or min_area up to the next point of the curve."""

    at: int
    """Score threshold in steps 0..255, or min_area in pixels."""
    escapes: int
    overkills: int


@dataclass(frozen=True)
class Plateau:
    """Plateau of one artifact on one backend at its operating point, on a set of judged images."""

    scored_by: ScoredBy
    images: int
    defective: int
    """Number of defective parts; without truth, of those that the verdicts reject."""
    truth: bool
    """True if the images are labelled; False if the verdicts stand for the truth."""
    threshold: float
    """The chosen threshold, a probability."""
    threshold_steps: int
    """The chosen threshold as a score, 0..255."""
    min_area_px: int
    """The chosen min_area."""
    steps: Interval | None
    """Score thresholds at which every part keeps its verdict, at the chosen min_area; None if a
    verdict already differs from the reference's at the chosen threshold."""
    no_escape_steps: Interval | None
    """Score thresholds without an escape, at the chosen min_area; None if there are none."""
    areas_px: Interval | None
    """Values of min_area at which every part keeps its verdict, at the chosen threshold."""
    no_escape_areas_px: Interval | None
    """Values of min_area without an escape, at the chosen threshold; None if there are none."""
    steps_curve: tuple[CurvePoint, ...]
    """Mistakes at each score threshold, a point where they change."""
    areas_curve: tuple[CurvePoint, ...]
    """Mistakes at each min_area, a point where they change."""

    @property
    def width_steps(self) -> int:
        """Number of score thresholds on the plateau, 0..256."""
        if self.steps is None:
            return 0
        assert self.steps.high is not None
        return self.steps.high - self.steps.low + 1

    @property
    def margin_steps(self) -> float:
        """Steps from the chosen threshold to the nearest edge; infinite without an edge.

        The ends of the scale, 0 and 255, are not edges: no verdict changes there.
        """
        if self.steps is None:
            return 0.0
        low, high = self.steps.low, self.steps.high
        below = self.threshold_steps - low if low > 0 else math.inf
        above = high - self.threshold_steps if high is not None and high < 255 else math.inf
        return float(min(below, above))

    @property
    def margin_area(self) -> float:
        """Ratio between the chosen min_area and the nearest edge, 1 or more; infinite without one.

        It is 0 if a verdict already differs from the reference's.
        """
        if self.areas_px is None:
            return 0.0
        low, high = self.areas_px
        below = self.min_area_px / low if low > 1 else math.inf
        above = high / self.min_area_px if high is not None else math.inf
        return float(min(below, above))

    def kept(self, reference: Plateau) -> float:
        """Return the width in proportion to the reference's; NaN if that has no plateau."""
        return self.width_steps / reference.width_steps if reference.width_steps else math.nan

    def faults(self, reference: Plateau | None = None) -> list[str]:
        """Return a sentence for each limit that the plateau breaks; empty if it keeps them all.

        Args:
            reference: plateau of the float32 model on the same images; None skips its comparison.
        """
        faults = []
        if self.steps is None:
            faults.append("a verdict differs from the reference's at the chosen point")
        elif self.margin_steps < MARGIN_STEPS:
            faults.append(
                f"threshold is {self.margin_steps:.0f} steps from its plateau's edge, "
                f"but must be {MARGIN_STEPS}"
            )
        if self.areas_px is not None and self.margin_area < MARGIN_AREA:
            faults.append(
                f"min_area is {self.margin_area:.2f} times from its plateau's edge, "
                f"but must be {MARGIN_AREA:g}"
            )
        if reference is not None and self.kept(reference) < LEAST_KEPT:
            faults.append(
                f"plateau is {self.kept(reference):.1%} as wide as the reference's, "
                f"but must be {LEAST_KEPT:.0%}"
            )
        return faults

    def as_fields(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        fields = asdict(self)
        for name, value in fields.items():
            if isinstance(value, Interval):
                fields[name] = list(value)
        for name in ("steps_curve", "areas_curve"):
            fields[name] = [list(point) for point in getattr(self, name)]
        return {
            "schema_version": SCHEMA_VERSION,
            **fields,
            "width_steps": self.width_steps,
            "margin_steps": _finite(self.margin_steps),
            "margin_area_ratio": _finite(self.margin_area),
            "faults": self.faults(),
        }

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any]) -> Self:
        """Return the plateau of :meth:`as_fields`.

        Raises:
            ValueError: a field is missing or has another type, or the version is unknown.
        """
        try:
            if fields["schema_version"] != SCHEMA_VERSION:
                raise ValueError(f"schema_version {fields['schema_version']!r} is unknown")
            return cls(
                scored_by=ScoredBy.from_fields(fields["scored_by"]),
                images=int(fields["images"]),
                defective=int(fields["defective"]),
                truth=bool(fields["truth"]),
                threshold=float(fields["threshold"]),
                threshold_steps=int(fields["threshold_steps"]),
                min_area_px=int(fields["min_area_px"]),
                steps=_interval(fields["steps"]),
                no_escape_steps=_interval(fields["no_escape_steps"]),
                areas_px=_interval(fields["areas_px"]),
                no_escape_areas_px=_interval(fields["no_escape_areas_px"]),
                steps_curve=tuple(CurvePoint(*point) for point in fields["steps_curve"]),
                areas_curve=tuple(CurvePoint(*point) for point in fields["areas_curve"]),
            )
        except (KeyError, TypeError) as error:
            raise ValueError(f"is not a plateau: {error!r}") from error


def plateau_of(
    parts: Sequence[PartScore],
    scored_by: ScoredBy,
    threshold: float,
    min_area: int,
    *,
    truth: bool = True,
    rejected: Sequence[bool] | None = None,
) -> Plateau:
    """Return the plateau of an operating point on judged parts.

    Args:
        parts: measured at this threshold and min_area; one at least.
        scored_by: the model that scored them.
        threshold: probability in [0, 1].
        min_area: smallest defect that makes a part NG, pixels.
        truth: whether ``defective`` of the parts comes from labels.
        rejected: for each part whether the reference rejects it, so that the plateau is where the
            reference's verdicts are kept; None takes the parts' own verdicts at the chosen point.
    """
    step = score_threshold(threshold)
    own = [part.deciding_score > step for part in parts]
    rejected = own if rejected is None else rejected
    scores = [part.deciding_score for part in parts]
    areas = [part.largest_px for part in parts]
    defective = [part.defective for part in parts]
    # NG at step t means score > t, and NG at min_area a means area > a - 1.
    kept_steps = _kept(scores, rejected, 255)
    kept_areas = _kept(areas, rejected, None)
    holds = own == list(rejected)
    return Plateau(
        scored_by=scored_by,
        images=len(parts),
        defective=sum(defective),
        truth=truth,
        threshold=threshold,
        threshold_steps=step,
        min_area_px=min_area,
        steps=kept_steps if holds else None,
        no_escape_steps=_without_escape(scores, defective, 255),
        areas_px=_shifted(kept_areas) if holds else None,
        no_escape_areas_px=_shifted(_without_escape(areas, defective, None)),
        steps_curve=_curve(scores, defective, 0, lambda score: score),
        areas_curve=_curve(areas, defective, 1, lambda area: area + 1),
    )


def _kept(values: Sequence[int], rejected: Sequence[bool], end: int | None) -> Interval:
    """Return the limits t for which ``value > t`` is true for the rejected parts alone."""
    accepted = [value for value, ng in zip(values, rejected, strict=True) if not ng]
    refused = [value for value, ng in zip(values, rejected, strict=True) if ng]
    return Interval(max(accepted, default=0), min(refused) - 1 if refused else end)


def _without_escape(
    values: Sequence[int], defective: Sequence[bool], end: int | None
) -> Interval | None:
    """Return the limits t for which ``value > t`` is true for every defective part."""
    bad = [value for value, is_bad in zip(values, defective, strict=True) if is_bad]
    high = min(bad) - 1 if bad else end
    return None if high is not None and high < 0 else Interval(0, high)


def _shifted(interval: Interval | None) -> Interval | None:
    """Turn limits ``area > t`` into values of min_area, ``area >= t + 1``."""
    if interval is None:
        return None
    low, high = interval
    return Interval(low + 1, None if high is None else high + 1)


def _curve(
    values: Sequence[int],
    defective: Sequence[bool],
    start: int,
    passes_at: Callable[[int], int],
) -> tuple[CurvePoint, ...]:
    """Return escapes and overkills from each limit at which a part begins to pass.

    Args:
        passes_at: takes the value of a part and returns the first limit at which the part is OK.
    """
    points = sorted(
        (max(passes_at(value), start), is_bad)
        for value, is_bad in zip(values, defective, strict=True)
    )
    escapes, overkills = 0, len(defective) - sum(defective)
    curve = [CurvePoint(start, escapes, overkills)]
    for at, parts in itertools.groupby(points, key=lambda point: point[0]):
        passing = [is_bad for _, is_bad in parts]
        escapes += sum(passing)
        overkills -= len(passing) - sum(passing)
        if at == start:
            curve.clear()
        curve.append(CurvePoint(at, escapes, overkills))
    return tuple(curve)


def _finite(value: float) -> float | None:
    return None if math.isinf(value) else value


def _interval(ends: Sequence[int | None] | None) -> Interval | None:
    if ends is None:
        return None
    low, high = ends
    if low is None:
        raise ValueError("an interval has no lower end")
    return Interval(low, high)
