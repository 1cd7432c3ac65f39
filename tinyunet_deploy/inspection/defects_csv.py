"""defects.csv: one row per defect, safe to open in a spreadsheet or a terminal."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Final

from tinyunet_deploy.errors import printable
from tinyunet_deploy.inspection.report_line import ReportLine

__all__ = ["COLUMNS", "HEADER", "defect_rows", "safe_cell"]

COLUMNS: Final = (
    *("path", "defect", "x", "y", "width", "height"),
    *("area_px", "area_mm2", "max_score", "mean_score"),
)
"""Columns of the table; ``defect`` counts from 1 in each image, ``area_mm2`` may be empty."""
HEADER: Final = ",".join(COLUMNS).encode() + b"\n"

_RUN_BY_SPREADSHEETS: Final = ("=", "+", "-", "@", "'", "\t", "\r", "\n", "＝", "＋", "－", "＠")
"""First characters for which a spreadsheet may evaluate a cell; some also take full-width ones.

The apostrophe is one of them because :func:`safe_cell` itself puts it in front of a cell."""
_QUOTED: Final = re.compile(r'[",;|]')
"""Characters at which a spreadsheet of any locale may split an unquoted cell."""


def safe_cell(text: str) -> str:
    """Return a CSV cell that is safe: no spreadsheet evaluates it and no terminal obeys it.

    A text that a spreadsheet would take for a formula gets an apostrophe in front; control
    characters and bytes that are not UTF-8 are spelled out, as ``\\x1b``.
    """
    mark = "'" if text.lstrip(" ").startswith(_RUN_BY_SPREADSHEETS) else ""
    cell = mark + printable(text)
    return f'"{cell.replace(chr(34), 2 * chr(34))}"' if _QUOTED.search(cell) else cell


def defect_rows(lines: Iterable[ReportLine]) -> Iterator[bytes]:
    """Yield the rows of each report line, one for each of its defects."""
    for line in lines:
        path = safe_cell(line["path"])
        rows = []
        for number, defect in enumerate(line.get("defects", ()), start=1):
            box = dict(zip(("x", "y", "width", "height"), defect["bbox"], strict=True))
            cells = {"path": path, "defect": number, **box, **defect}
            rows.append(",".join(str(cells.get(column, "")) for column in COLUMNS))
        yield "".join(row + "\n" for row in rows).encode("utf-8", "backslashreplace")
