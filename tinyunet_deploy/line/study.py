"""A study of a line: does a model keep up with the belt, and how fast may the belt run?"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from tinyunet_deploy.errors import GateFailed
from tinyunet_deploy.files import json_value
from tinyunet_deploy.line.belt import Belt, Times
from tinyunet_deploy.line.outcome import CONFIDENCE, BeltOutcome, parts_to_show
from tinyunet_deploy.line.recording import Recording
from tinyunet_deploy.line.simulation import replay
from tinyunet_deploy.line.speed_search import (
    MOST_PROCESSES,
    SearchSettings,
    SpeedSearch,
    find_fastest,
    processes_needed,
)
from tinyunet_deploy.line.station import Station
from tinyunet_deploy.line.verification import RunBelt, run_trial, verify_prediction
from tinyunet_deploy.line.wording import per_minute, percent

__all__ = ["FORMULAS", "LineStudy", "study_live", "study_recording"]

FORMULAS: Final = {
    "missed": "parts with an image that had no verdict at the deadline, dropped or late",
    "time_to_verdict": "from the trigger, by the clock of the belt, to the verdict on the part's "
    "last image; percentiles by nearest rank over all parts, null if the part of that rank was "
    "dropped, or has no part above it among those that were measured",
    "miss_rate_bound": "Clopper-Pearson one-sided upper bound; a run of misses counts as one event "
    "(runs declustering, Smith & Weissman 1994), and a replay as no more parts than were recorded",
    "busy": "time in service / (processes x time from the first trigger to the last verdict)",
    "verified": "the last live run at a predicted speed; a speed that is kept after a faster one "
    "was not is run again, and its first run stands under kept_once, for it chose the speed",
    "fastest": "the fastest speed up to which every simulated speed keeps the allowed miss rate; "
    "never above the speed at which processes are busy for 0.95 of the time",
}
"""Figure -> how it is computed."""


@dataclass(frozen=True)
class LineStudy:
    """The runs of a belt, and the speeds that their service times predict."""

    title: str
    """Model and backend, or the recording, in words."""
    facts: dict[str, Any]
    """Facts that a result records about the model and the machine, or about the recording."""
    settings: SearchSettings
    runs: tuple[tuple[Belt, BeltOutcome], ...]
    """The run at the requested speed, then the runs at predicted speeds, if those were verified."""
    recording: Recording
    """Service times that the last predicted speed rests on."""
    search: SpeedSearch
    processes_needed: int | None
    """Fewest processes that keep the miss rate at the requested speed; None if more than
    :data:`~tinyunet_deploy.line.speed_search.MOST_PROCESSES` would be needed."""

    def keeps(self, outcome: BeltOutcome) -> bool:
        """Return whether a run kept the allowed miss rate."""
        return outcome.miss_rate <= self.settings.max_miss_rate

    def require_kept(self, *, predicted: bool = False) -> None:
        """Check that the requested speed, and the last predicted speed, keep the allowed miss rate.

        Args:
            predicted: whether a predicted speed must have been run.

        Raises:
            GateFailed: a run does not, or no speed is predicted to keep it.
        """
        for belt, outcome in (self.runs[0], self.runs[-1]):
            if not self.keeps(outcome):
                raise GateFailed(
                    per_minute(belt.parts_per_minute),
                    f"{outcome.missed} of {outcome.parts} parts reach the gate without a verdict, "
                    f"{percent(outcome.miss_rate)}",
                    f"{percent(self.settings.max_miss_rate)} allowed",
                )
        if predicted and len(self.runs) == 1:
            allowed = percent(self.settings.max_miss_rate)
            raise GateFailed(self.recording.source, f"no speed keeps a miss rate of {allowed}")

    def as_json(self) -> str:
        """Return the text of the result file, one line."""
        first_ms, others_ms = self.recording.medians_ms()
        first, *predicted = (self._run_fields(belt, outcome) for belt, outcome in self.runs)
        search = self.search
        curve = [{"parts_per_minute": speed, **at.figures()} for speed, at in search.curve]
        fields = {
            "schema_version": 1,
            "kind": "line-sim",
            **self.facts,
            "seed": self.settings.seed,
            "max_miss_rate": self.settings.max_miss_rate,
            "confidence": CONFIDENCE,
            **first,
            "fastest_shown_parts_per_minute": search.fastest_shown,
            "fastest_seen_parts_per_minute": search.fastest_seen,
            "capacity_parts_per_minute": search.capacity,
            "curve": curve,
            "processes_needed": self.processes_needed,
            "service_p50_ms": {"first_after_stop": first_ms, "others": others_ms},
            "verified": predicted[-1] if predicted else None,
            "not_kept": [run for run in predicted[:-1] if not run["kept"]],
            "kept_once": [run for run in predicted[:-1] if run["kept"]],
            "formulas": FORMULAS,
        }
        return json.dumps(json_value(fields), allow_nan=False) + "\n"

    def _run_fields(self, belt: Belt, outcome: BeltOutcome) -> dict[str, Any]:
        return {
            "line": {**asdict(belt), "speed_mm_s": belt.speed_mm_s},
            "kept": self.keeps(outcome),
            "shown": outcome.miss_rate_bound <= self.settings.max_miss_rate,
            "outcome": outcome.figures(),
            "time_to_verdict_ms": _times_field(outcome.time_to_verdict_ms),
        }

    def conclusion(self) -> str:
        """Return the answer to both questions, in sentences."""
        belt, outcome = self.runs[0]
        speed = per_minute(belt.parts_per_minute)
        missed = f"At {speed} {outcome.missed:,} of {outcome.parts:,} parts reach the gate without "
        return f"{missed}a verdict: {self._at_asked_speed(belt, outcome)} {self._fastest()}"

    def _at_asked_speed(self, belt: Belt, outcome: BeltOutcome) -> str:
        allowed, needed = percent(self.settings.max_miss_rate), self.processes_needed
        if not self.keeps(outcome):
            text = f"more than the {allowed} allowed."
            if needed is None:
                text += f" Not even {MOST_PROCESSES} processes as fast as this would be enough."
            elif needed > belt.processes:
                text += f" It takes {needed} processes, if each is as fast as recorded."
            return text
        if outcome.miss_rate_bound > self.settings.max_miss_rate:
            bound = percent(outcome.miss_rate_bound)
            return f"within the {allowed} allowed, but only shown to be below {bound}."
        text = f"within the {allowed} allowed."
        if needed is not None and needed < belt.processes:
            text += f" As few as {needed} of these processes would be enough."
        return text

    def _fastest(self) -> str:
        search, max_miss_rate = self.search, self.settings.max_miss_rate
        if not math.isnan(search.fastest_shown):
            return f"The belt may run at {per_minute(search.fastest_shown)}."
        if math.isnan(search.fastest_seen):
            return "No speed keeps the allowed miss rate."
        images = len(self.recording.service_ms)
        text = f"{images:,} recorded images are too few to promise a speed"
        if max_miss_rate:
            text += f" (no miss in {parts_to_show(max_miss_rate):,} parts would promise one)"
        return f"{text}; they would keep up with {per_minute(search.fastest_seen)}."


def study_recording(belt: Belt, recording: Recording, settings: SearchSettings) -> LineStudy:
    """Simulate a belt on recorded service times."""
    images = len(recording.service_ms)
    outcome = replay(belt, recording, parts=settings.parts, seed=settings.seed)
    return LineStudy(
        title=f"{images} service times of {recording.source}, replayed",
        facts={"mode": "replay", "replayed": recording.source, "recorded_images": images},
        settings=settings,
        runs=((belt, outcome),),
        recording=recording,
        search=find_fastest(belt, recording, settings),
        processes_needed=processes_needed(belt, recording, settings),
    )


def study_live(
    station: Station,
    run_belt: RunBelt,
    belt: Belt,
    settings: SearchSettings,
    *,
    source: str,
    seconds: float,
    verify_s: float | None = None,
) -> LineStudy:
    """Run a belt live, and verify the predicted speeds if wanted.

    Args:
        station: the model that ``run_belt`` runs.
        source: origin of the images, for messages.
        seconds: length of the run at the requested speed.
        verify_s: length of each run at a predicted speed; None runs none.

    Raises:
        RefusedError: no image has a verdict, or there are too few parts to predict a speed.
    """
    trials = [run_trial(run_belt, belt, seconds, source, settings)]
    if verify_s:
        trials += verify_prediction(run_belt, trials[0], verify_s, settings)
    before = (trial for trial in reversed(trials) if trial.belt != trials[-1].belt)
    basis = next(before, trials[0])
    return LineStudy(
        title=_live_title(station.facts, seconds),
        facts={
            "mode": "live",
            **station.facts,
            "recorded_parts_per_minute": basis.belt.parts_per_minute,
            "service_ms": _times_field(basis.run.service_ms),
            "largest_lateness_ms": basis.run.largest_lateness_ms,
        },
        settings=settings,
        runs=tuple((trial.belt, trial.run.outcome) for trial in trials),
        recording=basis.recording,
        search=basis.search,
        processes_needed=processes_needed(belt, basis.recording, settings),
    )


def _live_title(facts: Mapping[str, Any], seconds: float) -> str:
    title = f"{facts['model']} on {facts['backend']}, live for {seconds:g} s"
    tiles = facts.get("inputs_per_image", 1)
    return title if tiles == 1 else f"{title}; an image is {tiles:.3g} tiles on average"


def _times_field(times: Times) -> list[float | None]:
    """Return milliseconds as a JSON list, null for one that is not finite."""
    return [round(time, 4) if math.isfinite(time) else None for time in times.tolist()]
