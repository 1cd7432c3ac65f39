"""``tinyunet line-sim``: whether a model keeps up with a belt, and how fast the belt may run."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from tinyunet_deploy.cli.options import artifact_options, debug_option, format_option

if TYPE_CHECKING:
    from tinyunet_deploy.line.live import LiveRun, Station
    from tinyunet_deploy.line.simulation import Line, Outcome, Recording, Search

_LATE_MS = 5.0
"""A trigger that is later than this is told."""
_MOST_TRIES = 3
"""Predicted speeds that are tried live."""


class _Number(click.FloatRange):
    """A finite number: NaN passes the comparisons of a range."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        number = float(super().convert(value, param, ctx))
        if math.isnan(number):
            self.fail(f"{value} is no number", param, ctx)
        return number


_POSITIVE = _Number(0.001, 1e6)


@click.command()
@click.argument("images", nargs=-1, type=click.Path(path_type=Path, exists=True))
@click.option(
    "--replay",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Take service times from this result of line-sim or benchmark instead of IMAGES.",
)
@artifact_options
@click.option("--parts-per-minute", type=_POSITIVE, help="Speed of the belt; or the next two.")
@click.option("--speed-mm-s", type=_POSITIVE, help="Speed of the belt; needs --pitch-mm.")
@click.option("--pitch-mm", type=_POSITIVE, help="From part to part.")
@click.option("--deadline-ms", type=_POSITIVE, help="From trigger to reject gate; or --gate-mm.")
@click.option(
    "--gate-mm", type=_POSITIVE, help="From camera to reject gate: a faster belt leaves less time."
)
@click.option(
    "--cameras",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Images of every part, all triggered at once.",
)
@click.option(
    "--processes",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="That judge side by side, each on its share of the processors.",
)
@click.option(
    "--buffer",
    type=click.IntRange(min=0),
    default=8,
    show_default=True,
    help="Images that can wait; one more is dropped.",
)
@click.option(
    "--jitter",
    type=_Number(0, 1),
    default=0.0,
    show_default=True,
    help="Standard deviation of a part's place, in pitches.",
)
@click.option("--go-parts", type=click.IntRange(min=1), help="Parts after which the belt stops.")
@click.option("--stop-s", type=_POSITIVE, help="How long it stops.")
@click.option(
    "--max-miss-rate",
    type=_Number(0, 1),
    default=0.001,
    show_default=True,
    help="Share of parts that may reach the gate without a verdict.",
)
@click.option(
    "--seconds",
    type=_POSITIVE,
    default=30.0,
    show_default=True,
    help="How long to run on IMAGES.",
)
@click.option(
    "--verify-live",
    type=_POSITIVE,
    metavar="SECONDS",
    help="Then run IMAGES this long at the predicted safe speed: does it keep its promise? If not, "
    "the times of that run predict a lower speed, which is tried in turn; three speeds at most.",
)
@click.option(
    "--parts",
    type=click.IntRange(min=1),
    default=10_000,
    show_default=True,
    help="Parts in a replay of recorded times.",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@format_option
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Also write the result, with all times, to this JSON file, which --replay takes.",
)
@debug_option
def line_sim(
    images: tuple[Path, ...],
    replay: Path | None,
    model: Path | None,
    backend: str | None,
    device: str | None,
    trust_engine: bool,
    parts_per_minute: float | None,
    speed_mm_s: float | None,
    pitch_mm: float | None,
    deadline_ms: float | None,
    gate_mm: float | None,
    cameras: int,
    processes: int,
    buffer: int,
    jitter: float,
    go_parts: int | None,
    stop_s: float | None,
    max_miss_rate: float,
    seconds: float,
    verify_live: float | None,
    parts: int,
    seed: int,
    style: str,
    output: Path | None,
) -> int:
    """Does a model keep up with the belt, and how fast may it run?

    Parts pass at the belt's speed, and those without a verdict at the reject gate are counted.

    On IMAGES, files and folders, parts come in real time, whether the model is ready or not; with
    --replay, recorded service times are simulated. Either way the recorded times tell how fast the
    belt may run. Times count from the trigger, with the image in memory: take exposure and
    transfer off the deadline. Exit 6 when more parts are missed than --max-miss-rate allows.
    """
    import json

    from tinyunet_deploy.errors import GateFailed, ImageError
    from tinyunet_deploy.files import json_value, write_atomic
    from tinyunet_deploy.line import simulation as lines
    from tinyunet_deploy.line.live import open_station

    if bool(images) == bool(replay):
        raise click.UsageError("give IMAGES to run on, or --replay with recorded times")
    if verify_live and replay:
        raise click.UsageError("--verify-live runs on IMAGES, not with --replay")
    if bool(go_parts) != bool(stop_s):
        raise click.UsageError("--go-parts and --stop-s go together")
    line = lines.Line(
        *_speed(parts_per_minute, speed_mm_s, pitch_mm, deadline_ms, gate_mm),
        pitch_mm,
        gate_mm,
        cameras,
        processes,
        buffer,
        jitter,
        go_parts,
        1e3 * (stop_s or 0.0),
    )
    how: dict[str, Any] = {"parts": parts, "seed": seed, "max_miss_rate": max_miss_rate}
    skipped: list[ImageError] = []
    if replay:
        recording = lines.read_recording(
            replay, model=model.name if model else None, backend=backend, device=device
        )
        _warn_of_recording(line, recording)
        tried = [(line, lines.replay(line, recording, parts=parts, seed=seed))]
        fastest = lines.find_fastest(line, recording, **how)
        about = f"{len(recording.service_ms)} service times of {recording.source}, replayed"
        facts: dict[str, Any] = {"mode": "replay", "replayed": recording.source}
        facts["recorded_images"] = len(recording.service_ms)
    else:
        with open_station(
            images,
            processes,
            model=model,
            backend=backend,
            device=device,
            trust_engine=trust_engine,
            skipped=skipped.append,
        ) as station:
            trials = [_trial(station, line, seconds, str(images[0]), how)]
            if verify_live:
                trials += _verify(station, trials[0], verify_live, how)
        basis = trials[-2] if verify_live else trials[0]
        recording, fastest = basis.recording, basis.fastest
        tried = [(trial.line, trial.run.outcome) for trial in trials]
        about = f"{station.facts['model']} on {station.facts['backend']}, live for {seconds:g} s"
        facts = {
            "mode": "live",
            **station.facts,
            "recorded_parts_per_minute": basis.line.parts_per_minute,
            "service_ms": lines.times_field(basis.run.service_ms),
            "largest_lateness_ms": basis.run.largest_lateness_ms,
        }
    needed = lines.processes_needed(line, recording, **how)
    first_ms, others_ms = recording.medians_ms()
    result = {
        "schema_version": 1,
        "kind": "line-sim",
        **facts,
        "seed": seed,
        "max_miss_rate": max_miss_rate,
        "confidence": lines.CONFIDENCE,
        **lines.run_fields(*tried[0], max_miss_rate),
        **lines.search_fields(fastest),
        "processes_needed": needed,
        "service_p50_ms": json_value({"first_after_stop": first_ms, "others": others_ms}),
        "verified": lines.run_fields(*tried[-1], max_miss_rate) if verify_live else None,
        "not_kept": [lines.run_fields(*each, max_miss_rate) for each in tried[1:-1]],
        "formulas": lines.FORMULAS,
    }
    text = json.dumps(result, allow_nan=False) + "\n"
    if output is not None:
        output.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(output, text.encode())
    if style == "json":
        click.echo(text, nl=False)
    else:
        click.echo(about)
        _print(*tried[0])
        click.echo(_conclusion(line, tried[0][1], fastest, needed, recording, max_miss_rate))
        if not math.isnan(first_ms):
            click.echo(
                f"The first image after a stop took {first_ms:,.1f} ms, "
                f"others {others_ms:,.1f} ms (medians)."
            )
        for number, (belt, found) in enumerate(tried[1:]):
            at = "what these times predict" if number else "the predicted safe speed"
            click.echo(f"\ntried live for {verify_live:g} s at {at}")
            _print(belt, found)
            kept = found.miss_rate <= max_miss_rate
            click.echo(f"The prediction {'holds' if kept else 'does not hold'}.")
    for error in skipped:
        click.echo(f"skipped: {error}", err=True)
    for belt, found in (tried[0], tried[-1]):
        if found.miss_rate > max_miss_rate:
            raise GateFailed(
                _per_minute(belt.parts_per_minute),
                f"{found.missed} of {found.parts} parts reach the gate without a verdict, "
                f"{_percent(found.miss_rate)}",
                f"{_percent(max_miss_rate)} allowed",
            )
    return 3 if skipped else 0


