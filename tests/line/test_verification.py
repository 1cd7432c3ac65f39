"""Verification of predicted speeds, on runs whose service times a test writes down."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from tinyunet_deploy.errors import RefusedError
from tinyunet_deploy.line.belt import Belt, triggers_ms
from tinyunet_deploy.line.live import LiveRun
from tinyunet_deploy.line.outcome import count_outcome
from tinyunet_deploy.line.simulation import simulate
from tinyunet_deploy.line.speed_search import SearchSettings
from tinyunet_deploy.line.verification import (
    MOST_TRIES,
    LiveTrial,
    RunBelt,
    run_trial,
    verify_prediction,
)

BELT = Belt(600, deadline_ms=200, buffer=4)
SETTINGS = SearchSettings(parts=500, seed=7, max_miss_rate=0.05)


def station(*service_ms: float) -> tuple[RunBelt, list[tuple[Belt, int]]]:
    """Make a station whose images take so many ms in the first, second, ... run.

    Args:
        service_ms: of every image of a run; the last also in all later runs.

    Returns:
        The station, and the list in which it notes belt and seed of every run.
    """
    runs: list[tuple[Belt, int]] = []

    def run(belt: Belt, seconds: float, seed: int) -> LiveRun:
        parts = belt.parts_in(seconds)
        trigger_ms = triggers_ms(belt, parts, seed)
        times = np.full(parts, float(service_ms[min(len(runs), len(service_ms) - 1)]))
        verdict_ms = simulate(trigger_ms, times, processes=1, buffer=belt.buffer)
        runs.append((belt, seed))
        return LiveRun(count_outcome(belt, trigger_ms, times, verdict_ms), times, 0.0)

    return run, runs


def verify(run: RunBelt, settings: SearchSettings = SETTINGS) -> Sequence[LiveTrial]:
    first = run_trial(run, BELT, 60, "photos", settings)
    return list(verify_prediction(run, first, 60, settings))


def test_a_prediction_that_holds_needs_one_trial_with_another_seed() -> None:
    run, runs = station(20)
    (trial,) = verify(run)
    assert trial.belt.parts_per_minute == pytest.approx(0.95 * 3000)
    assert trial.run.outcome.missed == 0
    assert [seed for _, seed in runs] == [7, 8]


def test_a_prediction_that_fails_is_lowered_to_what_its_own_times_predict() -> None:
    run, runs = station(20, 40)
    failed, lowered, again = verify(run)
    assert failed.run.outcome.miss_rate > SETTINGS.max_miss_rate
    assert failed.belt.parts_per_minute == pytest.approx(0.95 * 3000)
    assert lowered.belt.parts_per_minute == failed.search.fastest_shown
    assert lowered.belt.parts_per_minute == pytest.approx(0.95 * 1500)
    assert lowered.run.outcome.missed == 0
    assert again.belt == lowered.belt
    assert again.run.outcome.missed == 0
    assert [seed for _, seed in runs] == [7, 8, 9, 10]


def test_a_lower_speed_that_holds_only_once_does_not_hold() -> None:
    run, _ = station(20, 40, 40, 80)
    failed, lucky, unlucky, slower, again = verify(run)
    misses = [trial.run.outcome.missed > 0 for trial in (failed, lucky, unlucky)]
    assert misses == [True, False, True]
    assert lucky.belt == unlucky.belt
    assert slower.belt.parts_per_minute == unlucky.search.fastest_shown
    assert slower.belt.parts_per_minute < lucky.belt.parts_per_minute
    assert (again.belt, again.run.outcome.missed) == (slower.belt, 0)


def test_no_more_speeds_are_tried_than_allowed() -> None:
    run, _ = station(20, 40, 80, 160, 160)
    trials = verify(run)
    assert len(trials) == MOST_TRIES == 3
    speeds = [trial.belt.parts_per_minute for trial in trials]
    assert speeds == sorted(speeds, reverse=True)
    assert trials[-1].run.outcome.miss_rate > SETTINGS.max_miss_rate


def test_a_failed_trial_that_predicts_no_lower_speed_is_the_last() -> None:
    run, _ = station(20, 500)
    (trial,) = verify(run)
    assert np.isnan(trial.search.fastest_shown)
    assert trial.run.outcome.miss_rate > SETTINGS.max_miss_rate


def test_too_few_parts_or_no_speed_at_all_is_an_error() -> None:
    run, _ = station(20)
    few = SearchSettings(500, 0, 0.001)
    with pytest.raises(
        RefusedError, match=r"600 recorded parts cannot .* 0\.1 % .*2,995 parts: give more"
    ):
        verify(run, few)
    with pytest.raises(RefusedError, match=r"--max-miss-rate above 0"):
        verify(run, SearchSettings(500, 0, 0.0))
    assert verify(station(500)[0]) == []
