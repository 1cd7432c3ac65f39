"""Rows of a stage table: where the time goes between a folder of images and its report."""

from __future__ import annotations

from collections import defaultdict

from tinyunet_deploy.inspection.trace import QUEUEING, STAGES, UNACCOUNTED, Trace
from tinyunet_deploy.speed.benchmark_result import StageRow

__all__ = ["pipelined_rows", "serial_rows"]


def serial_rows(trace: Trace, wall_s: float, images: int) -> tuple[StageRow, ...]:
    """Rows that add up to the wall clock of a run on one thread.

    Args:
        wall_s: of the whole run.
        images: over how many it is spread.
    """
    total: dict[str, float] = defaultdict(float)
    for each in trace.spans:
        if each.stage != QUEUEING:  # one thread: while an image waits, others are worked on
            total[each.stage] += each.seconds
    total[UNACCOUNTED] = wall_s - sum(total.values())
    return tuple(
        StageRow(stage, total[stage] / images * 1e3, total[stage] / wall_s, total[stage] / wall_s)
        for stage in STAGES
    )


def pipelined_rows(trace: Trace, wall_s: float) -> tuple[StageRow, ...]:
    """Rows that add up to the mean wall clock of an image's own way through the threads.

    That way is from the start of its first span to the end of its last; a batch takes each of its
    images the whole time.
    """
    busy: dict[str, float] = defaultdict(float)
    total: dict[str, float] = defaultdict(float)
    way: dict[int, tuple[float, float]] = {}
    for each in trace.spans:
        busy[each.stage] += each.seconds
        total[each.stage] += each.seconds * len(each.images)
        for image in each.images:
            first, last = way.get(image, (each.started_s, each.ended_s))
            way[image] = min(first, each.started_s), max(last, each.ended_s)
    whole = sum(last - first for first, last in way.values())
    total[UNACCOUNTED] = whole - sum(total.values())
    return tuple(
        StageRow(stage, total[stage] / len(way) * 1e3, total[stage] / whole, busy[stage] / wall_s)
        for stage in STAGES
    )