def _speed(
    parts_per_minute: float | None,
    speed_mm_s: float | None,
    pitch_mm: float | None,
    deadline_ms: float | None,
    gate_mm: float | None,
) -> tuple[float, float]:
    """Parts per minute and milliseconds to the gate."""
    if (parts_per_minute is None) == (speed_mm_s is None):
        raise click.UsageError("give either --parts-per-minute or --speed-mm-s")
    if (deadline_ms is None) == (gate_mm is None):
        raise click.UsageError("give either --deadline-ms or --gate-mm")
    if pitch_mm is None:
        if parts_per_minute is None:
            raise click.UsageError("--speed-mm-s needs --pitch-mm")
        if deadline_ms is None:
            raise click.UsageError("--gate-mm needs --pitch-mm")
        return parts_per_minute, deadline_ms
    if parts_per_minute is None:
        assert speed_mm_s is not None
        parts_per_minute = 60 * speed_mm_s / pitch_mm
    if deadline_ms is None:
        assert gate_mm is not None
        deadline_ms = gate_mm / pitch_mm * 60_000 / parts_per_minute
    return parts_per_minute, deadline_ms


def _warn_of_recording(line: Line, recording: Recording) -> None:
    if not recording.idle:
        click.echo(
            "warning: the times were recorded without pauses, after which an image may be slow; "
            "a live run has them",
            err=True,
        )
    elif line.go_parts and len(recording.stretches) == 1:
        click.echo("warning: the belt did not stop where the times were recorded", err=True)
    if recording.processes not in (None, line.processes):
        click.echo(
            f"warning: recorded with processes: {recording.processes}; those that share "
            "processors slow each other down, which only a live run shows",
            err=True,
        )


