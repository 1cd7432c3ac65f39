from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from tests.line.test_simulation import constant
from tinyunet_deploy.line.belt import Belt
from tinyunet_deploy.line.recording import Recording
from tinyunet_deploy.line.simulation import replay
from tinyunet_deploy.line.speed_search import SearchSettings, find_fastest, processes_needed


def test_how_many_processes_two_cameras_need() -> None:
    belt = Belt(600, 50, cameras=2)
    settings = SearchSettings(parts=500, seed=0, max_miss_rate=0.0)
    assert processes_needed(belt, constant(20), settings) == 1
    assert processes_needed(belt, constant(40), settings) == 2
    assert processes_needed(belt, constant(60), settings) is None


def test_the_fastest_speed_is_found_where_arithmetic_says() -> None:
    """Two images of 20 ms must be done while the part moves half a pitch: 750 a minute."""
    belt = Belt(600, 50, pitch_mm=100, gate_mm=50, cameras=2)
    settings = SearchSettings(parts=4000, seed=0, max_miss_rate=0.001)
    search = find_fastest(belt, constant(20, 10_000), settings)
    assert search.fastest_shown == search.fastest_seen == pytest.approx(750, rel=1e-3)
    assert search.fastest_shown <= 750
    assert [speed for speed, _ in search.curve] == sorted(speed for speed, _ in search.curve)
    assert {outcome.missed for speed, outcome in search.curve if speed < 750} == {0}
    assert {outcome.missed for speed, outcome in search.curve if speed > 750} == {4000}
    belt = replace(belt, gate_mm=None)
    loose = find_fastest(belt, constant(20, 10_000), settings)
    assert loose.fastest_shown == loose.capacity == pytest.approx(0.95 * 1500)
    assert math.isnan(find_fastest(belt, constant(2000), settings).fastest_seen)


def test_a_short_recording_promises_nothing() -> None:
    belt = Belt(600, 50)
    search = find_fastest(belt, constant(20, 200), SearchSettings(4000, 0, 0.001))
    assert math.isnan(search.fastest_shown)
    assert search.fastest_seen == search.capacity


def test_the_promised_speed_is_kept_by_other_times_of_the_same_kind() -> None:
    random = np.random.default_rng(0)
    belt = Belt(600, 60, jitter=0.05)
    measured = Recording("test", (random.gamma(20, 1, 10_000),))
    settings = SearchSettings(parts=10_000, seed=0, max_miss_rate=0.002)
    speed = find_fastest(belt, measured, settings).fastest_shown
    later = Recording("test", (random.gamma(20, 1, 50_000),))
    assert replay(belt.at(speed), later, parts=50_000, seed=1).miss_rate < 0.002
    assert replay(belt.at(1.2 * speed), later, parts=50_000, seed=1).miss_rate > 0.002


def test_stops_give_time_to_catch_up_and_count_into_the_capacity() -> None:
    """Per 10 parts: 10 x 20 ms of service in 95 % of the time, of which the belt stands 100 ms."""
    settings = SearchSettings(parts=200, seed=0, max_miss_rate=0.5)
    stops = Belt(600, 1e6, go_parts=10, stop_ms=100.0, buffer=10**6)
    going_ms = 20 / 0.95 - 100 / 10
    assert find_fastest(stops, constant(20), settings).capacity == pytest.approx(60_000 / going_ms)
    long = replace(stops, stop_ms=1e5)
    fastest = find_fastest(long, constant(20), settings).capacity
    assert fastest == pytest.approx(10 * 0.95 * 60_000 / 20)
