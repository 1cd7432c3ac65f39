"""Verification: run the belt live at the predicted speed, and lower a prediction that fails.

A speed that holds after another did not was chosen among several, perhaps by luck. It is run once
more, and only that run, which chose nothing, shows that it holds.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from tinyunet_deploy.errors import RefusedError
from tinyunet_deploy.line.belt import Belt
from tinyunet_deploy.line.live import LiveRun
from tinyunet_deploy.line.outcome import parts_to_show
from tinyunet_deploy.line.recording import Recording
from tinyunet_deploy.line.speed_search import SearchSettings, SpeedSearch, find_fastest
from tinyunet_deploy.line.wording import percent

__all__ = ["MOST_TRIES", "LiveTrial", "RunBelt", "run_trial", "verify_prediction"]

MOST_TRIES: Final = 3
"""Largest number of predicted speeds that are tried live."""

RunBelt = Callable[[Belt, float, int], LiveRun]
"""Function that takes a belt, a time in seconds and a seed, and lets parts pass live for that
time."""


@dataclass(frozen=True)
class LiveTrial:
    """A live run at one speed, and what its service times predict for other speeds."""

    belt: Belt
    run: LiveRun
    recording: Recording
    search: SpeedSearch


def run_trial(
    run_belt: RunBelt, belt: Belt, seconds: float, source: str, settings: SearchSettings
) -> LiveTrial:
    """Run a belt live and search for the fastest speed by its service times.

    Args:
        source: origin of the images, for messages.

    Raises:
        RefusedError: no image has a verdict.
    """
    run = run_belt(belt, seconds, settings.seed)
    recording = run.recording(belt, source)
    return LiveTrial(belt, run, recording, find_fastest(belt, recording, settings))


def verify_prediction(
    run_belt: RunBelt, first: LiveTrial, seconds: float, settings: SearchSettings
) -> Iterator[LiveTrial]:
    """Run the belt at the speed that a trial predicts; if that fails, at the speed it predicts.

    Yields:
        Each trial, until one keeps the miss rate, or fails and predicts no lower speed, or
        :data:`MOST_TRIES` speeds were tried. A speed that is kept after another was not is run
        again, and must be kept again. None if the first trial predicts that no speed is kept.

    Raises:
        RefusedError: the first trial has too few parts to predict a speed.
    """
    _require_enough(first, settings.max_miss_rate)
    speed = first.search.fastest_shown
    if math.isnan(speed):
        return
    for number in range(MOST_TRIES):
        for _ in range(1 if number == 0 else 2):
            settings = dataclasses.replace(settings, seed=settings.seed + 1)
            belt = first.belt.at(speed)
            trial = run_trial(run_belt, belt, seconds, first.recording.source, settings)
            yield trial
            kept = trial.run.outcome.miss_rate <= settings.max_miss_rate
            if not kept:
                break
        if kept or not trial.search.fastest_shown < speed:
            return
        speed = trial.search.fastest_shown


def _require_enough(trial: LiveTrial, max_miss_rate: float) -> None:
    recording, search = trial.recording, trial.search
    if not math.isnan(search.fastest_shown):
        return
    recorded, wanted = len(recording.service_ms) // trial.belt.cameras, parts_to_show(max_miss_rate)
    if recorded < wanted:
        raise RefusedError(
            recording.source,
            f"{recorded} recorded parts cannot show a miss rate of {percent(max_miss_rate)}",
            "--max-miss-rate above 0"
            if math.isinf(wanted)
            else f"it takes {wanted:,} parts: give more --seconds, or a larger --max-miss-rate",
        )
