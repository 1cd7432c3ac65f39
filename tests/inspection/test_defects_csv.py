from __future__ import annotations

import csv
import io

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tinyunet_deploy.inspection.defects_csv import COLUMNS, HEADER, defect_rows, safe_cell
from tinyunet_deploy.inspection.report_line import ReportLine

hostile_names = st.text(
    st.one_of(
        st.sampled_from("=+-@'\t\r\n\x1b\x00\x7f\x9b\u202e\udcff\",;| <>&＝＠"), st.characters()
    ),
    min_size=1,
    max_size=12,
)
"""File names: any characters, those that programs obey more often than others."""


@given(hostile_names)
@example("=cmd|' /C calc'!A0.png")
@example(" =1+1.png")
@example("\x1b]0;owned\x07.png")
@example("a;=1+1.png")
@example("'=1.png")
def test_no_name_is_evaluated_or_obeyed_and_each_row_is_one_line(name: str) -> None:
    line: ReportLine = {
        "path": name,
        "status": "inspected",
        "verdict": "NG",
        "defects": [{"bbox": [1, 2, 3, 4], "area_px": 5, "max_score": 6, "mean_score": 7.5}],
    }
    text = b"".join([HEADER, *defect_rows([line])]).decode("utf-8")
    assert len(text.splitlines()) == 2
    assert all(char.isprintable() for row in text.splitlines() for char in row)
    (row,) = csv.DictReader(io.StringIO(text))
    assert tuple(row) == COLUMNS
    assert row["width"] == "3" and row["mean_score"] == "7.5", "no cell is split"
    assert not row["path"].lstrip(" ").startswith(tuple("=+-@\t\r\n＝＋－＠"))
    raw = text.splitlines()[1]
    assert raw.startswith('"') or not set(raw.split(",")[0]) & set(";|"), "in any locale"


@given(hostile_names, hostile_names)
def test_ordinary_names_stay_as_they_are(one: str, other: str) -> None:
    if one.isalnum() and other.isalnum():
        assert (safe_cell(one) == safe_cell(other)) == (one == other)
    if one.isalnum() and one.isprintable() and one[0] not in "＝＋－＠":
        assert safe_cell(f"day 1/{one}.png") == f"day 1/{one}.png"


@pytest.mark.parametrize(
    ("name", "cell"),
    [
        ("=1.png", "'=1.png"),
        ("-1.png", "'-1.png"),
        ("'a.png", "''a.png"),
        ('a, "b".png', '"a, ""b"".png"'),
        ("a\x1b[31m.png", "a\\x1b[31m.png"),
        ("\ta.png", "'\\ta.png"),
    ],
)
def test_a_cell(name: str, cell: str) -> None:
    assert safe_cell(name) == cell
