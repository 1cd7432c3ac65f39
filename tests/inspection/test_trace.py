from __future__ import annotations

import json
import threading
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest

from tests.conftest import SIZE
from tinyunet_deploy.contract import Contract
from tinyunet_deploy.inspection.infer import infer
from tinyunet_deploy.inspection.outputs import Outputs
from tinyunet_deploy.inspection.trace import STAGES, UNACCOUNTED, Trace, chrome_trace
from tinyunet_deploy.speed.stage_table import pipelined_rows, serial_rows
from tinyunet_deploy.testing.fake_backend import FakeBackend

WALL_S = 60.0
"""Longer than any run here."""


def run(station: Path, output: Path, workers: int, batch_size: int = 2) -> Trace:
    trace = Trace()
    backend = FakeBackend(contract=Contract(SIZE, SIZE), delay_s=0.002)
    infer(
        [station],
        output,
        backend,
        threshold=0.5,
        min_area=1,
        batch_size=batch_size,
        workers=workers,
        outputs=Outputs(overlays=True, scores=True),
        trace=trace,
    )
    return trace


@pytest.mark.parametrize("workers", [0, 1, 3])
@pytest.mark.parametrize("batch_size", [1, 2, 8])
def test_every_image_has_every_stage(
    station: Path, tmp_path: Path, workers: int, batch_size: int
) -> None:
    trace = run(station, tmp_path / "out", workers, batch_size)
    times = Counter((image, span.stage) for span in trace.spans for image in span.images)
    for image in range(7):
        for stage in STAGES[:-1]:
            assert times[image, stage] >= 1, (image, stage)
        assert times[image, "run"] == 1
        assert times[image, "encode"] == 3  # mask, score, overlay
        assert times[image, "write"] == 4  # and the line of the report
    assert all(span.ended_s >= span.started_s for span in trace.spans)


def test_serial_is_one_thread_and_nothing_overlaps(station: Path, tmp_path: Path) -> None:
    trace = run(station, tmp_path / "out", workers=0)
    assert {span.thread for span in trace.spans} == {threading.current_thread().name}
    worked = sorted((s.started_s, s.ended_s) for s in trace.spans if s.stage != "queueing")
    for (_, ended), (started, _) in pairwise(worked):
        assert started >= ended
    batch = [s for s in trace.spans if s.stage in ("run", "write") and s.images]
    first_write = min(s.started_s for s in batch if s.stage == "write")
    second_run = sorted(s.started_s for s in batch if s.stage == "run")[1]
    assert first_write < second_run  # the first batch is finished before the second is begun


def test_serial_writes_what_the_threads_write(station: Path, tmp_path: Path) -> None:
    for name, workers in (("serial", 0), ("threads", 2)):
        run(station, tmp_path / name, workers)
    for path in (tmp_path / "serial").rglob("*"):
        if path.is_file():
            other = tmp_path / "threads" / path.relative_to(tmp_path / "serial")
            assert path.read_bytes() == other.read_bytes()


def test_serial_rows_add_up_to_the_wall_clock(station: Path, tmp_path: Path) -> None:
    trace = run(station, tmp_path / "out", workers=0)
    rows = serial_rows(trace, WALL_S, 7)
    assert tuple(row.stage for row in rows) == STAGES
    assert sum(row.ms_per_image for row in rows) * 7 / 1e3 == pytest.approx(WALL_S)
    assert sum(row.share for row in rows) == pytest.approx(1)
    runs = [row for row in rows if row.stage == "run"]
    assert runs[0].ms_per_image * 7 >= 4 * 2  # four batches of 2 ms
    assert next(row for row in rows if row.stage == "queueing").ms_per_image == 0


def test_pipelined_rows_add_up_to_the_way_of_an_image(station: Path, tmp_path: Path) -> None:
    trace = run(station, tmp_path / "out", workers=2)
    rows = pipelined_rows(trace, WALL_S)
    ways = []
    for image in range(7):
        mine = [span for span in trace.spans if image in span.images]
        ways.append(max(s.ended_s for s in mine) - min(s.started_s for s in mine))
    assert sum(row.ms_per_image for row in rows) == pytest.approx(sum(ways) / 7 * 1e3)
    by_stage = {row.stage: row for row in rows}
    spent = sum(s.seconds for s in trace.spans if s.stage == "run")
    assert by_stage["run"].busy * WALL_S == pytest.approx(spent)
    assert by_stage["run"].ms_per_image >= 2  # each image waits for the whole of its batch
    assert by_stage[UNACCOUNTED].ms_per_image >= 0


def test_without_a_trace_nothing_is_recorded(station: Path, tmp_path: Path) -> None:
    before = Trace.timed
    backend = FakeBackend(contract=Contract(SIZE, SIZE))
    try:
        Trace.timed = None  # type: ignore[assignment,method-assign]
        summary = infer(
            [station], tmp_path / "o", backend, threshold=0.5, min_area=1, batch_size=2, workers=2
        )
    finally:
        Trace.timed = before  # type: ignore[method-assign]
    assert summary.inspected == 7


def test_chrome_takes_the_trace(station: Path, tmp_path: Path) -> None:
    """The rules of the Trace Event Format that a viewer trips over."""
    traces = [("one", run(station, tmp_path / "1", 0)), ("two", run(station, tmp_path / "2", 2))]
    events = json.loads(chrome_trace(traces))["traceEvents"]
    assert {e["args"]["name"] for e in events if e["name"] == "process_name"} == {"one", "two"}
    named = {(e["pid"], e["tid"]) for e in events if e["name"] == "thread_name"}
    open_events = Counter[tuple[int, int]]()
    complete: dict[tuple[int, int], list[tuple[float, float]]] = {}
    for event in events:
        if event["ph"] == "M":
            continue
        assert event["ts"] >= 0 and event["name"] in STAGES
        assert (event["pid"], event["tid"]) in named
        if event["ph"] == "X":
            span = (event["ts"], event["ts"] + event["dur"])
            complete.setdefault((event["pid"], event["tid"]), []).append(span)
        else:
            open_events[event["pid"], event["id"]] += {"b": 1, "e": -1}[event["ph"]]
    assert set(open_events.values()) == {0}
    for spans in complete.values():  # on one thread they follow each other
        spans.sort()
        for (_, ended), (started, _) in pairwise(spans):
            assert started >= ended - 1e-3
