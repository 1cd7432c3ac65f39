"""``tinyunet line-sim``: whether a model keeps up with a belt, and how fast the belt may run."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tinyunet_deploy.cli.folding import FoldedLines
from tinyunet_deploy.cli.options import (
    artifact_options,
    bits_option,
    debug_option,
    format_option,
    size_options,
)
from tinyunet_deploy.cli.progress import Progress

if TYPE_CHECKING:
    from tinyunet_deploy.line.belt import Belt
    from tinyunet_deploy.line.live import LiveRun
    from tinyunet_deploy.line.outcome import BeltOutcome
    from tinyunet_deploy.line.station import Station
    from tinyunet_deploy.line.study import LineStudy


class _Number(click.FloatRange):
    """A finite number in a range; click's own range accepts NaN."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        number = float(super().convert(value, param, ctx))
        if math.isnan(number):
            self.fail(f"{value} is not a number", param, ctx)
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
@size_options
@bits_option
@click.option(
    "--parts-per-minute",
    type=_POSITIVE,
    help="Speed of the belt. Alternative: --speed-mm-s with --pitch-mm.",
)
@click.option("--speed-mm-s", type=_POSITIVE, help="Speed of the belt; also give --pitch-mm.")
@click.option("--pitch-mm", type=_POSITIVE, help="Distance between parts, millimetres.")
@click.option(
    "--deadline-ms",
    type=_POSITIVE,
    help="Time from trigger to reject gate. Alternative: --gate-mm.",
)
@click.option(
    "--gate-mm",
    type=_POSITIVE,
    help="Distance from camera to reject gate, millimetres: a faster belt leaves less time.",
)
@click.option(
    "--cameras",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Images of each part, all triggered at once.",
)
@click.option(
    "--processes",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Parallel inspecting processes, each on its share of the processors.",
)
@click.option(
    "--buffer",
    type=click.IntRange(min=0),
    default=8,
    show_default=True,
    help="Images that can wait; any further image is dropped.",
)
@click.option(
    "--jitter",
    type=_Number(0, 1),
    default=0.0,
    show_default=True,
    help="Standard deviation of a part's position, in pitches.",
)
@click.option("--go-parts", type=click.IntRange(min=1), help="Parts after which the belt stops.")
@click.option("--stop-s", type=_POSITIVE, help="Length of a stop, seconds.")
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
    help="Length of the run on IMAGES, seconds.",
)
@click.option(
    "--verify-live",
    type=_POSITIVE,
    metavar="SECONDS",
    help="Then run IMAGES for this time at the predicted safe speed: does the prediction hold? "
    "If not, the times of that run predict a lower speed, which is tried in turn; three speeds at "
    "most. A lower speed that holds is run once more.",
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
    tile: bool,
    max_pixels: int | None,
    bits: int | None,
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
    """Test whether a model keeps up with the belt of a line.

    Parts pass at the belt's speed; parts without a verdict at the reject gate are counted as
    missed.

    With IMAGES (files and folders) parts come in real time, whether the model is ready or not; with
    --replay, recorded service times are simulated. In both cases, the recorded times predict how
    fast the belt may run. An image that is larger than the model's costs a call of the model for
    each of its tiles. Times count from the trigger, when the image is already in memory: subtract
    exposure and transfer from the deadline. Exit code 6 if more parts are missed than
    --max-miss-rate allows.
    """
    from tinyunet_deploy.errors import ImageError
    from tinyunet_deploy.files import write_atomic
    from tinyunet_deploy.line.belt import Belt
    from tinyunet_deploy.line.recording import read_recording
    from tinyunet_deploy.line.speed_search import SearchSettings
    from tinyunet_deploy.line.station import open_station
    from tinyunet_deploy.line.study import study_live, study_recording

    if bool(images) == bool(replay):
        raise click.UsageError("give IMAGES to run on, or --replay with recorded times")
    if verify_live and replay:
        raise click.UsageError("--verify-live runs on IMAGES, not with --replay")
    if bool(go_parts) != bool(stop_s):
        raise click.UsageError("--go-parts and --stop-s go together")
    belt = Belt(
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
    settings = SearchSettings(parts, seed, max_miss_rate)
    skipped: list[ImageError] = []
    if replay:
        recording = read_recording(
            replay, model=model.name if model else None, backend=backend, device=device
        )
        _warn(recording.warnings(belt))
        study = study_recording(belt, recording, settings)
    else:
        with open_station(
            images,
            processes,
            model=model,
            backend=backend,
            device=device,
            trust_engine=trust_engine,
            tile=tile,
            max_pixels=max_pixels,
            bits=bits,
            skipped=skipped.append,
        ) as station:
            study = study_live(
                station,
                lambda belt, seconds, seed: _run(station, belt, seconds, seed),
                belt,
                settings,
                source=str(images[0]),
                seconds=seconds,
                verify_s=verify_live,
            )
    text = study.as_json()
    if output is not None:
        output.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(output, text.encode())
    if style == "json":
        click.echo(text, nl=False)
    else:
        _print_study(study, verify_live)
    lines = FoldedLines()
    for error in skipped:
        lines.add("skipped", error, error.reason)
    lines.finish()
    if output is not None:
        click.echo(f"result: {click.format_filename(output)}", err=True)
    study.require_kept(predicted=verify_live is not None)
    return 3 if skipped else 0


def _speed(
    parts_per_minute: float | None,
    speed_mm_s: float | None,
    pitch_mm: float | None,
    deadline_ms: float | None,
    gate_mm: float | None,
) -> tuple[float, float]:
    """Return parts per minute, and milliseconds from trigger to gate."""
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


def _warn(warnings: list[str]) -> None:
    for warning in warnings:
        click.echo(f"warning: {warning}", err=True)


def _run(station: Station, belt: Belt, seconds: float, seed: int) -> LiveRun:
    """Run the belt live beside a progress bar."""
    from tinyunet_deploy.line.live import run_live
    from tinyunet_deploy.line.wording import per_minute

    parts = belt.parts_in(seconds)
    with Progress(f"belt at {per_minute(belt.parts_per_minute)}", parts, "parts") as bar:
        run = run_live(
            belt,
            station.inspectors,
            parts=parts,
            seed=seed,
            progress=bar.advance,
        )
    _warn(run.warnings())
    return run


def _print_study(study: LineStudy, verify_s: float | None) -> None:
    click.echo(study.title)
    (belt, outcome), *tried = study.runs
    _print_run(belt, outcome)
    click.echo(study.conclusion())
    first_ms, others_ms = study.recording.medians_ms()
    if not math.isnan(first_ms):
        click.echo(
            f"The first image after a stop took {first_ms:,.1f} ms, "
            f"others {others_ms:,.1f} ms (medians)."
        )
    before = belt
    for number, (belt, outcome) in enumerate(tried):
        speed = "what these times predict" if number else "the predicted safe speed"
        speed = "this speed once more" if number and belt == before else speed
        before = belt
        click.echo(f"\ntried live for {verify_s:g} s at {speed}")
        _print_run(belt, outcome)
        holds = "holds" if study.keeps(outcome) else "does not hold"
        click.echo(f"The prediction {holds}.")


def _print_run(belt: Belt, outcome: BeltOutcome) -> None:
    from rich.console import Console
    from rich.table import Table

    from tinyunet_deploy.line.wording import count, per_minute, percent

    table = Table(box=None, show_header=False, padding=(0, 3, 0, 0))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(overflow="fold")
    details = [] if belt.pitch_mm is None else [f"{belt.speed_mm_s:,.4g} mm/s"]
    details += [f"jitter {percent(belt.jitter)}"] if belt.jitter else []
    if belt.go_parts:
        details.append(f"{belt.stop_ms / 1e3:g} s stop every {belt.go_parts}")
    table.add_row("belt", per_minute(belt.parts_per_minute), ", ".join(details))
    cameras, processes = count(belt.cameras, "camera"), count(belt.processes, "process", "es")
    station = f"{cameras}, {processes}, buffer {belt.buffer}"
    table.add_row("gate", f"{belt.deadline_ms:,.4g} ms", station)
    table.add_row("parts", f"{outcome.parts:,}", "")
    bound = f"{percent(outcome.miss_rate)}, below {percent(outcome.miss_rate_bound)}"
    table.add_row("without verdict", f"{outcome.missed:,}", f"{bound} (95 % sure)")
    table.add_row("  too late", f"{outcome.missed - outcome.dropped:,}", "")
    table.add_row("  buffer full", f"{outcome.dropped:,}", "")
    table.add_row("longest run", f"{outcome.longest_run:,}", "")
    percentiles = {"p50": outcome.p50_ms, "p99": outcome.p99_ms, "p99.9": outcome.p999_ms}
    for name, value in percentiles.items():
        time = f"{value:,.1f} ms" if math.isfinite(value) else "never"
        few = math.isnan(value)
        table.add_row(
            f"{name} to verdict", "-" if few else time, "too few measured parts" if few else ""
        )
    table.add_row("busy", percent(outcome.busy), "of the processes' time")
    Console().print(table, highlight=False)
