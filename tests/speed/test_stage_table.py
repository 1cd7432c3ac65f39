"""Stage tables of traces that a test writes down."""

from __future__ import annotations

import pytest

from tinyunet_deploy.inspection.trace import STAGES, StageSpan, Trace
from tinyunet_deploy.speed.stage_table import pipelined_rows, serial_rows


def trace(*spans: tuple[str, tuple[int, ...], float, float]) -> Trace:
    recorded = Trace()
    recorded.spans = [StageSpan(name, images, "thread", *times) for name, images, *times in spans]
    return recorded


SERIAL = trace(
    ("read", (0,), 0, 1),
    ("decode", (0,), 1, 3),
    ("queueing", (0,), 3, 5),
    ("read", (1,), 3, 4),
    ("decode", (1,), 4, 5),
    ("run", (0, 1), 5, 9),
    ("write", (), 9, 9.5),
)
PIPELINED = trace(
    ("read", (1,), 0, 2),
    ("queueing", (0,), 1, 2),
    ("run", (0, 1), 2, 6),
    ("write", (0,), 6, 7),
    ("write", (1,), 7, 9),
    ("read", (0,), 0, 1),  # threads do not record in the order of time
)


def test_serial_rows_add_up_to_the_wall_clock_without_waiting() -> None:
    rows = {row.stage: row for row in serial_rows(SERIAL, wall_s=10, images=2)}
    assert tuple(rows) == STAGES
    ms = {stage: row.ms_per_image for stage, row in rows.items() if row.ms_per_image}
    assert ms == pytest.approx(
        {"read": 1000, "decode": 1500, "run": 2000, "write": 250, "unaccounted": 250}
    )
    assert rows["run"].share == rows["run"].busy == pytest.approx(0.4)
    assert rows["queueing"].ms_per_image == 0
    assert sum(row.share for row in rows.values()) == pytest.approx(1)


def test_tiles_of_one_image_that_overlap_count_once() -> None:
    """One tile runs from 0 to 4 s; the next waits since 1 s, and runs from 4 to 6 s."""
    tiles = trace(
        ("run", (0, 0), 0, 4), ("queueing", (0,), 1, 4), ("queueing", (0, 0), 1, 4),
        ("run", (0, 0), 4, 6),
    )  # fmt: skip
    rows = {row.stage: row for row in pipelined_rows(tiles, wall_s=6)}
    ms = {stage: row.ms_per_image for stage, row in rows.items() if row.ms_per_image}
    assert ms == pytest.approx({"run": 6000})


def test_pipelined_rows_add_up_to_the_mean_time_from_first_to_last_stage() -> None:
    """Image 0 takes from 0 to 7 s, image 1 from 0 to 9 s; image 1 waits 1 s without a span."""
    rows = {row.stage: row for row in pipelined_rows(PIPELINED, wall_s=10)}
    assert tuple(rows) == STAGES
    ms = {stage: row.ms_per_image for stage, row in rows.items() if row.ms_per_image}
    assert ms == pytest.approx(
        {"read": 1500, "queueing": 500, "run": 4000, "write": 1500, "unaccounted": 500}
    )
    assert sum(ms.values()) == pytest.approx(8000)
    assert rows["run"].share == pytest.approx(8 / 16)
    assert rows["run"].busy == pytest.approx(0.4)  # one thread, though for two images
    assert rows["read"].busy == pytest.approx(0.3)
