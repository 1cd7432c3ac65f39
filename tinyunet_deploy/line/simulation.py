"""An inspection line in simulation: parts pass at the belt's pace, whether or not there is time.

The model is a queue. Every part triggers ``cameras`` images at one instant; a bounded buffer holds
them, first come first served, for ``processes`` that take one image at a time. A part whose images
are not all judged when it passes the reject gate is missed. Arrivals are open-loop: they never
wait for an answer, so that a slow image delays those behind it as it would on the line. All is
deterministic for a seed.
"""

from __future__ import annotations

import heapq
import itertools
import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from tinyunet_deploy.errors import DataError
from tinyunet_deploy.files import json_value, read_regular
from tinyunet_deploy.quality.confidence import clopper_pearson_upper

Times = NDArray[np.float64]
"""float64 [n]: milliseconds."""

CONFIDENCE: Final = 0.95
"""Of the one-sided upper bound of a miss rate."""
BUSIEST: Final = 0.95
"""Share of its time that a process may work: nearer to 1 a queue takes so long to find its length
that no recording shows it."""
MOST_PROCESSES: Final = 8
"""Up to which :func:`processes_needed` looks."""
_ROUNDING_MS: Final = 1e-6
_GRID: Final = 24
_BISECTIONS: Final = 12

FORMULAS: Final = {
    "missed": "parts with an image that had no verdict when the deadline was over, dropped or late",
    "time_to_verdict": "from the trigger, by the clock of the belt, to the verdict on the part's "
    "last image; percentiles by nearest rank over all parts, null where the part of that rank was "
    "dropped or none is above it",
    "miss_rate_bound": "Clopper-Pearson one-sided upper bound; a run of misses counts as one event "
    "(runs declustering, Smith & Weissman 1994), and a replay as no more parts than were recorded",
    "busy": "time in service / (processes x time from the first trigger to the last verdict)",
    "fastest": "the fastest speed up to which every simulated speed keeps the allowed miss rate; "
    "never above the speed at which processes are busy for 0.95 of the time",
}
"""Figure -> how it is computed."""


@dataclass(frozen=True)
class Line:
    """A belt and the station beside it."""

    parts_per_minute: float
    """While the belt runs."""
    deadline_ms: float
    """From the trigger of a part to the reject gate, at this speed."""
    pitch_mm: float | None = None
    """From part to part, where it is known."""
    gate_mm: float | None = None
    """From camera to gate, where that is what is fixed: a faster belt then leaves less time."""
    cameras: int = 1
    """Images of every part, all triggered at once."""
    processes: int = 1
    """That take images, one at a time each, from one buffer."""
    buffer: int = 8
    """Images that can wait; one that finds no place is dropped."""
    jitter: float = 0.0
    """Standard deviation of a part's place, in pitches: encoder and feeding."""
    go_parts: int | None = None
    """Parts after which the belt stops; None if it never does."""
    stop_ms: float = 0.0
    """How long it stops."""

    @property
    def speed_mm_s(self) -> float:
        """Belt speed; NaN if the pitch is not known."""
        return math.nan if self.pitch_mm is None else self.parts_per_minute * self.pitch_mm / 60

    def at(self, parts_per_minute: float) -> Line:
        """The same line at another speed. The stops stay as long as they are."""
        deadline_ms = self.deadline_ms
        if self.gate_mm is not None:
            deadline_ms *= self.parts_per_minute / parts_per_minute
        return replace(self, parts_per_minute=parts_per_minute, deadline_ms=deadline_ms)

    def parts_in(self, seconds: float) -> int:
        """Parts that pass in a time, on average and at least one."""
        part_ms = 60_000 / self.parts_per_minute
        if self.go_parts:
            part_ms += self.stop_ms / self.go_parts
        return max(1, int(seconds * 1e3 / part_ms))


def triggers_ms(line: Line, parts: int, seed: int) -> Times:
    """When each part triggers, [parts], from 0 on and never decreasing.

    The parts lie at the same places, in pitches, whatever the speed of the belt is.
    """
    random = np.random.default_rng((seed, 0))
    place = np.arange(parts) + line.jitter * random.standard_normal(parts)
    place = np.maximum.accumulate(place)
    trigger_ms: Times = (place - place[0]) * (60_000 / line.parts_per_minute)
    if line.go_parts:
        trigger_ms += np.arange(parts) // line.go_parts * line.stop_ms
    return trigger_ms


