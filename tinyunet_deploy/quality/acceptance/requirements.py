"""Requirements of an acceptance test, read from ``acceptance.toml``."""

from __future__ import annotations

import dataclasses
import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar

from tinyunet_deploy.errors import DataError
from tinyunet_deploy.files import read_regular

__all__ = [
    "DEFAULTS",
    "DriftLimit",
    "LineLimit",
    "PlateauLimit",
    "RateLimit",
    "RepeatLimit",
    "Requirement",
    "Requirements",
    "ShadowLimit",
    "SizeLimit",
    "read_requirements",
]

DEFAULTS: Final = Path(__file__).parent / "acceptance.toml"
"""The requirements that come with the package."""
MAX_BYTES: Final = 1024 * 1024
"""Largest file of requirements that is read."""

SHADOW_RATE: Final = 0.02
"""Largest rate of disagreement with the leader of a shadow run, where a file names none: two models
that each reject at most 1 % of the good parts differ on at most 2 % of them."""

T = TypeVar("T", bound="Requirement")


@dataclass(frozen=True, kw_only=True)
class Requirement:
    """One requirement without a figure: it holds or it does not."""

    reason: str
    """Reason for the requirement and for its values, one line."""
    required: bool = True
    """False if the parties waive it; ``reason`` then says why."""


@dataclass(frozen=True, kw_only=True)
class RateLimit(Requirement):
    """Largest rate of mistakes, to be proven by counting parts."""

    max_rate: float
    """Rate, in (0, 1)."""
    confidence: float
    """Confidence with which the rate must be below ``max_rate``, in (0, 1)."""


@dataclass(frozen=True, kw_only=True)
class SizeLimit(Requirement):
    """Smallest defect that must be found."""

    area_px: int | None = None
    """Area in the truth, pixels; None for the smallest defect in the images."""


@dataclass(frozen=True, kw_only=True)
class LineLimit(Requirement):
    """Share of parts that may reach the reject gate without a verdict."""

    max_miss_rate: float
    """Rate, in (0, 1)."""
    deadline_ms: float | None = None
    """Time from trigger to reject gate, milliseconds; None takes that of the measurement."""
    parts_per_minute: float | None = None
    """Speed of the belt; None takes that of the measurement."""


@dataclass(frozen=True, kw_only=True)
class DriftLimit(Requirement):
    """Likeness of the judged images to those of the line."""

    alpha: float
    """Largest probability of a false alarm, in (0, 0.5]."""


@dataclass(frozen=True, kw_only=True)
class RepeatLimit(Requirement):
    """Agreement of the verdicts on repeated photographs of a part."""

    min_agreement: float
    """Share of the parts that are judged alike on all their photographs, in (0, 1)."""
    confidence: float
    """Confidence with which the share must be above ``min_agreement``, in (0, 1)."""


@dataclass(frozen=True, kw_only=True)
class PlateauLimit(Requirement):
    """Room around the threshold in which no verdict changes."""

    min_margin: float
    """Distance of the threshold from either edge of its plateau, a probability in (0, 1)."""
    min_share: float
    """Width of the plateau divided by that of the fp32 file, in (0, 1]."""


@dataclass(frozen=True, kw_only=True)
class ShadowLimit(Requirement):
    """Share of the parts that a model may judge otherwise than the one that runs today.

    It counts only if a file of requirements names ``max_rate``, or a shadow run is given.
    """

    confidence: float
    """Confidence with which the rate must be below its limit, in (0, 1)."""
    max_rate: float | None = None
    """Rate, in (0, 1); None takes :data:`SHADOW_RATE`."""

    @property
    def limit(self) -> float:
        """Largest rate, in (0, 1)."""
        return SHADOW_RATE if self.max_rate is None else self.max_rate


