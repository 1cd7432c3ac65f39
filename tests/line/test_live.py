"""Live runs in virtual time: what a busy machine delays, delays no trigger and no verdict here."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.virtual_clock import VirtualClock
from tinyunet_deploy.errors import RefusedError, RuntimeUnavailable
from tinyunet_deploy.inspection.defects import Verdict
from tinyunet_deploy.line.belt import Belt, triggers_ms
from tinyunet_deploy.line.live import PATIENCE_S, Inspector, LiveRun, run_live
from tinyunet_deploy.line.outcome import count_outcome
from tinyunet_deploy.line.simulation import simulate

FAR = Belt(3000, deadline_ms=60_000, buffer=1000)
"""A part every 20 ms; none is late and none is dropped."""


def run_virtually(
    belt: Belt, delay_s: Callable[[int], float], parts: int, seed: int = 0
) -> LiveRun:
    """Run with inspectors that take so many virtual seconds for each image."""
    clock = VirtualClock(threads=1 + belt.processes)

    def inspect(image: int) -> Verdict:
        clock.sleep(delay_s(image))
        return "OK"

    return run_live(belt, [inspect] * belt.processes, parts=parts, seed=seed, clock=clock)


def replayed(belt: Belt, live: LiveRun, parts: int) -> Any:
    """The live run's own service times in the same order, by the simulation."""
    trigger_ms = triggers_ms(belt, parts, seed=0)
    service_ms = np.nan_to_num(live.service_ms, nan=1e6)
    done = simulate(
        np.repeat(trigger_ms, belt.cameras), service_ms, processes=1, buffer=belt.buffer
    )
    return count_outcome(belt, trigger_ms, service_ms, done)


@pytest.mark.parametrize("cameras", [1, 2])
def test_the_simulation_agrees_with_the_run_whose_times_it_takes(cameras: int) -> None:
    belt = replace(FAR, cameras=cameras, jitter=0.1, deadline_ms=40, go_parts=7, stop_ms=50)
    live = run_virtually(belt, lambda image: (0.001, 0.002, 0.06)[image % 3], parts=15)
    again = replayed(belt, live, 15)
    assert again.time_to_verdict_ms == pytest.approx(live.outcome.time_to_verdict_ms)
    assert again.figures() == pytest.approx(live.outcome.figures(), nan_ok=True)
    assert live.outcome.missed > 0
    assert live.outcome.dropped == 0
    assert live.largest_lateness_ms == pytest.approx(0, abs=1e-6)
    assert live.warnings() == []


def test_an_image_that_finds_the_buffer_full_is_dropped() -> None:
    """The first image takes 115 ms: two of the five that come meanwhile find a place to wait."""
    belt = replace(FAR, buffer=2)
    live = run_virtually(belt, lambda image: 0.115 if image == 0 else 0.001, parts=10)
    assert np.isnan(live.service_ms).tolist() == [False] * 3 + [True] * 3 + [False] * 4
    outcome = live.outcome
    assert (outcome.missed, outcome.dropped, outcome.longest_run) == (3, 3, 3)
    again = replayed(belt, live, 10)
    assert again.figures() == pytest.approx(outcome.figures(), nan_ok=True)


def test_parts_do_not_wait_for_the_station() -> None:
    """A stall of 305 ms delays every part that comes meanwhile, by the rest of the stall."""
    live = run_virtually(FAR, lambda image: 0.305 if image == 0 else 0.001, parts=10)
    waits_ms = 305 - 20 * np.arange(10) + np.arange(10)
    assert live.outcome.time_to_verdict_ms == pytest.approx(waits_ms)
    assert live.service_ms == pytest.approx([305] + [1] * 9)


def test_images_wait_in_the_order_of_their_triggers() -> None:
    order: list[int] = []
    clock = VirtualClock(threads=2)

    def inspect(image: int) -> Verdict:
        order.append(image)
        clock.sleep(0.05)
        return "OK"

    run_live(replace(FAR, cameras=2), [inspect], parts=4, seed=0, clock=clock)
    assert order == list(range(8))


def test_two_inspectors_work_side_by_side() -> None:
    belt = replace(FAR, cameras=2, processes=2)
    live = run_virtually(belt, lambda _image: 0.015, parts=3)
    assert live.outcome.time_to_verdict_ms == pytest.approx(15)
    assert live.service_ms == pytest.approx(15)


def test_a_verdict_that_never_comes_is_a_miss() -> None:
    clock = VirtualClock(threads=2)
    released, asked = clock.condition(), [False]

    def inspect(_: int) -> Verdict:
        with released:
            released.wait_for(lambda: asked[0])
        return "OK"

    belt = Belt(3000, deadline_ms=50, buffer=3)
    live = run_live(belt, [inspect], parts=10, seed=0, clock=clock)
    assert clock.now_s() == pytest.approx(0.02 + 9 * 0.02 + PATIENCE_S + 0.05)
    with released:
        asked[0] = True
        released.notify_all()
    assert (live.outcome.missed, live.outcome.dropped) == (10, 6)
    assert np.isinf(live.outcome.time_to_verdict_ms).sum() == 4
    with pytest.raises(RefusedError, match="no image was inspected"):
        live.recording(belt, "photos")


def test_an_error_of_the_backend_ends_the_run_at_once() -> None:
    clock = VirtualClock(threads=2)

    def inspect(_: int) -> Verdict:
        clock.sleep(0.005)
        time.sleep(0.05)  # the belt waits for its next trigger again, a million seconds away
        raise RuntimeUnavailable("cuda:0", "is lost")

    belt = replace(FAR, go_parts=1, stop_ms=1e6)
    with pytest.raises(RuntimeUnavailable, match="is lost"):
        run_live(belt, [inspect], parts=1000, seed=0, clock=clock)
    assert clock.now_s() == pytest.approx(0.025)


def test_a_late_trigger_is_measured_and_warned_of() -> None:
    """The callback of progress once stalls the belt's own thread, as a busy machine would."""
    clock = VirtualClock(threads=2)
    stalls_s = iter([0.034, 0.0, 0.0])
    inspect: Inspector = lambda _image: "OK"  # noqa: E731
    live = run_live(
        FAR,
        [inspect],
        parts=3,
        seed=0,
        clock=clock,
        progress=lambda _count: clock.sleep(next(stalls_s)),
    )
    assert live.largest_lateness_ms == pytest.approx(14)
    (warning,) = live.warnings()
    assert warning.startswith("a trigger came 14 ms late")


def test_a_recording_is_split_where_the_belt_stopped() -> None:
    belt = replace(FAR, go_parts=2, stop_ms=500, cameras=2)
    live = run_virtually(belt, lambda image: 0.003 + 0.001 * (image % 4 == 0), parts=5)
    recording = live.recording(belt, "photos")
    assert [len(times) for times in recording.stretches] == [4, 4, 2]
    assert recording.medians_ms() == pytest.approx((4, 3))
    assert recording.idle and recording.processes == 1


def test_it_runs_in_real_time_too() -> None:
    before = threading.active_count()
    live = run_live(FAR, [lambda _image: "OK"], parts=5, seed=0)
    assert (live.outcome.missed, live.outcome.dropped) == (0, 0)
    assert (live.service_ms >= 0).all()
    assert threading.active_count() <= before + 1