def simulate(trigger_ms: Times, service_ms: Times, *, processes: int, buffer: int) -> Times:
    """Serve images in the order of their triggers.

    Args:
        trigger_ms: [images], never decreasing.
        service_ms: [images]; that of an image which is dropped is not used.
        processes: images in service at most.
        buffer: images waiting at most.

    Returns:
        [images]: when each was judged; NaN if it was dropped.
    """
    judged = np.full(len(trigger_ms), np.nan)
    free = [-math.inf] * processes
    present: list[float] = []
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
        judged[image] = end
    return judged


@dataclass(frozen=True)
class Outcome:
    """What became of the parts. Each figure by its entry in :data:`FORMULAS`."""

    parts: int
    missed: int
    dropped: int
    """Those of them with an image that found the buffer full."""
    longest_run: int
    """Of parts missed one after another."""
    miss_rate: float
    miss_rate_bound: float
    """The true rate is below it with :data:`CONFIDENCE`."""
    p50_ms: float
    """Infinite where that part has no verdict, NaN where there are too few parts for it."""
    p99_ms: float
    p999_ms: float
    busy: float
    time_to_verdict_ms: Times
    """[parts]; NaN if dropped, infinite if there never was a verdict."""

    def figures(self) -> dict[str, Any]:
        """The figures without the times."""
        fields = asdict(self)
        del fields["time_to_verdict_ms"]
        return {
            name: math.nan if isinstance(value, float) and math.isinf(value) else value
            for name, value in fields.items()
        }


