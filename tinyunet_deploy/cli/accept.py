"""``tinyunet accept``: may a model run on a line? One page to sign."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import click

from tinyunet_deploy.cli.options import (
    bits_option,
    classes_option,
    debug_option,
    model_options,
    search_option,
    size_options,
)
from tinyunet_deploy.cli.progress import Progress


@click.command()
@click.argument("data", required=False, type=click.Path(path_type=Path))
@model_options
@classes_option
@click.option(
    "--split",
    type=click.Choice(["train", "val", "test", "all"]),
    help="Images to use. Default: test, or all if the data set has no splits.",
)
@size_options
@bits_option
@click.option(
    "--requirements",
    type=click.Path(path_type=Path, dir_okay=False),
    help="TOML file of requirements. Default: the package's acceptance.toml.",
)
@click.option(
    "--trained-on",
    multiple=True,
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Folder of the images that trained the model, if its sidecar does not name them; can be "
    "repeated.",
)
@click.option(
    "--reference",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Model whose scores are taken as correct. Default: the model's checkpoint, or its "
    "substitute if that does not run.",
)
@search_option
@click.option(
    "--parity-images",
    type=click.IntRange(min=1),
    default=200,
    show_default=True,
    help="Images on which the model is compared with its reference, half of them defective.",
)
@click.option(
    "--line",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Result of tinyunet line-sim for this model on this machine.",
)
@click.option(
    "--baseline",
    type=click.Path(path_type=Path, exists=True),
    help="Report that tinyunet infer wrote for images of the line, or its folder: the judged parts "
    "must look like them.",
)
@click.option(
    "--repeats",
    type=click.Path(path_type=Path, exists=True),
    help="Folder with a subfolder for each repeat of photographs of the same parts, or the "
    "repeatability.json of tinyunet repeatability.",
)
@click.option(
    "--shadow",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Report of a shadow run with this model as the challenger: the shadow.json of tinyunet "
    "infer or watch.",
)
@click.option(
    "--from",
    "result",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Write the page of this acceptance.json again, and run nothing.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("acceptance"),
    show_default=True,
    help="Folder for acceptance.html, acceptance.json and data.sha256.",
)
@debug_option
def accept(
    data: Path | None,
    model: Path | None,
    backend: str | None,
    device: str | None,
    trust_engine: bool,
    batch_size: int,
    workers: int | None,
    classes: tuple[int, ...] | None,
    split: Literal["train", "val", "test", "all"] | None,
    tile: bool,
    max_pixels: int | None,
    bits: int | None,
    requirements: Path | None,
    trained_on: tuple[Path, ...],
    reference: Path | None,
    folders: tuple[Path, ...],
    parity_images: int,
    line: Path | None,
    baseline: Path | None,
    repeats: Path | None,
    shadow: Path | None,
    result: Path | None,
    output: Path,
) -> int:
    """Test whether a model may run; write the page to sign.

    DATA is a labelled data set of parts that neither trained nor tuned the model. Each requirement
    is met, not met, or not shown. Exit code 0 if all are met or waived; 6 if one is not met or not
    shown.
    """
    from tinyunet_deploy.artifacts.sidecar import DEFAULT_ONNX
    from tinyunet_deploy.host import processor_count
    from tinyunet_deploy.quality.acceptance.gathering import RunOptions, Sources
    from tinyunet_deploy.quality.acceptance.output import PAGE, accept_again
    from tinyunet_deploy.quality.acceptance.output import accept as run_acceptance

    if (data is None) == (result is None):
        raise click.UsageError("Give either DATA, a labelled data set, or --from acceptance.json.")
    if result is not None:
        decision = accept_again(result, output)
    else:
        assert data is not None
        sources = Sources(
            data=data,
            model=model or DEFAULT_ONNX,
            requirements=requirements,
            reference=reference,
            search=folders,
            trained_on=trained_on,
            line=line,
            baseline=baseline,
            repeats=repeats,
            shadow=shadow,
        )
        options = RunOptions(
            backend=backend,
            device=device,
            trust_engine=trust_engine,
            classes=classes,
            split=split,
            tile=tile,
            bits=bits,
            max_pixels=max_pixels,
            batch_size=batch_size,
            workers=workers or processor_count(),
            parity_images=parity_images,
        )

        def show(task: str, count: int) -> None:
            progress.describe(task)
            progress.advance(count)

        with Progress("reading the data set") as progress:
            decision = run_acceptance(
                sources, options, output, progress=show, on_total=progress.expect
            )
    page = click.format_filename(output / PAGE)
    click.echo(f"{decision.word}: {decision.sentence} ({page})")
    return 0 if decision.accepted else 6
