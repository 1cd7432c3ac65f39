"""The simulated line: against queueing theory where there is a closed form, else by invariants."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyunet_deploy.errors import DataError
from tinyunet_deploy.line.simulation import (
    Line,
    Recording,
    Times,
    draw_services_ms,
    find_fastest,
    outcome,
    parts_to_show,
    processes_needed,
    read_recording,
    replay,
    run_fields,
    search_fields,
    simulate,
    triggers_ms,
)
from tinyunet_deploy.quality.confidence import clopper_pearson_upper

UNLIMITED = 10**9
NONE_ALLOWED = 0.0
times_ms = st.lists(st.floats(0.1, 50), min_size=1, max_size=40).map(np.array)


def recording(*times: float, repeat: int = 1) -> Recording:
    return Recording("test", (np.tile(times, repeat),))


def constant(service_ms: float, images: int = 5000) -> Recording:
    return recording(service_ms, repeat=images)


def waits_ms(
    random: np.random.Generator, service_ms: Times, rate: float, *, processes: int = 1
) -> Times:
    """Waiting times of a long run with exponential gaps."""
    trigger_ms = np.cumsum(random.exponential(1 / rate, len(service_ms)))
    judged_ms = simulate(trigger_ms, service_ms, processes=processes, buffer=UNLIMITED)
    return judged_ms - trigger_ms - service_ms


def assert_mean(samples: Times, wanted: float) -> None:
    """Within four standard errors, taken from batches, which are as good as independent."""
    batches = samples.reshape(50, -1).mean(axis=1)
    error = batches.std(ddof=1) / math.sqrt(len(batches))
    assert abs(batches.mean() - wanted) < 4 * error
    assert error < 0.05 * wanted


@pytest.mark.parametrize("load", [0.3, 0.8, 1.0])
def test_regular_parts_never_wait_below_capacity(load: float) -> None:
    """D/D/1."""
    line = Line(60_000 * load / 20, deadline_ms=20, buffer=0)
    found = replay(line, constant(20), parts=3000, seed=0)
    assert (found.missed, found.longest_run) == (0, 0)
    assert found.time_to_verdict_ms == pytest.approx(20)
    assert found.busy == pytest.approx(load, rel=1e-3)


def test_regular_parts_above_capacity_wait_longer_and_longer() -> None:
    """D/D/1: the n-th of parts that come every 16 ms waits n (20 - 16) ms."""
    line = Line(60_000 / 16, deadline_ms=100, buffer=UNLIMITED)
    found = replay(line, constant(20), parts=200, seed=0)
    assert found.time_to_verdict_ms == pytest.approx(20 + 4 * np.arange(200))
    assert (found.missed, found.longest_run, found.dropped) == (179, 179, 0)
    bounded = replay(replace(line, buffer=3), constant(20), parts=2000, seed=0)
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
    judged_ms = simulate(trigger_ms, np.full(200_000, 10.0), processes=processes, buffer=0)
    assert_mean(np.isnan(judged_ms).astype(float), terms[-1] / sum(terms))


@given(times_ms, st.integers(1, 3), st.integers(0, 3), st.integers(0, 2**16))
def test_images_are_served_in_order_and_dropped_only_if_the_buffer_is_full(
    service_ms: Times, processes: int, buffer: int, seed: int
) -> None:
    gaps = np.random.default_rng(seed).exponential(8, len(service_ms)).round()
    trigger_ms = np.cumsum(gaps)
    judged_ms = simulate(trigger_ms, service_ms, processes=processes, buffer=buffer)
    before: list[float] = []
    for now, service, judged in zip(trigger_ms, service_ms, judged_ms, strict=True):
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
    fast = Line(speed, deadline_ms, 10, 10 if gate else None, cameras, 1, UNLIMITED, jitter)
    fast = replace(fast, go_parts=go_parts, stop_ms=30.0 if go_parts else 0.0)
    recorded = Recording("test", (service_ms,))
    missed = [
        replay(line, recorded, parts=30, seed=5).missed for line in (fast, fast.at(speed * slower))
    ]
    assert missed[1] <= missed[0]


def test_a_part_has_its_verdict_when_all_its_cameras_have() -> None:
    line = Line(600, 100, cameras=2)
    assert replay(line, constant(30), parts=50, seed=0).p50_ms == pytest.approx(60)
    two = replace(line, processes=2)
    assert replay(two, constant(30), parts=50, seed=0).p50_ms == pytest.approx(30)
    full = replay(replace(line, buffer=0), constant(30), parts=50, seed=0)
    assert full.dropped == full.missed == full.longest_run == 50
    assert math.isinf(full.p50_ms)


def test_how_many_processes_two_cameras_need() -> None:
    line = Line(600, 50, cameras=2)
    how = {"parts": 500, "seed": 0, "max_miss_rate": NONE_ALLOWED}
    assert processes_needed(line, constant(20), **how) == 1
    assert processes_needed(line, constant(40), **how) == 2
    assert processes_needed(line, constant(60), **how) is None


def test_a_belt_that_stops_gives_time_to_catch_up() -> None:
    line = Line(3000, 60, jitter=0, buffer=UNLIMITED)
    assert np.diff(triggers_ms(line, 5, 0)) == pytest.approx(20)
    stops = replace(line, go_parts=2, stop_ms=100.0)
    assert np.diff(triggers_ms(stops, 5, 0)) == pytest.approx([20, 120, 20, 120])
    assert (line.parts_in(60), stops.parts_in(60)) == (3000, 857)
    assert replay(line, constant(40), parts=100, seed=0).missed > 90
    assert replay(stops, constant(40), parts=100, seed=0).missed == 0


def test_jitter_moves_parts_by_shares_of_the_pitch_and_keeps_their_order() -> None:
    line = Line(600, 100, jitter=0.1)
    places = triggers_ms(line, 4000, 0) / 100 - np.arange(4000)
    assert np.std(places) == pytest.approx(0.1, rel=0.05)
    assert triggers_ms(line.at(1200), 4000, 0) * 2 == pytest.approx(triggers_ms(line, 4000, 0))
    wild = triggers_ms(replace(line, jitter=1.0), 4000, 0)
    assert all(early <= late for early, late in pairwise(wild.tolist()))


def test_a_fixed_gate_leaves_less_time_to_a_faster_belt() -> None:
    line = Line(600, 120, pitch_mm=50, gate_mm=60)
    assert line.speed_mm_s == 500
    assert line.at(1200).deadline_ms == 60
    assert replace(line, gate_mm=None).at(1200).deadline_ms == 120
    assert math.isnan(Line(600, 120).speed_mm_s)


def test_the_same_seed_gives_the_same_result_and_another_seed_another() -> None:
    noisy = Recording("test", (np.random.default_rng(0).exponential(30, 300),))
    line = Line(900, 100, jitter=0.05)
    one, same, other = (replay(line, noisy, parts=1000, seed=seed) for seed in (4, 4, 5))
    assert one.figures() == same.figures() != other.figures()
    assert (one.time_to_verdict_ms == same.time_to_verdict_ms).all()


def test_slow_images_stay_together() -> None:
    """A stall of five images fills the buffer; the same times, shuffled, would not."""
    times = np.full(1000, 10.0)
    times[400:405] = 100.0
    line = Line(1500, 200, buffer=3)
    together = replay(line, Recording("test", (times,)), parts=10_000, seed=0)
    single = np.random.default_rng(0).permutation(times)
    assert replay(line, Recording("test", (single,)), parts=10_000, seed=0).missed == 0
    assert together.longest_run >= 2
    assert together.missed > 20


def test_every_recorded_time_is_replayed_equally_often() -> None:
    times = np.arange(1, 501.0)
    drawn = draw_services_ms(Recording("test", (times,)), Line(600, 100), 1500, 0)
    assert (np.sort(drawn) == np.repeat(times, 3)).all()
    follows = np.diff(drawn) == 1
    assert 0.9 < follows.mean() < 1


def test_what_is_slow_after_a_stop_stays_there() -> None:
    stretches = tuple(np.array([90.0, 20, 10, 10]) for _ in range(10))
    line = Line(600, 100, cameras=2, go_parts=2, stop_ms=500)
    drawn = draw_services_ms(Recording("test", stretches), line, 40, 0)
    assert drawn.reshape(-1, 4).tolist() == [[90, 20, 10, 10]] * 10
    longer = draw_services_ms(Recording("test", stretches), replace(line, go_parts=5), 40, 0)
    assert (longer.reshape(-1, 10)[:, :4] == [90, 20, 10, 10]).all()
    shorter = draw_services_ms(Recording("test", stretches), replace(line, go_parts=1), 40, 0)
    assert shorter.reshape(-1, 2).tolist() == [[90, 20]] * 20


def test_the_least_parts_that_can_show_a_miss_rate() -> None:
    assert parts_to_show(0.001) == 2995
    assert clopper_pearson_upper(0, 2995) <= 0.001 < clopper_pearson_upper(0, 2994)
    assert math.isinf(parts_to_show(0))


def judged(missed: list[int], *, recorded: int | None = None) -> float:
    """The bound for 1000 parts, those given without a verdict in time."""
    trigger_ms = 100.0 * np.arange(1000)
    service_ms = np.full(1000, 10.0)
    service_ms[missed] = 60
    done = trigger_ms + service_ms
    return outcome(Line(600, 50), trigger_ms, service_ms, done, recorded=recorded).miss_rate_bound


def test_the_bound_counts_a_run_once_and_no_more_parts_than_were_recorded() -> None:
    assert judged([]) == clopper_pearson_upper(0, 1000)
    assert judged([100, 300, 500, 700]) == clopper_pearson_upper(4, 1000)
    assert (
        judged([100, 101, 102, 103])
        == clopper_pearson_upper(1, 250)
        > clopper_pearson_upper(4, 1000)
    )
    assert judged([], recorded=100) == clopper_pearson_upper(0, 100)
    assert judged([100, 300, 500, 700], recorded=100) == clopper_pearson_upper(1, 100)
    assert judged(list(range(1000))) == 1


def test_percentiles_are_samples_and_none_is_the_maximum_in_disguise() -> None:
    times = np.arange(1.0, 1002)
    found = outcome(Line(600, 2000), np.zeros(1001), times, times)
    assert (found.p50_ms, found.p99_ms, found.p999_ms) == (501, 991, 1000)
    few = outcome(Line(600, 2000), np.zeros(100), times[:100], times[:100])
    assert few.p50_ms == 50 and few.p99_ms == 99 and math.isnan(few.p999_ms)


def test_the_fastest_speed_is_found_where_arithmetic_says() -> None:
    """Two images of 20 ms must be done while the part moves half a pitch: 750 a minute."""
    line = Line(600, 50, pitch_mm=100, gate_mm=50, cameras=2)
    how = {"parts": 4000, "seed": 0, "max_miss_rate": 0.001}
    found = find_fastest(line, constant(20, 10_000), **how)
    assert found.fastest_shown == found.fastest_seen == pytest.approx(750, rel=1e-3)
    assert found.fastest_shown <= 750
    assert [speed for speed, _ in found.curve] == sorted(speed for speed, _ in found.curve)
    assert {at.missed for speed, at in found.curve if speed < 750} == {0}
    assert {at.missed for speed, at in found.curve if speed > 750} == {4000}
    line = replace(line, gate_mm=None)
    loose = find_fastest(line, constant(20, 10_000), **how)
    assert loose.fastest_shown == loose.capacity == pytest.approx(0.95 * 1500)
    assert math.isnan(find_fastest(line, constant(2000), **how).fastest_seen)


def test_a_short_recording_promises_nothing() -> None:
    line = Line(600, 50)
    found = find_fastest(line, constant(20, 200), parts=4000, seed=0, max_miss_rate=0.001)
    assert math.isnan(found.fastest_shown)
    assert found.fastest_seen == found.capacity


def test_the_promised_speed_is_kept_by_other_times_of_the_same_kind() -> None:
    random = np.random.default_rng(0)
    line = Line(600, 60, jitter=0.05)
    measured = Recording("test", (random.gamma(20, 1, 10_000),))
    how = {"parts": 10_000, "seed": 0, "max_miss_rate": 0.002}
    speed = find_fastest(line, measured, **how).fastest_shown
    later = Recording("test", (random.gamma(20, 1, 50_000),))
    assert replay(line.at(speed), later, parts=50_000, seed=1).miss_rate < 0.002
    assert replay(line.at(1.2 * speed), later, parts=50_000, seed=1).miss_rate > 0.002


def test_a_result_is_json_and_can_be_replayed(tmp_path: Path) -> None:
    line = Line(3000, 50, cameras=2, buffer=0)
    found = replay(line, constant(20), parts=10, seed=0)
    search = find_fastest(line, constant(20), parts=10, seed=0, max_miss_rate=0.001)
    fields = {**run_fields(line, found, 0.001), **search_fields(search)}
    text = json.dumps(fields, allow_nan=False)
    assert fields["outcome"]["p50_ms"] is None
    assert fields["time_to_verdict_ms"] == [None] * 10
    path = tmp_path / "result.json"
    path.write_text(json.dumps({**json.loads(text), "service_ms": [1, None, 2, 3]}))
    again = read_recording(path)
    assert again.service_ms.tolist() == [1, 2, 3]
    assert again.idle and again.processes == 1
    stops = {"go_parts": 1, "cameras": 2}
    path.write_text(json.dumps({"line": stops, "service_ms": [1, 2, None, None, 5, None]}))
    assert [times.tolist() for times in read_recording(path).stretches] == [[1, 2], [5]]


def test_a_benchmark_is_replayed_from_file_to_verdict(tmp_path: Path) -> None:
    def measurement(model: str, batch_size: int, samples: list[float]) -> dict[str, object]:
        series = {"end_to_end": {"samples_ms": samples}, "call": {"samples_ms": [0.1]}}
        where = {"backend": "openvino", "device": "cpu", "batch_size": batch_size}
        return {"model": model, **where, **series}

    path = tmp_path / "benchmark.json"
    rows = [measurement("a.onnx", 1, [1, 2]), measurement("a.onnx", 8, [9])]
    path.write_text(json.dumps({"kind": "benchmark", "measurements": rows}))
    found = read_recording(path)
    assert found.service_ms.tolist() == [1, 2]
    assert not found.idle
    rows.append(measurement("b.onnx", 1, [3]))
    path.write_text(json.dumps({"kind": "benchmark", "measurements": rows}))
    with pytest.raises(DataError, match=r"holds 2 such measurements.*--model"):
        read_recording(path)
    assert read_recording(path, model="b.onnx").service_ms.tolist() == [3]
    with pytest.raises(DataError, match="holds 0"):
        read_recording(path, backend="torch")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[1, 2]",
        "{}",
        '{"service_ms": []}',
        '{"service_ms": [null]}',
        '{"service_ms": 3}',
        '{"service_ms": [[1]]}',
        '{"service_ms": ["a"]}',
        '{"service_ms": [1, -1]}',
        '{"service_ms": [1, Infinity]}',
        '{"service_ms": [1], "line": 3}',
        '{"kind": "benchmark"}',
    ],
)
def test_what_is_no_recording_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "odd.json"
    path.write_text(text)
    with pytest.raises(DataError, match=r"odd\.json: holds .*service"):
        read_recording(path)
    with pytest.raises(DataError, match="cannot be read"):
        read_recording(tmp_path / "nothing.json")
