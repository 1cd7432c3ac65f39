"""The simulated line: against queueing theory where there is a closed form, else by invariants."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyunet_deploy.line.belt import Belt, Times
from tinyunet_deploy.line.recording import Recording
from tinyunet_deploy.line.simulation import replay, simulate

UNLIMITED = 10**9
times_ms = st.lists(st.floats(0.1, 50), min_size=1, max_size=40).map(np.array)


def constant(service_ms: float, images: int = 5000) -> Recording:
    return Recording("test", (np.full(images, service_ms),))


def waits_ms(
    random: np.random.Generator, service_ms: Times, rate: float, *, processes: int = 1
) -> Times:
    """Waiting times of a long run with exponential gaps."""
    trigger_ms = np.cumsum(random.exponential(1 / rate, len(service_ms)))
    verdict_ms = simulate(trigger_ms, service_ms, processes=processes, buffer=UNLIMITED)
    return verdict_ms - trigger_ms - service_ms


def assert_mean(samples: Times, wanted: float) -> None:
    """Within four standard errors, taken from batches, which are as good as independent."""
    batches = samples.reshape(50, -1).mean(axis=1)
    error = batches.std(ddof=1) / math.sqrt(len(batches))
    assert abs(batches.mean() - wanted) < 4 * error
    assert error < 0.05 * wanted


@pytest.mark.parametrize("load", [0.3, 0.8, 1.0])
def test_regular_parts_never_wait_below_capacity(load: float) -> None:
    """D/D/1."""
    belt = Belt(60_000 * load / 20, deadline_ms=20, buffer=0)
    outcome = replay(belt, constant(20), parts=3000, seed=0)
    assert (outcome.missed, outcome.longest_run) == (0, 0)
    assert outcome.time_to_verdict_ms == pytest.approx(20)
    assert outcome.busy == pytest.approx(load, rel=1e-3)


def test_regular_parts_above_capacity_wait_longer_and_longer() -> None:
    """D/D/1: the n-th of parts that come every 16 ms waits n (20 - 16) ms."""
    belt = Belt(60_000 / 16, deadline_ms=100, buffer=UNLIMITED)
    outcome = replay(belt, constant(20), parts=200, seed=0)
    assert outcome.time_to_verdict_ms == pytest.approx(20 + 4 * np.arange(200))
    assert (outcome.missed, outcome.longest_run, outcome.dropped) == (179, 179, 0)
    bounded = replay(replace(belt, buffer=3), constant(20), parts=2000, seed=0)
    assert bounded.dropped / 2000 == pytest.approx(1 - 16 / 20, rel=0.02)
    assert bounded.missed == bounded.dropped


@pytest.mark.parametrize("load", [0.3, 0.7])
def test_mean_wait_of_random_arrivals(load: float) -> None:
    """M/D/1: rho s / (2 (1 - rho)). M/M/1: rho s / (1 - rho)."""
    random = np.random.default_rng(1)
    service_ms = np.full(200_000, 10.0)
    assert_mean(waits_ms(random, service_ms, load / 10), load * 10 / (2 * (1 - load)))
    service_ms = random.exponential(10.0, 200_000)
    assert_mean(waits_ms(random, service_ms, load / 10), load * 10 / (1 - load))


def test_mean_wait_in_front_of_two_processes() -> None:
    """M/M/2, Erlang C: rho^2 s / (1 - rho^2), where s is the mean service time."""
    random = np.random.default_rng(2)
    service_ms = random.exponential(10.0, 200_000)
    waits = waits_ms(random, service_ms, 2 * 0.7 / 10, processes=2)
    assert_mean(waits, 0.7**2 * 10 / (1 - 0.7**2))


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_share_that_is_dropped_without_a_buffer(processes: int) -> None:
    """M/D/c/c: Erlang B, which holds for any distribution of the service time."""
    offered = 1.2
    terms = [offered**n / math.factorial(n) for n in range(processes + 1)]
    random = np.random.default_rng(3)
    trigger_ms = np.cumsum(random.exponential(10 / offered, 200_000))
    verdict_ms = simulate(trigger_ms, np.full(200_000, 10.0), processes=processes, buffer=0)
    assert_mean(np.isnan(verdict_ms).astype(float), terms[-1] / sum(terms))


@given(times_ms, st.integers(1, 3), st.integers(0, 3), st.integers(0, 2**16))
def test_images_are_served_in_order_and_dropped_only_if_the_buffer_is_full(
    service_ms: Times, processes: int, buffer: int, seed: int
) -> None:
    gaps = np.random.default_rng(seed).exponential(8, len(service_ms)).round()
    trigger_ms = np.cumsum(gaps)
    verdict_ms = simulate(trigger_ms, service_ms, processes=processes, buffer=buffer)
    before: list[float] = []
    for now, service, judged in zip(trigger_ms, service_ms, verdict_ms, strict=True):
        present = sum(end > now for end in before)
        assert np.isnan(judged) == (present >= processes + buffer)
        if np.isnan(judged):
            continue
        free = sorted(before)[-processes] if len(before) >= processes else -math.inf
        assert judged == max(now, free) + service
        before.append(judged)


@given(
    times_ms,
    st.floats(60, 6000),
    st.floats(0.1, 1),
    st.floats(1, 200),
    st.floats(0, 1),
    st.integers(1, 3),
    st.none() | st.integers(1, 10),
    st.booleans(),
)
def test_a_slower_belt_never_misses_more(
    service_ms: Times,
    speed: float,
    slower: float,
    deadline_ms: float,
    jitter: float,
    cameras: int,
    go_parts: int | None,
    gate: bool,
) -> None:
    fast = Belt(speed, deadline_ms, 10, 10 if gate else None, cameras, 1, UNLIMITED, jitter)
    fast = replace(fast, go_parts=go_parts, stop_ms=30.0 if go_parts else 0.0)
    recorded = Recording("test", (service_ms,))
    missed = [
        replay(belt, recorded, parts=30, seed=5).missed for belt in (fast, fast.at(speed * slower))
    ]
    assert missed[1] <= missed[0]


def test_a_part_has_its_verdict_when_all_its_cameras_have() -> None:
    belt = Belt(600, 100, cameras=2)
    assert replay(belt, constant(30), parts=50, seed=0).p50_ms == pytest.approx(60)
    two = replace(belt, processes=2)
    assert replay(two, constant(30), parts=50, seed=0).p50_ms == pytest.approx(30)
    full = replay(replace(belt, buffer=0), constant(30), parts=50, seed=0)
    assert full.dropped == full.missed == full.longest_run == 50
    assert math.isinf(full.p50_ms)


def test_a_belt_that_stops_gives_time_to_catch_up() -> None:
    belt = Belt(3000, 60, jitter=0, buffer=UNLIMITED)
    stops = replace(belt, go_parts=2, stop_ms=100.0)
    assert replay(belt, constant(40), parts=100, seed=0).missed > 90
    assert replay(stops, constant(40), parts=100, seed=0).missed == 0


def test_the_same_seed_gives_the_same_result_and_another_seed_another() -> None:
    noisy = Recording("test", (np.random.default_rng(0).exponential(30, 300),))
    belt = Belt(900, 100, jitter=0.05)
    one, same, other = (replay(belt, noisy, parts=1000, seed=seed) for seed in (4, 4, 5))
    assert one.figures() == same.figures() != other.figures()
    assert (one.time_to_verdict_ms == same.time_to_verdict_ms).all()


def test_slow_images_stay_together() -> None:
    """A stall of five images fills the buffer; the same times, shuffled, would not."""
    times = np.full(1000, 10.0)
    times[400:405] = 100.0
    belt = Belt(1500, 200, buffer=3)
    together = replay(belt, Recording("test", (times,)), parts=10_000, seed=0)
    single = np.random.default_rng(0).permutation(times)
    assert replay(belt, Recording("test", (single,)), parts=10_000, seed=0).missed == 0
    assert together.longest_run >= 2
    assert together.missed > 20


def test_the_first_image_to_wait_is_the_first_to_be_served() -> None:
    """One process, two places to wait; the fourth image finds both taken and is dropped."""
    trigger_ms = np.array([0.0, 1, 2, 3, 11])
    verdict_ms = simulate(trigger_ms, np.array([10.0, 5, 1, 1, 1]), processes=1, buffer=2)
    assert verdict_ms[[0, 1, 2, 4]].tolist() == [10, 15, 16, 17]
    assert np.isnan(verdict_ms[3])


def test_an_image_that_comes_as_another_leaves_takes_its_place() -> None:
    verdict_ms = simulate(np.array([0.0, 10, 19]), np.full(3, 10.0), processes=1, buffer=0)
    assert verdict_ms[:2].tolist() == [10, 20] and np.isnan(verdict_ms[2])
