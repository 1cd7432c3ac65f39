"""Figures of a repeatability study, and their JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Final, Self

import numpy as np

from tinyunet_deploy.inspection.defects import Verdict
from tinyunet_deploy.quality.confidence import clopper_pearson_upper
from tinyunet_deploy.quality.repeatability.agreement import fleiss_kappa, fleiss_kappa_lower
from tinyunet_deploy.quality.repeatability.variance import (
    VarianceSplit,
    split_variance,
)
from tinyunet_deploy.quality.scored_by import ScoredBy

__all__ = ["CONFIDENCE", "Photograph", "RepeatabilityStudy", "RepeatedPart", "Simulation"]

SCHEMA_VERSION: Final = 1
"""Version of the fields of :meth:`RepeatabilityStudy.as_fields`."""
CONFIDENCE: Final = 0.95
"""Confidence of the bound on the agreement."""


@dataclass(frozen=True)
class Simulation:
    """Changes between simulated photographs of one image, each drawn anew for each photograph."""

    repeats: int = 10
    shift_px: float = 0.5
    """Largest shift of the part in x and in y, pixels; uniform."""
    gain_grey: float = 3.0
    """Largest change of a white pixel by the gain, grey values; uniform."""
    offset_grey: float = 3.0
    """Largest change of every pixel by the offset, grey values; uniform."""
    noise_grey: float = 2.0
    """Standard deviation of the sensor noise, grey values."""
    seed: int = 0


@dataclass(frozen=True)
class Photograph:
    """One photograph of a part, as the model judged it."""

    repeat: str
    """Name of the repeat."""
    deciding_score: int
    """Score that decides the verdict, 0..255: NG above the threshold's score."""
    largest_px: int
    """Area of the largest defect, pixels."""
    verdict: Verdict


@dataclass(frozen=True)
class RepeatedPart:
    """A part and its photographs, two or more."""

    name: str
    photographs: tuple[Photograph, ...]

    @property
    def agrees(self) -> bool:
        """Whether all photographs have the same verdict."""
        return len({photograph.verdict for photograph in self.photographs}) == 1

    @property
    def rejections(self) -> int:
        """Number of photographs whose verdict is NG."""
        return sum(photograph.verdict == "NG" for photograph in self.photographs)

    @property
    def range_steps(self) -> int:
        """Largest minus smallest deciding score."""
        scores = [photograph.deciding_score for photograph in self.photographs]
        return max(scores) - min(scores)


