from __future__ import annotations

import math

import numpy as np
import pytest

from tinyunet_deploy.line.belt import Belt
from tinyunet_deploy.line.outcome import count_outcome, parts_to_show
from tinyunet_deploy.quality.confidence import clopper_pearson_upper


def test_the_least_parts_that_can_show_a_miss_rate() -> None:
    assert parts_to_show(0.001) == 2995
    assert clopper_pearson_upper(0, 2995) <= 0.001 < clopper_pearson_upper(0, 2994)
    assert math.isinf(parts_to_show(0))


def bound(missed: list[int], *, recorded: int | None = None, cameras: int = 1) -> float:
    """Return the bound for 1000 parts, of which the given ones are missed."""
    trigger_ms = 100.0 * np.arange(1000)
    service_ms = np.full(1000, 10.0)
    service_ms[missed] = 60
    done = np.repeat(trigger_ms + service_ms, cameras)
    service_ms = np.repeat(service_ms, cameras)
    belt = Belt(600, 50, cameras=cameras)
    outcome = count_outcome(belt, trigger_ms, service_ms, done, recorded=recorded)
    return outcome.miss_rate_bound


def test_the_bound_counts_a_run_once_and_no_more_parts_than_were_recorded() -> None:
    assert bound([]) == clopper_pearson_upper(0, 1000)
    assert bound([100, 300, 500, 700]) == clopper_pearson_upper(4, 1000)
    assert (
        bound([100, 101, 102, 103])
        == clopper_pearson_upper(1, 250)
        > clopper_pearson_upper(4, 1000)
    )
    assert bound([], recorded=100) == clopper_pearson_upper(0, 100)
    assert bound([], recorded=100, cameras=2) == clopper_pearson_upper(0, 50)
    assert bound([100, 300, 500, 700], recorded=100) == clopper_pearson_upper(1, 100)
    assert bound(list(range(1000))) == 1


def test_percentiles_are_samples_and_none_is_the_maximum_in_disguise() -> None:
    times = np.arange(1.0, 1002)
    outcome = count_outcome(Belt(600, 2000), np.zeros(1001), times, times)
    assert (outcome.p50_ms, outcome.p99_ms, outcome.p999_ms) == (501, 991, 1000)
    few = count_outcome(Belt(600, 2000), np.zeros(100), times[:100], times[:100])
    assert few.p50_ms == 50 and few.p99_ms == 99 and math.isnan(few.p999_ms)


def test_a_replay_shows_the_percentiles_of_its_recording_and_no_others() -> None:
    times = np.tile(np.arange(1.0, 102), 100)
    belt, trigger_ms = Belt(600, 2000), np.zeros(len(times))
    replayed = count_outcome(belt, trigger_ms, times, times, recorded=101)
    assert (replayed.p50_ms, replayed.p99_ms) == (51, 100)
    assert math.isnan(replayed.p999_ms)
    few = count_outcome(belt, trigger_ms, times, times, recorded=8)
    assert few.p50_ms == 51 and math.isnan(few.p99_ms) and math.isnan(few.p999_ms)
    two = Belt(600, 2000, cameras=2)
    pairs = count_outcome(two, trigger_ms[::2], times, times, recorded=101)
    assert math.isnan(pairs.p99_ms), "50 parts"
    assert math.isnan(count_outcome(two, trigger_ms[::2], times, times, recorded=1).p50_ms)


def test_a_verdict_at_the_deadline_is_in_time_and_one_after_it_is_not() -> None:
    trigger_ms = np.array([0.0, 100, 200, 300])
    verdict_ms = trigger_ms + np.array([50, 50.001, np.nan, np.inf])
    outcome = count_outcome(Belt(600, 50), trigger_ms, np.full(4, 10.0), verdict_ms)
    assert (outcome.missed, outcome.dropped, outcome.longest_run) == (3, 1, 3)
    assert outcome.miss_rate == 0.75
    assert outcome.time_to_verdict_ms[:2] == pytest.approx([50, 50.001])


def test_a_part_waits_for_its_last_camera_and_busy_counts_every_process() -> None:
    belt = Belt(600, 50, cameras=2, processes=2)
    verdict_ms = np.array([10.0, 40, 130, 120])
    service_ms = np.array([10.0, 40, 30, 20])
    outcome = count_outcome(belt, np.array([0.0, 100]), service_ms, verdict_ms)
    assert outcome.time_to_verdict_ms.tolist() == [40, 30]
    assert outcome.busy == pytest.approx(100 / (2 * 130))


def test_misses_apart_are_counted_apart() -> None:
    verdict_ms = np.array([60.0, 60, 10, 60, 10])
    outcome = count_outcome(Belt(600, 50), np.zeros(5), np.full(5, 1.0), verdict_ms)
    assert (outcome.missed, outcome.longest_run) == (3, 2)


def test_figures_are_numbers_that_json_knows() -> None:
    times = np.full(3, np.nan)
    outcome = count_outcome(Belt(600, 50), np.zeros(3), np.ones(3), times)
    assert math.isinf(outcome.p50_ms)
    assert math.isnan(outcome.figures()["p50_ms"])
    assert "time_to_verdict_ms" not in outcome.figures()
