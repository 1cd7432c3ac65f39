"""Limits on how far an artifact may be from its reference, read from ``parity_limits.toml``."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple, TypeAlias

from tinyunet_deploy.artifacts.precision import PRECISIONS, AnyPrecision, Precision
from tinyunet_deploy.backends.table import backend_names
from tinyunet_deploy.errors import DataError
from tinyunet_deploy.files import read_regular

__all__ = [
    "ANOTHER_NETWORK",
    "FIGURES",
    "LIMITS",
    "Limit",
    "LimitCheck",
    "Limits",
    "outcome_of",
    "read_limits",
]

LIMITS: Final = Path(__file__).parent / "parity_limits.toml"
"""The limits that come with the package."""
MAX_BYTES: Final = 1024 * 1024
"""Largest file of limits that is read."""

FIGURES: Final[dict[str, Literal["most", "least"]]] = {
    "flips_defective": "most",
    "new_alarms": "most",
    "lost_defective": "most",
    "flips": "most",
    "plateau_kept": "least",
    "margin_steps": "least",
    "iou_drop": "most",
    "agreement": "least",
    "p999_steps": "most",
    "largest_steps": "most",
    "batch_steps": "most",
    "golden_mean_steps": "most",
    "golden_largest_steps": "most",
}
"""Figure that can be limited -> whether it has an upper or a lower limit; the gravest first."""

AnotherNetwork: TypeAlias = Literal["another-network"]
ANOTHER_NETWORK: Final[AnotherNetwork] = "another-network"
"""Stands in a file of limits where a precision stands, for a reference that is another network."""

Outcome = Literal["green", "red", "no limits"]


@dataclass(frozen=True)
class Limit:
    """One limit and the reason for its value."""

    precision: Precision | AnotherNetwork
    """Precision of the artifact, or ``another-network`` for an artifact that is held against
    another network, such as its teacher."""
    figure: str
    """A key of :data:`FIGURES`."""
    value: float
    reason: str
    backend: str | None = None
    """Name of a backend; None for every backend without its own limit."""

    def holds(self, value: float) -> bool:
        """Return whether a figure keeps the limit; NaN never does."""
        return value <= self.value if FIGURES[self.figure] == "most" else value >= self.value

    def __str__(self) -> str:
        return f"{'<=' if FIGURES[self.figure] == 'most' else '>='} {self.value:g}"


class LimitCheck(NamedTuple):
    """A figure beside its limit."""

    limit: Limit
    value: float
    holds: bool


@dataclass(frozen=True)
class Limits:
    """The limits of one file."""

    limits: tuple[Limit, ...]

    def of(
        self, precision: AnyPrecision | AnotherNetwork, backend: str | None = None
    ) -> list[Limit]:
        """List the limits of a precision on a backend, the gravest figure first.

        Args:
            backend: its own limits replace the common ones; None for the common ones.
        """
        chosen = {}
        for own in (None, backend):
            for limit in self.limits:
                if limit.precision == precision and limit.backend == own:
                    chosen[limit.figure] = limit
        return [chosen[figure] for figure in FIGURES if figure in chosen]

    def check(
        self,
        figures: Mapping[str, float],
        precision: AnyPrecision | AnotherNetwork,
        backend: str | None = None,
    ) -> list[LimitCheck]:
        """Check every limited figure, the gravest first; missing figures and NaN are left out."""
        return [
            LimitCheck(limit, value, limit.holds(value))
            for limit in self.of(precision, backend)
            if not math.isnan(value := figures.get(limit.figure, math.nan))
        ]


def outcome_of(checks: Sequence[LimitCheck]) -> Outcome:
    """Return ``green``, ``red`` if a limit is broken, or ``no limits`` if none applies."""
    if not checks:
        return "no limits"
    return "green" if all(check.holds for check in checks) else "red"


def read_limits(path: Path = LIMITS) -> Limits:
    """Read a TOML file of limits, by default the one that comes with the package.

    The file has ``[[limit]]`` tables with ``precision``, ``figure``, ``most`` or ``least``,
    ``reason`` and, for a limit of one backend only, ``backend``.

    Raises:
        DataError: the file is missing or not TOML, has an unknown key or value, gives the same
            limit twice, or has no limits.
    """
    try:
        fields = tomllib.loads(read_regular(path, limit=MAX_BYTES).decode("utf-8"))
        unknown = sorted(fields.keys() - {"limit"})
        if unknown:
            raise ValueError(f"unknown key {unknown[0]}; only [[limit]] is known")
        tables = fields.get("limit", [])
        if not isinstance(tables, list) or not tables:
            raise ValueError("it has no [[limit]]")
        backends = backend_names()  # looks through all installed packages
        limits = tuple(_limit(table, backends) for table in tables)
        if len({(x.precision, x.backend, x.figure) for x in limits}) < len(limits):
            raise ValueError("it gives the same limit twice")
    except OSError as error:
        raise DataError(path, f"cannot be read: {error.strerror}") from error
    except (ValueError, OverflowError, RecursionError) as error:
        raise DataError(path, f"is not a valid file of limits: {error}") from error
    return Limits(limits)


def _limit(table: Any, backends: Sequence[str]) -> Limit:
    known = {"precision", "figure", "backend", "most", "least", "reason"}
    if not isinstance(table, dict) or table.keys() - known:
        raise ValueError(f"unknown key in {table}; known: {', '.join(sorted(known))}")
    choices: dict[str, list[str | None]] = {
        "precision": [*PRECISIONS, ANOTHER_NETWORK],
        "figure": list(FIGURES),
        "backend": [*backends, None],
    }
    for key, values in choices.items():
        if table.get(key) not in values:
            raise ValueError(f"{key} is {table.get(key)!r}; known: {values}")
    side = FIGURES[table["figure"]]
    value: Any = table.get(side)
    if (
        type(value) not in (int, float)
        or not math.isfinite(value)
        or len(table.keys() & {"most", "least"}) > 1
    ):
        raise ValueError(f"{table['figure']} needs {side} = a number, and nothing else")
    reason = table.get("reason")
    if not isinstance(reason, str) or not reason.strip():
        raise ValueError(f"the limit of {table['figure']} has no reason")
    return Limit(table["precision"], table["figure"], float(value), reason, table.get("backend"))
