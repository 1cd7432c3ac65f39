"""``tinyunet parity``: compare artifacts with the network they were made from."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tinyunet_deploy.cli.folding import FoldedLines
from tinyunet_deploy.cli.options import (
    bits_option,
    classes_option,
    comparison_options,
    debug_option,
    format_option,
    operating_options,
    size_options,
    workers_option,
)
from tinyunet_deploy.cli.progress import Progress

if TYPE_CHECKING:
    from rich.table import Table

    from tinyunet_deploy.quality.parity import ArtifactParity, Parity


@click.command()
@click.argument("data", type=click.Path(path_type=Path, exists=True, file_okay=False))
@comparison_options
@classes_option
@operating_options
@size_options
@bits_option
@click.option(
    "-b",
    "--batch-size",
    type=click.IntRange(min=1),
    default=4,
    show_default=True,
    help="Images per call, and the batch that is verified.",
)
@workers_option
@click.option(
    "--explain",
    is_flag=True,
    help="Find the first stage at which each artifact differs from the reference.",
)
@click.option(
    "--other-network",
    is_flag=True,
    help="The reference is another network, such as the teacher of a distilled one: each decides "
    "by its own threshold and min_area; lost defects, false alarms and IoU are limited.",
)
@click.option(
    "--record",
    is_flag=True,
    help="Write the verified batch into the sidecar of each green model; larger ones are refused.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder for parity.json, parity.xml (JUnit), plateau.svg and the worst images.",
)
@format_option
@debug_option
def parity(
    data: Path,
    models: tuple[Path, ...],
    reference: Path | None,
    folders: tuple[Path, ...],
    backends: tuple[str, ...],
    devices: tuple[str, ...],
    limits_file: Path | None,
    trust_engine: bool,
    classes: tuple[int, ...] | None,
    threshold: float | None,
    min_area: int | None,
    tile: bool,
    max_pixels: int | None,
    bits: int | None,
    batch_size: int,
    workers: int | None,
    explain: bool,
    other_network: bool,
    record: bool,
    output: Path | None,
    style: str,
) -> int:
    """Compare models with the network they were made from.

    Runs every artifact on every backend and compares its scores with the network in PyTorch or,
    where that does not run, with the float32 ONNX file of the same checkpoint, or with the golden
    scores that came with the artifact. DATA is a labelled data set, whose held-out images are used,
    or any folder of images. Backends that cannot run on this machine are listed as skipped. Exit
    code 6 if a limit is broken, or a model decides by another threshold or min_area than its
    reference and neither option gives one for both.
    """
    from tinyunet_deploy.artifacts.sidecar import DEFAULT_ONNX
    from tinyunet_deploy.host import processor_count
    from tinyunet_deploy.quality.parity import record_batches, require_green, run_parity
    from tinyunet_deploy.quality.parity_inputs import check_recordable, find_models
    from tinyunet_deploy.quality.parity_limits import LIMITS, read_limits
    from tinyunet_deploy.quality.parity_report import parity_json, write_parity_report
    from tinyunet_deploy.quality.stored_scores import StoredScores

    limits = read_limits(limits_file or LIMITS)
    chosen = find_models(models or (DEFAULT_ONNX,))
    if record:
        check_recordable(chosen)

    def show(what: str, count: int) -> None:
        progress.describe(what)
        progress.advance(count)

    with StoredScores() as scores, Progress("loading the reference") as progress:
        result = run_parity(
            chosen,
            data,
            scores,
            limits=limits,
            reference=reference,
            folders=folders,
            classes=classes,
            backends=backends or None,
            devices=devices,
            threshold=threshold,
            min_area=min_area,
            tile=tile,
            max_pixels=max_pixels,
            bits=bits,
            batch_size=batch_size,
            workers=workers or processor_count(),
            with_explanation=explain,
            trust_engine=trust_engine,
            other_network=other_network,
            progress=show,
            on_total=progress.expect,
        )
        if output is not None:
            output.mkdir(parents=True, exist_ok=True)
            write_parity_report(result, output)
    if style == "json":
        click.echo(parity_json(result), nl=False)
    else:
        _print(result)
    for refusal in result.refused:
        click.echo(f"refused: {refusal}", err=True)
    lines = FoldedLines("--format json lists them all")
    for error in result.skipped_images:
        lines.add("skipped", error, error.reason)
    lines.finish()
    if output is not None:
        pictures = sum(len(artifact.comparison.worst) for artifact in result.artifacts)
        click.echo(
            f"result: {click.format_filename(output / 'parity.json')}  "
            f"JUnit: {click.format_filename(output / 'parity.xml')}  "
            f"worst: {click.format_filename(output / 'worst')} ({pictures} pictures)",
            err=True,
        )
    require_green(result)
    if record:
        for model, batch in record_batches(result).items():
            click.echo(f"{model}: batches up to {batch} are verified and recorded", err=True)
    return 3 if result.skipped_images else 0


def _print(result: Parity) -> None:
    from rich.console import Console

    console = Console()
    if not console.is_terminal:
        console = Console(width=120)
    has_truth = any(image.item is not None for image in result.images)
    console.print(
        f"reference {result.reference.describe(result.reference_backend)}\n"
        f"{len(result.images)} images of {result.folder}"
        f"{'' if has_truth else ' without truth'}, "
        f"threshold {result.threshold:g}, min_area {result.min_area} px",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )
    console.print(_table(result))
    for model, decision in result.deciding_otherwise.items():
        line = f"another rule: {model.name} {decision}"
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    for artifact in result.artifacts:
        name = f"{artifact.model.name} on {artifact.backend}"
        lines = [f"skipped: {name}: {artifact.skipped}"] if artifact.skipped is not None else []
        for flip in artifact.comparison.flips[:5]:
            kind = "a defective part" if flip.defective else "a good part"
            lines.append(f"flipped: {name}: {flip.name} {flip.reference} -> {flip.verdict}, {kind}")
        for line in lines:
            console.print(line, highlight=False, markup=False, soft_wrap=True)
    if any(artifact.explanation for artifact in result.artifacts):
        console.print(_stages(result))


def _table(result: Parity) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(
        box=box.SIMPLE_HEAD,
        padding=(0, 0, 0, 1),
        caption="steps of 1/255: largest / p99.9; pixels flipped: near / far from the threshold;\n"
        "parts: verdicts flipped on defective / false alarms gained; "
        "batch: largest run, its steps; plateau: thresholds that change no verdict, width kept",
        caption_justify="left",
    )
    table.add_column("model", overflow="fold", min_width=12)
    table.add_column("backend", no_wrap=True)
    names = ("steps", "agreement", "pixels\nflipped", "parts", "iou\nchange", "batch")
    for name in (*names, "plateau\nkept"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for artifact in result.artifacts:
        where = artifact.backend + ("" if artifact.device == "cpu" else f"\n{artifact.device}")
        table.add_row(artifact.model.name, where, *_cells(artifact), _outcome(artifact))
    return table


def _cells(artifact: ArtifactParity) -> list[str]:
    if artifact.skipped is not None:
        return ["-"] * 7
    figures, comparison, batch = artifact.figures, artifact.comparison, artifact.batch
    change = 0.0 - figures["iou_drop"]
    return [
        f"{figures['largest_steps']} / {figures['p999_steps']}",
        f"{math.floor(figures['agreement'] * 1e5) / 1e5:.5f}",
        f"{comparison.flipped_near} / {comparison.flipped_far}",
        f"{figures['flips_defective']} / {figures['new_alarms']:+d}",
        "-" if math.isnan(change) else f"{change:+.4f}",
        f"{batch.largest}: {figures['batch_steps']:g}" if batch else "-",
        _plateau(artifact),
    ]


def _plateau(artifact: ArtifactParity) -> str:
    from tinyunet_deploy.quality.plateau_report import plateau_range

    if artifact.plateau is None:
        return "-"
    return f"{plateau_range(artifact.plateau.plateau)}\n{artifact.figures['plateau_kept']:.0%}"


def _outcome(artifact: ArtifactParity) -> str:
    colors = {"green": "green", "red": "bold red"}
    return f"[{colors.get(artifact.outcome, 'yellow')}]{artifact.outcome}[/]"


def _stages(result: Parity) -> Table:
    from rich import box
    from rich.table import Table

    from tinyunet_deploy.quality.parity_stages import STAGES

    table = Table(
        title="stage by stage, on the image where each artifact differs most",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 0, 0, 1),
    )
    for name in ("model", "backend", *STAGES, "differs from"):
        table.add_column(name, overflow="fold")
    for artifact in result.artifacts:
        explanation = artifact.explanation
        if explanation is None:
            continue
        cells = [
            "-" if stage.difference is None else f"{stage.difference:.3g}"
            for stage in explanation.stages
        ]
        first = explanation.first.stage if explanation.first else "nowhere"
        table.add_row(artifact.model.name, artifact.backend, *cells, first)
    return table