@dataclass(frozen=True)
class RepeatabilityStudy:
    """Verdicts and scores of parts that were photographed several times."""

    scored_by: ScoredBy
    folder: str
    """Name of the folder of photographs."""
    threshold: float
    threshold_steps: int
    min_area_px: int
    repeats: tuple[tuple[str, dict[str, str]], ...]
    """Name and conditions of each repeat, such as ``{"lamp": "new"}``."""
    parts: tuple[RepeatedPart, ...]
    """Parts with two usable photographs or more, sorted by name."""
    alone: tuple[str, ...] = ()
    """Parts with one usable photograph, which are not counted."""
    skipped: tuple[str, ...] = ()
    """A sentence for each photograph that could not be used."""
    simulation: Simulation | None = None
    """Changes that were simulated; None for photographs of a camera."""

    @property
    def photographs(self) -> int:
        """Number of photographs of the counted parts."""
        return sum(len(part.photographs) for part in self.parts)

    @property
    def agreeing(self) -> int:
        """Number of parts with the same verdict on all their photographs."""
        return sum(part.agrees for part in self.parts)

    @property
    def flips(self) -> list[RepeatedPart]:
        """Parts with both verdicts."""
        return [part for part in self.parts if not part.agrees]

    @property
    def agreement(self) -> float:
        """Share of agreeing parts; NaN without parts."""
        return self.agreeing / len(self.parts) if self.parts else math.nan

    @property
    def agreement_lower(self) -> float:
        """One-sided bound of the agreement with :data:`CONFIDENCE` (Clopper & Pearson 1934)."""
        return 1 - clopper_pearson_upper(len(self.flips), len(self.parts), CONFIDENCE)

    @property
    def kappa(self) -> float:
        """Fleiss' kappa; NaN if every verdict is the same."""
        return fleiss_kappa(self._rejections)

    @property
    def kappa_lower(self) -> float:
        """One-sided bound of the kappa with :data:`CONFIDENCE`; NaN if the parts are too few."""
        return fleiss_kappa_lower(self._rejections, CONFIDENCE)

    @property
    def _rejections(self) -> list[tuple[int, int]]:
        return [(part.rejections, len(part.photographs)) for part in self.parts]

    @property
    def repeatability_steps(self) -> float:
        """Standard deviation of the deciding score within a part, steps; NaN without parts."""
        squares = freedom = 0.0
        for part in self.parts:
            scores = np.array([photograph.deciding_score for photograph in part.photographs])
            squares += float(((scores - scores.mean()) ** 2).sum())
            freedom += len(scores) - 1
        return math.sqrt(squares / freedom) if freedom else math.nan

    @property
    def complete(self) -> list[RepeatedPart]:
        """Parts that have a usable photograph in every repeat."""
        return [part for part in self.parts if len(part.photographs) == len(self.repeats)]

    @property
    def variance(self) -> VarianceSplit | None:
        """Split of the variance over the complete parts; None if fewer than two are complete."""
        parts = self.complete
        if len(parts) < 2 or len(self.repeats) < 2:
            return None
        table = [[float(photo.deciding_score) for photo in part.photographs] for part in parts]
        names = sorted({name for _, conditions in self.repeats for name in conditions})
        values = {
            name: [conditions.get(name, "") for _, conditions in self.repeats] for name in names
        }
        return split_variance(np.array(table), values)

    def as_fields(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        variance = self.variance
        return {
            "schema_version": SCHEMA_VERSION,
            "source": "camera" if self.simulation is None else "simulated",
            "simulation": None if self.simulation is None else asdict(self.simulation),
            "scored_by": self.scored_by.as_fields(),
            "folder": self.folder,
            "threshold": self.threshold,
            "threshold_steps": self.threshold_steps,
            "min_area_px": self.min_area_px,
            "repeats": [{"name": name, "conditions": values} for name, values in self.repeats],
            "parts": len(self.parts),
            "photographs": self.photographs,
            "agreeing": self.agreeing,
            "agreement": self.agreement,
            "agreement_lower": self.agreement_lower,
            "confidence": CONFIDENCE,
            "fleiss_kappa": self.kappa,
            "fleiss_kappa_lower": self.kappa_lower,
            "repeatability_sd_steps": self.repeatability_steps,
            "largest_range_steps": max((part.range_steps for part in self.parts), default=0),
            "complete_parts": len(self.complete),
            "variance_steps2": None if variance is None else asdict(variance),
            "flips": [part.name for part in self.flips],
            "alone": list(self.alone),
            "skipped": list(self.skipped),
            "per_part": [asdict(part) for part in self.parts],
        }

    @classmethod
    def from_fields(cls, values: Mapping[str, Any]) -> Self:
        """Return the study of :meth:`as_fields`; every figure is computed again from the parts.

        Raises:
            ValueError: a field is missing or has another type, or the version is unknown.
        """
        try:
            if values["schema_version"] != SCHEMA_VERSION:
                raise ValueError(f"schema_version {values['schema_version']!r} is unknown")
            simulation = values["simulation"]
            return cls(
                scored_by=ScoredBy.from_fields(values["scored_by"]),
                folder=str(values["folder"]),
                threshold=float(values["threshold"]),
                threshold_steps=int(values["threshold_steps"]),
                min_area_px=int(values["min_area_px"]),
                repeats=tuple(
                    (str(repeat["name"]), dict(repeat["conditions"]))
                    for repeat in values["repeats"]
                ),
                parts=tuple(_part(part) for part in values["per_part"]),
                alone=tuple(map(str, values["alone"])),
                skipped=tuple(map(str, values["skipped"])),
                simulation=None if simulation is None else Simulation(**simulation),
            )
        except (KeyError, TypeError) as error:
            raise ValueError(f"is not a repeatability study: {error!r}") from error


def _part(values: Mapping[str, Any]) -> RepeatedPart:
    names = {field.name for field in fields(Photograph)}
    photographs = []
    for photograph in values["photographs"]:
        if photograph.keys() != names or photograph["verdict"] not in ("OK", "NG"):
            raise ValueError("is not a repeatability study: a photograph has other fields")
        photographs.append(Photograph(**photograph))
    return RepeatedPart(str(values["name"]), tuple(photographs))
