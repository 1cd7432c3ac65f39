"""Simulation of an inspection line: parts pass at the belt's pace, whether or not there is time.

The model is a queue. Every part triggers ``cameras`` images at one instant; a bounded buffer holds
them, first come first served, for ``processes`` that take one image at a time. A part is missed if
one of its images has no verdict when the part passes the reject gate. Arrivals are open-loop: they
never wait for a verdict, so that a slow image delays those behind it as it would on the line. The
same seed gives the same result.
"""

from __future__ import annotations

import heapq
import math

import numpy as np

from tinyunet_deploy.line.belt import Belt, Times, triggers_ms
from tinyunet_deploy.line.outcome import BeltOutcome, count_outcome
from tinyunet_deploy.line.recording import Recording
from tinyunet_deploy.line.resampling import draw_services_ms

__all__ = ["replay", "simulate", "simulate_belt"]


def simulate(trigger_ms: Times, service_ms: Times, *, processes: int, buffer: int) -> Times:
    """Serve images in the order of their triggers.

    Args:
        trigger_ms: [images], never decreasing.
        service_ms: [images]; the value of a dropped image is not used.
        processes: largest number of images in service.
        buffer: largest number of images that wait.

    Returns:
        [images]: instant of each verdict; NaN if the image was dropped.
    """
    verdict_ms = np.full(len(trigger_ms), np.nan)
    free = [-math.inf] * processes
    """Heap of the times at which each process becomes free."""
    present: list[float] = []
    """Heap of the times at which each image that waits or is in service has its verdict."""
    for image, (now, service) in enumerate(
        zip(trigger_ms.tolist(), service_ms.tolist(), strict=True)
    ):
        while present and present[0] <= now:
            heapq.heappop(present)
        if len(present) >= processes + buffer:
            continue
        end = max(now, free[0]) + service
        heapq.heapreplace(free, end)
        heapq.heappush(present, end)
        verdict_ms[image] = end
    return verdict_ms


def replay(belt: Belt, recording: Recording, *, parts: int, seed: int) -> BeltOutcome:
    """Simulate a belt on recorded service times."""
    service_ms = draw_services_ms(recording, belt, parts * belt.cameras, seed)
    return simulate_belt(belt, service_ms, parts, seed, len(recording.service_ms))


def simulate_belt(
    belt: Belt, service_ms: Times, parts: int, seed: int, recorded: int
) -> BeltOutcome:
    """Simulate a belt on given service times.

    Args:
        service_ms: [parts x cameras].
        seed: seed of the positions of the parts.
        recorded: number of recorded images that the service times were drawn from.
    """
    trigger_ms = triggers_ms(belt, parts, seed)
    verdict_ms = simulate(
        np.repeat(trigger_ms, belt.cameras),
        service_ms,
        processes=belt.processes,
        buffer=belt.buffer,
    )
    return count_outcome(belt, trigger_ms, service_ms, verdict_ms, recorded=recorded)
