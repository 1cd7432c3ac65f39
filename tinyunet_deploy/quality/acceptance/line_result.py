"""Read a result of ``tinyunet line-sim`` as evidence."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from tinyunet_deploy.artifacts.strict_json import read_json
from tinyunet_deploy.errors import DataError
from tinyunet_deploy.files import read_regular
from tinyunet_deploy.quality.acceptance.evidence import LineFigures

__all__ = ["read_line"]

MAX_BYTES: Final = 256 << 20
"""Largest result that is read: a day of parts has some millions of service times."""


def read_line(path: Path) -> LineFigures:
    """Read the run at the speed that line-sim was asked for.

    Raises:
        DataError: the file cannot be read, or is not a result of line-sim.
    """
    try:
        fields = read_json(read_regular(path, limit=MAX_BYTES))
        if not isinstance(fields, dict) or fields.get("kind") != "line-sim":
            raise ValueError("its kind is not line-sim")
        return _figures(path.name, fields)
    except OSError as error:
        raise DataError(path, f"cannot be read: {error.strerror}") from error
    except KeyError as error:
        raise DataError(path, f"is not a result of line-sim: it has no {error}") from error
    except (TypeError, ValueError, AttributeError) as error:
        hint = "tinyunet line-sim IMAGES -o line.json"
        raise DataError(path, f"is not a result of line-sim: {error}", hint) from error


def _figures(name: str, fields: dict[str, Any]) -> LineFigures:
    line, outcome = fields["line"], fields["outcome"]
    return LineFigures(
        name=name,
        model_sha256=fields.get("model_sha256"),
        backend=fields.get("backend"),
        device=fields.get("device"),
        processor=(fields.get("machine") or {}).get("processor"),
        mode=str(fields["mode"]),
        parts_per_minute=_number(line["parts_per_minute"]),
        deadline_ms=_number(line["deadline_ms"]),
        parts=int(_number(outcome["parts"])),
        missed=int(_number(outcome["missed"])),
        miss_rate=_number(outcome["miss_rate"]),
        miss_rate_bound=_number(outcome["miss_rate_bound"]),
        p50_ms=_optional(outcome["p50_ms"]),
        p99_ms=_optional(outcome["p99_ms"]),
        fastest_parts_per_minute=_optional(fields["fastest_shown_parts_per_minute"]),
    )


def _number(value: Any) -> float:
    if type(value) not in (int, float) or not value >= 0:
        raise ValueError(f"{value!r} is not a number of 0 or more")
    return float(value)


def _optional(value: Any) -> float | None:
    return None if value is None else _number(value)