@dataclass(frozen=True)
class Requirements:
    """All requirements of one acceptance test, in the order of the page."""

    unseen_images: Requirement
    """No image was used to train or to tune the model."""
    verdicts: Requirement
    """Every image has a verdict."""
    escapes: RateLimit
    """Defective parts that pass."""
    overkills: RateLimit
    """Good parts that are rejected."""
    smallest_defect: SizeLimit
    parity: Requirement
    """The file answers as its reference."""
    batches: Requirement
    """A score does not depend on the other images of a batch."""
    self_test: Requirement
    """The file returns its golden scores."""
    lineage: Requirement
    """The file and all its ancestors are unchanged."""
    line: LineLimit
    drift: DriftLimit
    repeatability: RepeatLimit
    plateau: PlateauLimit
    shadow: ShadowLimit

    def by_name(self) -> dict[str, Requirement]:
        """Return the name of each table -> its requirement, in the order of the page."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}


class _Range(NamedTuple):
    """Interval of a number, its ends included or not."""

    low: float
    high: float
    with_high: bool = False
    whole: bool = False

    def __contains__(self, value: object) -> bool:
        if type(value) not in ((int,) if self.whole else (int, float)):
            return False
        assert isinstance(value, int | float)
        within = self.low < value < self.high or (self.with_high and value == self.high)
        return within and math.isfinite(value)

    def __str__(self) -> str:
        kind = "a whole number" if self.whole else "a number"
        if math.isinf(self.high):
            return f"{kind} above {self.low:g}"
        word = "at most" if self.with_high else "below"
        return f"{kind} above {self.low:g} and {word} {self.high:g}"


_RATE: Final = _Range(0, 1)
_RANGES: Final = {
    "max_rate": _RATE,
    "confidence": _RATE,
    "area_px": _Range(0, math.inf, whole=True),
    "max_miss_rate": _RATE,
    "deadline_ms": _Range(0, math.inf),
    "parts_per_minute": _Range(0, math.inf),
    "alpha": _Range(0, 0.5, with_high=True),
    "min_agreement": _RATE,
    "min_margin": _RATE,
    "min_share": _Range(0, 1, with_high=True),
}
"""Key -> its range."""
_KINDS: Final[dict[str, type[Requirement]]] = {
    "escapes": RateLimit,
    "overkills": RateLimit,
    "smallest_defect": SizeLimit,
    "line": LineLimit,
    "drift": DriftLimit,
    "repeatability": RepeatLimit,
    "plateau": PlateauLimit,
    "shadow": ShadowLimit,
}
"""Table with figures -> its kind; every other table has ``reason`` and ``required`` alone."""


def read_requirements(path: Path | None = None) -> Requirements:
    """Read a TOML file of requirements; what it leaves out is as in the package's file.

    A table that changes a value needs no reason, but the page then says that none was given; a
    waiver needs one.

    Args:
        path: the file; None reads the package's.

    Raises:
        DataError: the file is missing or not TOML, has an unknown table or key, a value outside its
            range, or a waiver without a reason.
    """
    defaults = _read(DEFAULTS)
    given = {} if path is None else _read(path)
    where = path or DEFAULTS
    names = [field.name for field in dataclasses.fields(Requirements)]
    unknown = sorted(given.keys() - set(names))
    if unknown:
        raise DataError(where, f"has an unknown table [{unknown[0]}]", f"known: {', '.join(names)}")
    try:
        tables = {name: _table(name, defaults[name], given.get(name, {})) for name in names}
    except ValueError as error:
        raise DataError(where, f"is not a valid file of requirements: {error}") from error
    return Requirements(**tables)


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(read_regular(path, limit=MAX_BYTES).decode("utf-8"))
    except OSError as error:
        raise DataError(path, f"cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise DataError(path, f"is not a TOML file: {error}") from error


def _table(name: str, default: Mapping[str, Any], given: Any) -> Any:
    """Build one requirement.

    Raises:
        ValueError: a key or a value is wrong.
    """
    if not isinstance(given, dict):
        raise ValueError(f"{name} is {given!r}, but must be a table [{name}]")
    kind = _KINDS.get(name, Requirement)
    known = [field.name for field in dataclasses.fields(kind)]
    unknown = sorted(given.keys() - set(known))
    if unknown:
        raise ValueError(f"[{name}] has an unknown key {unknown[0]}; known: {', '.join(known)}")
    for key, value in given.items():
        if key in _RANGES and value not in _RANGES[key]:
            raise ValueError(f"{key} in [{name}] is {value!r}, but must be {_RANGES[key]}")
    required, reason = given.get("required", True), given.get("reason")
    if type(required) is not bool:
        raise ValueError(f"required in [{name}] is {required!r}, but must be true or false")
    if reason is not None and (not isinstance(reason, str) or not reason.strip()):
        raise ValueError(f"reason in [{name}] is {reason!r}, but must be a sentence")
    if not required and reason is None:
        raise ValueError(f'[{name}] waives the requirement without a reason; add reason = "..."')
    values = {**default, **given}
    if reason is None and any(value != default.get(key) for key, value in given.items()):
        values["reason"] = "no reason was given for this value"
    return kind(**values)
