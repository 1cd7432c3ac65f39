"""``tinyunet benchmark``: how fast models run, while their answers are checked."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tinyunet_deploy.cli.folding import FoldedLines
from tinyunet_deploy.cli.options import (
    NumberList,
    bits_option,
    comparison_options,
    debug_option,
    format_option,
    size_options,
    workers_option,
)
from tinyunet_deploy.cli.progress import Progress

if TYPE_CHECKING:
    from rich.table import Table

    from tinyunet_deploy.speed.benchmark_result import Benchmark


@click.command()
@click.argument("images", nargs=-1, type=click.Path(path_type=Path, exists=True))
@comparison_options
@click.option(
    "-b",
    "--batch-size",
    "batch_sizes",
    type=NumberList("batch sizes"),
    default="1",
    show_default=True,
    help="Images per call, such as 1,8.",
)
@click.option(
    "--duration",
    type=click.FloatRange(0.0, min_open=True),
    default=10.0,
    show_default=True,
    help="Seconds to measure latency in each row, and then throughput.",
)
@click.option(
    "--samples",
    type=click.IntRange(min=1),
    help="Calls in each row instead of a duration; p99.9 needs 1000.",
)
@click.option(
    "--images",
    "count",
    type=click.IntRange(min=1),
    default=32,
    show_default=True,
    help="Number of images to use, evenly spaced among those found.",
)
@size_options
@bits_option
@workers_option
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    help="JSON file for the result with every sample.",
)
@click.option(
    "--trace",
    "trace_file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="JSON file for every stage of every image, for chrome://tracing or ui.perfetto.dev.",
)
@click.option(
    "--engine-report",
    "report_folder",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder for a report on every layer of each TensorRT plan: what limits it.",
)
@format_option
@debug_option
def benchmark(
    images: tuple[Path, ...],
    models: tuple[Path, ...],
    reference: Path | None,
    folders: tuple[Path, ...],
    backends: tuple[str, ...],
    devices: tuple[str, ...],
    limits_file: Path | None,
    trust_engine: bool,
    batch_sizes: tuple[int, ...],
    duration: float,
    samples: int | None,
    count: int,
    tile: bool,
    max_pixels: int | None,
    bits: int | None,
    workers: int | None,
    output: Path | None,
    trace_file: Path | None,
    report_folder: Path | None,
    style: str,
) -> int:
    """Measure the speed of models on IMAGES (files and folders).

    Measures the latency of single requests, the throughput, the time of each stage from file to
    mask, and the share of this machine's limit. Scores are checked; exit code 6 if one is wrong.
    Without IMAGES, synthetic images are generated. Models that cannot run on this machine are
    listed as skipped.
    """
    import shlex

    from tinyunet_deploy.artifacts.sidecar import DEFAULT_ONNX
    from tinyunet_deploy.errors import GateFailed, RuntimeUnavailable
    from tinyunet_deploy.files import write_atomic
    from tinyunet_deploy.host import processor_count
    from tinyunet_deploy.inspection.trace import chrome_trace
    from tinyunet_deploy.quality.parity_inputs import find_models
    from tinyunet_deploy.quality.parity_limits import LIMITS, read_limits
    from tinyunet_deploy.speed.benchmark import run_benchmark
    from tinyunet_deploy.speed.benchmark_file import benchmark_json
    from tinyunet_deploy.speed.row import Effort

    limits = read_limits(limits_file or LIMITS)
    chosen = find_models(models or (DEFAULT_ONNX,))
    words = ["tinyunet", "benchmark", *(path.name for path in images)]
    words += [word for model in models for word in ("--model", model.name)]
    words += ["--reference", reference.name] if reference else []
    words += [word for folder in folders for word in ("--search", folder.name)]
    words += [word for backend in backends for word in ("--backend", backend)]
    words += [word for device in devices for word in ("--device", device)]
    words += ["--batch-size", ",".join(map(str, batch_sizes)), "--images", str(count)]
    words += ["--samples", str(samples)] if samples else ["--duration", f"{duration:g}"]
    words += [] if tile else ["--no-tile"]
    words += ["--max-pixels", str(max_pixels)] if max_pixels else []
    words += ["--bits", str(bits)] if bits else []
    words += ["--trust-engine"] if trust_engine else []
    words += ["--workers", str(workers)] if workers else []
    for path in (output, trace_file):
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)

    begun = False

    def show(what: str) -> None:
        """Begin the next measurement, which ends the one before."""
        nonlocal begun
        progress.describe(what)
        progress.advance(int(begun))
        begun = True

    with Progress("reading models", unit="measurements") as progress:
        result, traces = run_benchmark(
            chosen,
            images,
            limits=limits,
            command=shlex.join(words),
            reference=reference,
            folders=folders,
            backends=backends or None,
            devices=devices,
            batch_sizes=batch_sizes,
            effort=Effort(duration, samples),
            images=count,
            tile=tile,
            max_pixels=max_pixels,
            bits=bits,
            workers=workers or processor_count(),
            trust_engine=trust_engine,
            progress=show,
            on_total=progress.expect,
        )
    text = benchmark_json(result)
    pages: list[Path] = []
    if report_folder is not None:
        from tinyunet_deploy.speed.engine.measurement import report_engines

        with Progress("profiling engines", unit="engines") as progress:
            pages = report_engines(
                result, chosen, report_folder, trust_engine=trust_engine, progress=progress.describe
            )
    if output is not None:
        write_atomic(output, text.encode())
    if trace_file is not None:
        write_atomic(trace_file, chrome_trace(traces).encode())
    if style == "json":
        click.echo(text, nl=False)
    else:
        _print(result)
    lines = FoldedLines("--format json lists them all")
    for error in result.images.skipped:
        lines.add("skipped", error)
    lines.finish()
    for name, path in (("result", output), ("trace", trace_file)):
        if path is not None:
            click.echo(f"{name}: {click.format_filename(path)}", err=True)
    for path in pages:
        click.echo(f"engine report: {click.format_filename(path)}", err=True)
    if report_folder is not None and not pages:
        click.echo("engine report: no TensorRT plan was measured", err=True)
    if not result.measurements:
        raise RuntimeUnavailable(
            chosen[0], "runs on no backend of this machine", "the reasons are listed above"
        )
    if result.red:
        worst = result.red[0]
        broken = worst.check.broken[0]
        on = "" if images else " on synthetic images"
        own = "" if images else "; for a model of other parts give IMAGES of these"
        raise GateFailed(
            worst.model,
            f"gives wrong scores{on} on {worst.backend}: {broken.figure} is {broken.value:.6g}, "
            f"but must be {broken.limit}",
            f"{len(result.red)} rows are wrong, so their times are not valid; {broken.reason}{own}",
        )
    return 3 if result.images.skipped else 0


def _print(result: Benchmark) -> None:
    from rich.console import Console

    console = Console()
    if not console.is_terminal:
        console = Console(width=120)

    def say(text: str) -> None:
        console.print(text, highlight=False, markup=False, soft_wrap=True)

    images = result.images
    rows, columns = images.image_px
    origin = f"of {images.folder}" if images.source == "files" else "that were generated"
    reference = result.reference
    size = f"{'not all ' if images.padded or images.tiled else ''}{columns}x{rows}"
    say(f"{images.images} images {origin}, {size}; {result.machine['processor']}")
    if images.tiled:
        say(
            f"the model takes {columns}x{rows}, so an image is {images.inputs_per_image:.4g} tiles "
            "on average; a batch is of tiles in a call, of images from files to verdicts"
        )
    say(f"answers checked against {reference.description}")
    console.print(_latency(result))
    for row in result.skipped:
        size = "" if row.batch_size is None else f", batch {row.batch_size}"
        say(f"skipped: {row.model} on {row.backend}{size}: {row.reason}")
    for mode, title in (
        ("serial", "where the time goes, one after the other: ms an image, the sum is wall clock"),
        ("pipelined", "the same overlapped: ms from the reading of an image to its report line"),
    ):
        if result.stages:
            console.print(_stages(result, mode, title))
    if result.ceilings:
        say("the highest rates of this machine in this run")
    for ceiling in result.ceilings:
        say(f"  {ceiling.name:22}{ceiling.value:9.1f} {ceiling.unit:8} {ceiling.what}")
    for note in result.notes:
        say(f"  {note}")


def _latency(result: Benchmark) -> Table:
    from rich import box
    from rich.table import Table

    from tinyunet_deploy.speed.time_samples import PERCENTILES

    table = Table(
        box=box.SIMPLE_HEAD,
        padding=(0, 0, 0, 1),
        caption="ms for one batch, from files to verdicts; device: median inside the runtime; "
        "-: too few samples\nroof: percentage of this machine's limit, by latency / by throughput",
        caption_justify="left",
    )
    table.add_column("model", overflow="fold", min_width=12)
    table.add_column("backend", no_wrap=True)
    names = [name.replace("_", ".") for name in PERCENTILES]
    tiles = ["tiles/s"] if result.images.tiled else []
    for name in ("batch", "load", "first", "n", *names, "device", "images/s", *tiles, "roof %"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for row in result.measurements:
        series = row.end_to_end
        bound = row.roofline
        table.add_row(
            row.model,
            row.backend + ("" if row.device == "cpu" else f"\n{row.device}"),
            str(row.batch_size),
            _ms(row.load_ms),
            _ms(row.first_inference_ms),
            str(len(series.samples_ms)),
            *(_ms(series.percentile_ms(name)) for name in PERCENTILES),
            _ms(row.device_time.percentile_ms("p50")),
            f"{row.throughput.images_per_s:.1f}",
            *([f"{row.throughput.inputs_per_s:.1f}"] if tiles else []),
            f"{bound.latency_percent:.0f} / {bound.throughput_percent:.0f}" if bound else "-",
            _outcome(row.check.outcome),
        )
    return table


def _stages(result: Benchmark, mode: str, title: str) -> Table:
    from rich import box
    from rich.table import Table

    from tinyunet_deploy.inspection.trace import STAGES

    table = Table(
        title=title,
        title_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 0, 0, 1),
        caption="bare: percentage of the throughput of the backend alone, on images in memory",
        caption_justify="left",
    )
    table.add_column("")
    heads = [stage.replace(" ", "\n").replace("-", "-\n") for stage in STAGES[:-1]]
    for name in (*heads, "unac-\ncounted", "sum", "images\n/s", "bare"):
        table.add_column(name.replace("queueing", "queue-\ning"), justify="right", no_wrap=True)
    for stages in result.stages:
        if stages.mode == mode:
            table.add_row(
                f"{stages.model}\n{stages.backend}, batch {stages.batch_size}",
                *(_ms(row.ms_per_image) for row in stages.rows[:-1]),
                f"{_ms(stages.rows[-1].ms_per_image)}\n{100 * stages.unaccounted_share:.1f} %",
                _ms(stages.total_ms_per_image),
                f"{stages.images_per_s:.1f}",
                f"{stages.share_of_raw:.0%}",
            )
    return table


def _ms(value: float) -> str:
    """Return milliseconds with about three digits, ``-`` for NaN."""
    if math.isnan(value):
        return "-"
    return f"{value:.{2 if abs(value) < 10 else 1 if abs(value) < 100 else 0}f}"


def _outcome(outcome: str) -> str:
    words = {"green": "[green]right[/]", "red": "[bold red]WRONG[/]"}
    return words.get(outcome, outcome)