def outcome(
    line: Line,
    trigger_ms: Times,
    service_ms: Times,
    judged_ms: Times,
    *,
    recorded: int | None = None,
) -> Outcome:
    """Count what became of the parts.

    Args:
        trigger_ms: [parts].
        service_ms, judged_ms: [parts x cameras], part by part; judged is NaN if dropped, infinite
            if there never was a verdict.
        recorded: images whose service times were recorded, if they are replayed.
    """
    parts = len(trigger_ms)
    time_ms = judged_ms.reshape(parts, line.cameras).max(axis=1) - trigger_ms
    missed = ~(time_ms <= line.deadline_ms + _ROUNDING_MS)
    runs = _runs(missed)
    evidence = parts if recorded is None else min(parts, recorded // line.cameras)
    trials = max(1, int(evidence * len(runs) / missed.sum())) if runs else max(1, evidence)
    events = min(trials, math.ceil(missed.mean() * trials - 1e-9))
    served = np.isfinite(judged_ms)
    span_ms = float(judged_ms[served].max()) if served.any() else math.nan
    ranked = np.sort(np.where(np.isnan(time_ms), np.inf, time_ms)).tolist()
    ranks = (-(-thousandths * parts // 1000) for thousandths in (500, 990, 999))
    p50, p99, p999 = (ranked[rank - 1] if rank < parts else math.nan for rank in ranks)
    return Outcome(
        parts=parts,
        missed=int(missed.sum()),
        dropped=int(np.isnan(time_ms).sum()),
        longest_run=max(runs, default=0),
        miss_rate=float(missed.mean()),
        miss_rate_bound=clopper_pearson_upper(events, trials, CONFIDENCE) if trials else 1.0,
        p50_ms=p50,
        p99_ms=p99,
        p999_ms=p999,
        busy=float(service_ms[served].sum()) / (line.processes * span_ms),
        time_to_verdict_ms=time_ms,
    )


def _runs(flags: NDArray[np.bool_]) -> list[int]:
    """Lengths of the runs of True."""
    edges = np.flatnonzero(np.diff(np.concatenate(([False], flags, [False]))))
    return [int(length) for length in edges[1::2] - edges[::2]]


def parts_to_show(miss_rate: float, confidence: float = CONFIDENCE) -> float:
    """Parts of which none may be missed, so that the bound is the miss rate; infinite for 0."""
    if miss_rate <= 0:
        return math.inf
    return math.ceil(math.log(1 - confidence) / math.log1p(-miss_rate)) if miss_rate < 1 else 1


@dataclass(frozen=True)
class Recording:
    """Service times in the order in which they were measured."""

    source: str
    stretches: tuple[Times, ...]
    """Each from one stop of the belt to the next; one stretch if it never stopped."""
    processes: int | None = None
    """That ran side by side; None if it is not known."""
    idle: bool = False
    """Whether there were pauses between images, as there are on a line."""

    @property
    def service_ms(self) -> Times:
        """All of them."""
        return np.concatenate(self.stretches)

    def medians_ms(self) -> tuple[float, float]:
        """Of the first images after a stop and of all others; NaN where there is none."""
        first = [times[0] for times in self.stretches[1:]]
        others = np.concatenate([self.stretches[0], *(times[1:] for times in self.stretches[1:])])
        return _median(first), _median(others)


def _median(times: Sequence[float] | Times) -> float:
    return float(np.median(times)) if len(times) else math.nan


def draw_services_ms(recording: Recording, line: Line, images: int, seed: int) -> Times:
    """Service times for any number of images, [images], that follow each other as recorded.

    Slow images come in groups (another program runs, a clock drops), and it is groups that fill a
    buffer: shuffled one by one, the same times would look harmless. So blocks of consecutive
    times are replayed: Künsch 1989, "The jackknife and the bootstrap for general stationary
    observations". The recording is closed to a circle, so that the ends count as the middle does
    (Politis & Romano 1992), and every time is used equally often (balanced, Davison, Hinkley &
    Schechtman 1986); blocks are 4 n^(1/3) long, n^(1/3) being the order of the best length (Hall,
    Horowitz & Jing 1995).

    Where recording and line both stop and go, every stretch between two stops begins as a
    recorded stretch did, so that what is slow after a pause is slow there.
    """
    random = np.random.default_rng((seed, 1))
    times = itertools.chain.from_iterable(_blocks(recording.service_ms, random))
    if not line.go_parts or len(recording.stretches) == 1:
        return np.fromiter(itertools.islice(times, images), np.float64, images)
    drawn: list[float] = []
    stretch = line.go_parts * line.cameras
    while len(drawn) < images:
        opening = recording.stretches[int(random.integers(len(recording.stretches)))][:stretch]
        drawn.extend(opening.tolist())
        drawn.extend(itertools.islice(times, stretch - len(opening)))
    return np.array(drawn[:images])


def _blocks(recorded: Times, random: np.random.Generator) -> Iterator[list[float]]:
    """Blocks of consecutive times, without end."""
    length = math.ceil(4 * len(recorded) ** (1 / 3))
    while True:
        circle = np.roll(recorded, random.integers(len(recorded)))
        blocks = np.array_split(circle, -(-len(circle) // length))
        for block in random.permutation(len(blocks)):
            yield blocks[block].tolist()


def replay(line: Line, recording: Recording, *, parts: int, seed: int) -> Outcome:
    """Simulate a line on recorded service times."""
    service_ms = draw_services_ms(recording, line, parts * line.cameras, seed)
    return _pass(line, service_ms, parts, seed, len(recording.service_ms))


def _pass(line: Line, service_ms: Times, parts: int, seed: int, recorded: int) -> Outcome:
    trigger_ms = triggers_ms(line, parts, seed)
    judged_ms = simulate(
        np.repeat(trigger_ms, line.cameras),
        service_ms,
        processes=line.processes,
        buffer=line.buffer,
    )
    return outcome(line, trigger_ms, service_ms, judged_ms, recorded=recorded)


@dataclass(frozen=True)
class Search:
    """How fast the belt may run, parts per minute; NaN where no speed will do."""

    fastest_shown: float
    """The upper bound of the miss rate is within what is allowed."""
    fastest_seen: float
    """The miss rate itself is; how sure that is, is not asked."""
    capacity: float
    """Above it the station has no time in reserve, see :data:`BUSIEST`: no speed is tried there."""
    curve: list[tuple[float, Outcome]]
    """Speeds from slow to fast, and what becomes of the parts."""


def find_fastest(
    line: Line, recording: Recording, *, parts: int, seed: int, max_miss_rate: float
) -> Search:
    """The fastest speed that keeps a miss rate, by bisection over speeds.

    Every speed is tried on the same places of parts and the same service times.
    """
    service_ms = draw_services_ms(recording, line, parts * line.cameras, seed)
    recorded = len(recording.service_ms)

    def at(speed: float) -> Outcome:
        return _pass(line.at(speed), service_ms, parts, seed, recorded)

    capacity = _capacity(line, float(recording.service_ms.mean()))
    curve = [(float(speed), at(speed)) for speed in np.linspace(0, capacity, _GRID + 1)[1:]]

    def edge(keeps: Callable[[Outcome], bool]) -> float:
        fast = math.nan
        for speed, found in curve:
            if not keeps(found):
                break
            fast = speed
        else:
            return capacity
        if math.isnan(fast):
            return fast
        for _ in range(_BISECTIONS):
            middle = (fast + speed) / 2
            if keeps(at(middle)):
                fast = middle
            else:
                speed = middle
        return fast

    return Search(
        fastest_shown=edge(lambda found: found.miss_rate_bound <= max_miss_rate),
        fastest_seen=edge(lambda found: found.miss_rate <= max_miss_rate),
        capacity=capacity,
        curve=curve,
    )


def _capacity(line: Line, mean_ms: float) -> float:
    """Parts per minute at which processes are busy for :data:`BUSIEST` of the time.

    Stops give time to catch up, for up to ten times the speed.
    """
    part_ms = line.cameras * mean_ms / (line.processes * BUSIEST)
    going_ms = part_ms - (line.stop_ms / line.go_parts if line.go_parts else 0.0)
    return 60_000 / max(going_ms, part_ms / 10)


def processes_needed(
    line: Line, recording: Recording, *, parts: int, seed: int, max_miss_rate: float
) -> int | None:
    """Fewest processes that keep the miss rate, if each were as fast as those recorded.

    None if more than :data:`MOST_PROCESSES`. Processes that share a processor are not as fast:
    only a live run with as many of them can tell.
    """
    for processes in range(1, MOST_PROCESSES + 1):
        found = replay(replace(line, processes=processes), recording, parts=parts, seed=seed)
        if found.miss_rate <= max_miss_rate:
            return processes
    return None


def read_recording(
    path: Path,
    *,
    model: str | None = None,
    backend: str | None = None,
    device: str | None = None,
) -> Recording:
    """Service times from a result of ``line-sim`` or ``benchmark``, or any JSON with service_ms.

    ``service_ms`` is a list of milliseconds, null for an image that was dropped. Of a benchmark
    it is the time from file to verdict of one image at a time, which is longer than what a camera
    asks for by reading and decoding.

    Args:
        model, backend, device: file name of the model, and where it ran: which measurement of a
            benchmark, if there are several.

    Raises:
        DataError: missing, no such JSON, no usable time in it, or not one measurement.
    """
    hint = "a result of tinyunet line-sim or benchmark, or JSON with a list service_ms"
    line: dict[str, Any] = {}
    source = str(path)
    try:
        fields = json.loads(read_regular(path))
        if fields.get("kind") == "benchmark":
            wanted = {"model": model, "backend": backend, "device": device, "batch_size": 1}
            chosen = {name: value for name, value in wanted.items() if value is not None}
            found = [each for each in fields["measurements"] if chosen.items() <= each.items()]
            if len(found) != 1:
                raise DataError(
                    path,
                    f"holds {len(found)} such measurements of one image at a time",
                    "say which one with --model, --backend and --device",
                )
            source += f" ({found[0]['model']} on {found[0]['backend']}, file to verdict)"
            times = np.array(found[0]["end_to_end"]["samples_ms"], np.float64)
        else:
            line = fields.get("line", {})
            times = np.array(fields["service_ms"], np.float64)
        stretch = (line.get("go_parts") or 0) * line.get("cameras", 1) or max(1, len(times))
        pieces = [times[at : at + stretch] for at in range(0, len(times), stretch)]
        processes = line.get("processes")
    except OSError as error:
        raise DataError(path, f"cannot be read: {error.strerror}") from error
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise DataError(path, "holds no service times", hint) from error
    if times.ndim != 1 or np.isinf(times).any() or (times <= 0).any():
        raise DataError(path, "holds service times that are no positive milliseconds", hint)
    stretches = tuple(piece[~np.isnan(piece)] for piece in pieces)
    stretches = tuple(piece for piece in stretches if len(piece))
    if not stretches:
        raise DataError(path, "holds no service times", hint)
    return Recording(source, stretches, processes, idle=bool(line))


def run_fields(line: Line, found: Outcome, max_miss_rate: float) -> dict[str, Any]:
    """A run as JSON fields."""
    fields: dict[str, Any] = json_value(
        {
            "line": {**asdict(line), "speed_mm_s": line.speed_mm_s},
            "kept": found.miss_rate <= max_miss_rate,
            "shown": found.miss_rate_bound <= max_miss_rate,
            "outcome": found.figures(),
            "time_to_verdict_ms": times_field(found.time_to_verdict_ms),
        }
    )
    return fields


def search_fields(search: Search) -> dict[str, Any]:
    """What was found about other speeds as JSON fields: the data of a curve among them."""
    curve = [{"parts_per_minute": speed, **at.figures()} for speed, at in search.curve]
    fields: dict[str, Any] = json_value(
        {
            "fastest_shown_parts_per_minute": search.fastest_shown,
            "fastest_seen_parts_per_minute": search.fastest_seen,
            "capacity_parts_per_minute": search.capacity,
            "curve": curve,
        }
    )
    return fields


def times_field(times: Times) -> list[float | None]:
    """Milliseconds as a JSON list, null where there is none or where it is infinite."""
    return [round(time, 4) if math.isfinite(time) else None for time in times.tolist()]