class _Trial(NamedTuple):
    """A belt that ran live, and what its times say of other speeds."""

    line: Line
    run: LiveRun
    recording: Recording
    fastest: Search


def _trial(
    station: Station, line: Line, seconds: float, source: str, how: dict[str, Any]
) -> _Trial:
    from tinyunet_deploy.line.simulation import find_fastest

    run = _live(station, line, seconds, how["seed"])
    recording = run.recording(line, source)
    return _Trial(line, run, recording, find_fastest(line, recording, **how))


def _verify(
    station: Station, first: _Trial, seconds: float, how: dict[str, Any]
) -> Iterator[_Trial]:
    """Try the speed that a trial predicts; if it does not hold, what its own times predict."""
    max_miss_rate = how["max_miss_rate"]
    speed = _safe_speed(first, max_miss_rate)
    how = how | {"seed": how["seed"] + 1}
    for _ in range(_MOST_TRIES):
        last = _trial(station, first.line.at(speed), seconds, first.recording.source, how)
        yield last
        slower = last.fastest.fastest_shown
        if last.run.outcome.miss_rate <= max_miss_rate or not slower < speed:
            return
        speed = slower


def _live(station: Station, line: Line, seconds: float, seed: int) -> LiveRun:
    from rich.console import Console
    from rich.progress import Progress

    from tinyunet_deploy.line.live import run_live

    parts = line.parts_in(seconds)
    with Progress(console=Console(stderr=True), disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task(f"{_per_minute(line.parts_per_minute)}", total=parts)
        run = run_live(
            line,
            station.judges,
            parts=parts,
            seed=seed,
            progress=lambda count: bar.advance(task, count),
        )
    if run.largest_lateness_ms > _LATE_MS:
        click.echo(
            f"warning: a trigger came {run.largest_lateness_ms:.0f} ms late: the machine is too "
            "busy to keep the time of the belt",
            err=True,
        )
    return run


def _safe_speed(trial: _Trial, max_miss_rate: float) -> float:
    from tinyunet_deploy.errors import GateFailed, RefusedError
    from tinyunet_deploy.line.simulation import parts_to_show

    recording, fastest = trial.recording, trial.fastest
    if not math.isnan(fastest.fastest_shown):
        return fastest.fastest_shown
    recorded, wanted = len(recording.service_ms) // trial.line.cameras, parts_to_show(max_miss_rate)
    if recorded < wanted:
        raise RefusedError(
            recording.source,
            f"{recorded} recorded parts cannot show a miss rate of {_percent(max_miss_rate)}",
            "--max-miss-rate above 0"
            if math.isinf(wanted)
            else f"it takes {wanted:,}: more --seconds, or a larger --max-miss-rate",
        )
    raise GateFailed(recording.source, f"no speed keeps a miss rate of {_percent(max_miss_rate)}")


def _print(line: Line, found: Outcome) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, show_header=False, padding=(0, 3, 0, 0))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(overflow="fold")
    belt = [] if line.pitch_mm is None else [f"{line.speed_mm_s:,.4g} mm/s"]
    belt += [f"jitter {_percent(line.jitter)}"] if line.jitter else []
    if line.go_parts:
        belt.append(f"{line.stop_ms / 1e3:g} s stop every {line.go_parts}")
    table.add_row("belt", _per_minute(line.parts_per_minute), ", ".join(belt))
    cameras, processes = _count(line.cameras, "camera"), _count(line.processes, "process", "es")
    station = f"{cameras}, {processes}, buffer {line.buffer}"
    table.add_row("gate", f"{line.deadline_ms:,.4g} ms", station)
    table.add_row("parts", f"{found.parts:,}", "")
    bound = f"{_percent(found.miss_rate)}, below {_percent(found.miss_rate_bound)}"
    table.add_row("without verdict", f"{found.missed:,}", f"{bound} (95 % sure)")
    table.add_row("  too late", f"{found.missed - found.dropped:,}", "")
    table.add_row("  buffer full", f"{found.dropped:,}", "")
    table.add_row("longest run", f"{found.longest_run:,}", "")
    for name, value in ("p50", found.p50_ms), ("p99", found.p99_ms), ("p99.9", found.p999_ms):
        time = f"{value:,.1f} ms" if math.isfinite(value) else "never"
        few = math.isnan(value)
        table.add_row(f"{name} to verdict", "-" if few else time, "too few parts" if few else "")
    table.add_row("busy", _percent(found.busy), "of the processes' time")
    Console().print(table, highlight=False)


