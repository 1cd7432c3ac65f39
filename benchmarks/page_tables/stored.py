"""Read stored results, and define the type of a table."""

from __future__ import annotations

import json
from typing import Any, TypeAlias

from benchmarks.options import RESULTS

__all__ = ["Rows", "read_result"]

Rows: TypeAlias = "list[list[str]]"
"""A table: the cells of each row, the head first."""


def read_result(name: str) -> Any:
    """Return the JSON of a file in benchmarks/results, such as ``xeon/matrix.json``."""
    return json.loads((RESULTS / name).read_text())
