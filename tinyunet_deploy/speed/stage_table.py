"""Rows of a stage table: where the time goes between a folder of images and its report."""

from __future__ import annotations

from collections import defaultdict

from tinyunet_deploy.inspection.trace import QUEUEING, STAGES, UNACCOUNTED, Trace
from tinyunet_deploy.speed.benchmark_result import StageRow

__all__ = ["pipelined_rows", "serial_rows"]


def serial_rows(trace: Trace, wall_s: float, images: int) -> tuple[StageRow, ...]:
    """Return rows that add up to the wall clock of a run on one thread.

    Args:
        wall_s: length of the whole run, seconds.
        images: number of images over which the time is averaged.
    """
    total: dict[str, float] = defaultdict(float)
    for span in trace.spans:
        if span.stage != QUEUEING:  # one thread: while an image waits, others are worked on
            total[span.stage] += span.seconds
    total[UNACCOUNTED] = wall_s - sum(total.values())
    return tuple(
        StageRow(stage, total[stage] / images * 1e3, total[stage] / wall_s, total[stage] / wall_s)
        for stage in STAGES
    )


def pipelined_rows(trace: Trace, wall_s: float) -> tuple[StageRow, ...]:
    """Return rows that add up to the mean time from an image's first stage to its last.

    A batch occupies each of its images for its whole time. The tiles of one image overlap: its time
    counts once, for the stage that began first.

    Args:
        wall_s: length of the whole run, seconds.
    """
    busy: dict[str, float] = defaultdict(float)
    total: dict[str, float] = defaultdict(float)
    ends: dict[int, tuple[float, float]] = {}
    for span in sorted(trace.spans, key=lambda span: (span.started_s, span.ended_s)):
        busy[span.stage] += span.seconds
        for image in span.images:
            first, last = ends.get(image, (span.started_s, span.started_s))
            total[span.stage] += max(span.ended_s - max(span.started_s, last), 0.0)
            ends[image] = first, max(last, span.ended_s)
    whole = sum(last - first for first, last in ends.values())
    total[UNACCOUNTED] = whole - sum(total.values())
    return tuple(
        StageRow(stage, total[stage] / len(ends) * 1e3, total[stage] / whole, busy[stage] / wall_s)
        for stage in STAGES
    )