def _conclusion(
    line: Line,
    found: Outcome,
    fastest: Search,
    needed: int | None,
    recording: Recording,
    max_miss_rate: float,
) -> str:
    """What the engineer asked, in sentences."""
    from tinyunet_deploy.line.simulation import MOST_PROCESSES, parts_to_show

    allowed = _percent(max_miss_rate)
    said = f"At {_per_minute(line.parts_per_minute)} {found.missed:,} of {found.parts:,} parts "
    said += "reach the gate without a verdict: "
    if found.miss_rate > max_miss_rate:
        said += f"more than the {allowed} allowed. "
        if needed is None:
            said += f"Not even {MOST_PROCESSES} processes as fast as this would do. "
        elif needed > line.processes:
            said += f"It takes {needed} processes, if each is as fast as recorded. "
    elif found.miss_rate_bound > max_miss_rate:
        said += f"within the {allowed} allowed, but only shown to be below "
        said += f"{_percent(found.miss_rate_bound)}. "
    else:
        said += f"within the {allowed} allowed. "
        if needed is not None and needed < line.processes:
            said += f"Processes as fast as these would do it with {needed}. "
    if not math.isnan(fastest.fastest_shown):
        said += f"The belt may run at {_per_minute(fastest.fastest_shown)}."
    elif not math.isnan(fastest.fastest_seen):
        said += f"{len(recording.service_ms):,} recorded images are too few to promise a speed"
        if max_miss_rate:
            said += f" (no miss in {parts_to_show(max_miss_rate):,} parts would promise one)"
        said += f"; they would keep up with {_per_minute(fastest.fastest_seen)}."
    else:
        said += "No speed would do."
    return said


def _per_minute(speed: float) -> str:
    return f"{speed:,.1f} parts/min"


def _count(number: int, name: str, plural: str = "s") -> str:
    return f"{number} {name}{'' if number == 1 else plural}"


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"
