"""How far an artifact may be from its reference: ``parity_limits.toml``, read strictly."""

from __future__ import annotations

import math
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, get_args

from tinyunet_deploy.artifacts.sidecar import Precision
from tinyunet_deploy.backends.registry import BACKENDS
from tinyunet_deploy.errors import DataError
from tinyunet_deploy.files import read_regular

LIMITS: Final = Path(__file__).parent / "parity_limits.toml"
MAX_BYTES: Final = 1024 * 1024

FIGURES: Final[dict[str, Literal["most", "least"]]] = {
    "flips_defective": "most",
    "new_alarms": "most",
    "flips": "most",
    "iou_drop": "most",
    "agreement": "least",
    "p999_steps": "most",
    "largest_steps": "most",
    "batch_steps": "most",
    "golden_mean_steps": "most",
    "golden_largest_steps": "most",
}
"""Figure that can be limited -> the side on which it is; the gravest first."""


@dataclass(frozen=True)
class Limit:
    """One limit and why it is what it is."""

    precision: Precision
    figure: str
    """A key of :data:`FIGURES`."""
    value: float
    reason: str
    backend: str | None = None
    """A key of ``BACKENDS``; None for all that have no limit of their own."""

    def holds(self, value: float) -> bool:
        """Whether a figure keeps the limit."""
        return value <= self.value if FIGURES[self.figure] == "most" else value >= self.value

    def __str__(self) -> str:
        return f"{'<=' if FIGURES[self.figure] == 'most' else '>='} {self.value:g}"


@dataclass(frozen=True)
class Limits:
    """The limits of one file."""

    limits: tuple[Limit, ...]

    def of(self, precision: str, backend: str) -> list[Limit]:
        """The limits of a precision on a backend, the gravest figure first."""
        chosen = {}
        for own in (None, backend):
            for limit in self.limits:
                if limit.precision == precision and limit.backend == own:
                    chosen[limit.figure] = limit
        return [chosen[figure] for figure in FIGURES if figure in chosen]


def read_limits(path: Path = LIMITS) -> Limits:
    """The limits of a TOML file; those that come with the package unless another is given.

    The file holds ``[[limit]]`` tables with ``precision``, ``figure``, ``most`` or ``least``,
    ``reason`` and, if the limit is that of one backend alone, ``backend``.

    Raises:
        DataError: missing, no TOML, an unknown key or value, a limit that is there twice, or none.
    """
    try:
        fields = tomllib.loads(read_regular(path, limit=MAX_BYTES).decode("utf-8"))
        unknown = sorted(fields.keys() - {"limit"})
        if unknown:
            raise ValueError(f"unknown key {unknown[0]}; known is [[limit]]")
        tables = fields.get("limit", [])
        if not isinstance(tables, list) or not tables:
            raise ValueError("holds no [[limit]]")
        limits = tuple(_limit(table) for table in tables)
        if len({(x.precision, x.backend, x.figure) for x in limits}) < len(limits):
            raise ValueError("the same limit is there twice")
    except OSError as error:
        raise DataError(path, f"cannot be read: {error.strerror}") from error
    except (ValueError, OverflowError, RecursionError) as error:
        raise DataError(path, f"is no valid file of limits: {error}") from error
    return Limits(limits)


def _limit(table: Any) -> Limit:
    known = {"precision", "figure", "backend", "most", "least", "reason"}
    if not isinstance(table, dict) or table.keys() - known:
        raise ValueError(f"unknown key in {table}; known are {', '.join(sorted(known))}")
    choices = {
        "precision": list(get_args(Precision)),
        "figure": list(FIGURES),
        "backend": [*BACKENDS, None],
    }
    for key, values in choices.items():
        if table.get(key) not in values:
            raise ValueError(f"{key} is {table.get(key)!r}; known are {values}")
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
