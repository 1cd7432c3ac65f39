"""Read JSON from untrusted files: bounded depth, no duplicate keys, finite numbers.

Python's own reader accepts equal keys (the last one counts), NaN and Infinity, numbers that become
infinite, all UTF encodings, and nesting up to its recursion limit, where other code then fails.
"""

from __future__ import annotations

import json
import math
from typing import Any, Final

__all__ = ["MAX_DEPTH", "read_json"]

MAX_DEPTH: Final = 64
"""Deepest nesting of lists and tables; a sidecar has about six levels."""
_MAX_INTEGER: Final = 2**63 - 1
"""Largest integer, as other languages read it."""
_MAX_DIGITS: Final = 19


def read_json(text: str | bytes) -> Any:
    """Return the value of a JSON text.

    Args:
        text: bytes must be UTF-8 without a byte order mark.

    Raises:
        ValueError: the text is not such JSON; the message has the reason in a few words.
    """
    if isinstance(text, bytes):
        try:
            text = text.decode("utf-8")
        except UnicodeDecodeError as error:
            raise ValueError(f"it is not UTF-8 at byte {error.start}") from None
    if text.startswith("\ufeff"):
        raise ValueError("it begins with a byte order mark")
    try:
        value = json.loads(
            text,
            object_pairs_hook=_table,
            parse_int=_integer,
            parse_float=_number,
            parse_constant=_constant,
        )
    except RecursionError:
        raise ValueError(f"it is nested more than {MAX_DEPTH} deep") from None
    _require_shallow(value)
    return value


def _table(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) < len(pairs):
        seen = set()
        for key, _ in pairs:
            if key in seen:
                raise ValueError(f"it has the key {key[:100]!r} twice")
            seen.add(key)
    return table


def _integer(text: str) -> int:
    if len(text) > _MAX_DIGITS + 1 or abs(number := int(text)) > _MAX_INTEGER:
        raise ValueError(f"it has an integer of {len(text)} digits, over 2**63 - 1")
    return number


def _number(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"it has a number that is not finite: {text[:20]}")
    return number


def _constant(text: str) -> float:
    raise ValueError(f"it has {text}, which is not JSON")


def _require_shallow(value: Any) -> None:
    """Check the depth without recursion, level by level."""
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        level = [part for part in level if isinstance(part, dict | list)]
        if not level:
            return
        level = [x for part in level for x in (part.values() if isinstance(part, dict) else part)]
    raise ValueError(f"it is nested more than {MAX_DEPTH} deep")
