"""``python -m training RECIPE --data DIR --output RUN``: train a network."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import click

from tinyunet_deploy.artifacts.architectures import NETWORKS
from tinyunet_deploy.cli import run
from tinyunet_deploy.cli.options import ImageSize, ModelPath, bits_option, debug_option
from training.commands import (
    HELP,
    amp_option,
    classes_option,
    device_option,
    end_process,
    log_to_stderr,
    say_result,
    steps_option,
    tune_malloc,
)
from training.finish import finish

log = logging.getLogger("training")


@click.command(context_settings=HELP)
@click.argument("recipe", default="reference")
@click.option(
    "--data",
    "folders",
    multiple=True,
    required=True,
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Folder of images and masks; can be repeated, to train on several in turn.",
)
@classes_option
@bits_option
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder of the run.",
)
@click.option(
    "--init",
    type=ModelPath(checkpoint=True, exists=True, dir_okay=False),
    help="Checkpoint to start from. Default: the recipe's start.",
)
@click.option(
    "--teacher",
    type=ModelPath(checkpoint=True, exists=True, dir_okay=False),
    help="Checkpoint to learn from, such as tiny, for a recipe such as slim: the network learns "
    "its scores beside the labels.",
)
@click.option(
    "--unlabelled",
    multiple=True,
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Folder of images without labels, which the teacher labels; can be repeated.",
)
@click.option(
    "--from-scratch", is_flag=True, help="Start from random weights, whatever the recipe says."
)
@click.option(
    "--size",
    type=ImageSize(),
    help="Height and width of the model. Default: that of the largest image, at most 512.",
)
@steps_option
@click.option("--batch", type=click.IntRange(min=1), help="Images per step. Default: the recipe's.")
@click.option(
    "--crop",
    type=click.IntRange(min=1),
    help="Side of the square crops, pixels; the recipe's defect_margin is scaled with it. "
    "Default: the recipe's.",
)
@click.option(
    "--defect-free",
    type=click.FloatRange(0.0, 1.0, max_open=True),
    help="Share of defect-free images among those drawn. Default: the recipe's.",
)
@click.option(
    "--validation",
    type=click.FloatRange(0.0, 1.0, max_open=True),
    help="Share of the images held out of training, to choose threshold and min_area. Default: "
    "the recipe's.",
)
@click.option("--seed", type=click.IntRange(min=0), help="Seed of the run. Default: the recipe's.")
@click.option("--variant", help=f"Network, {' or '.join(NETWORKS)}. Default: the recipe's.")
@device_option
@amp_option
@click.option("--compile", "compiled", is_flag=True, help="Use torch.compile.")
@click.option(
    "--save-every",
    default=250,
    show_default=True,
    type=click.IntRange(min=1),
    help="Steps between two saved states, from which a run can resume.",
)
@debug_option
def training(
    recipe: str,
    folders: tuple[Path, ...],
    classes: tuple[int, ...] | None,
    bits: int | None,
    output: Path,
    init: Path | None,
    teacher: Path | None,
    unlabelled: tuple[Path, ...],
    from_scratch: bool,
    size: tuple[int, int] | None,
    steps: int | None,
    batch: int | None,
    crop: int | None,
    defect_free: float | None,
    validation: float | None,
    seed: int | None,
    variant: str | None,
    device: str,
    amp: bool,
    compiled: bool,
    save_every: int,
) -> None:
    """Train a network with RECIPE, a TOML file or the name of one in training/recipes.

    Writes OUTPUT/checkpoint.safetensors with its sidecar, what it reached (result.json), its curves
    and its worst validation images. The same command resumes an interrupted run;
    python -m training finish OUTPUT ends it with the steps that it has done. On several GPUs or
    nodes: torchrun --nproc-per-node N -m training RECIPE ...
    """
    from training.data_folders import DataFolders
    from training.distributed import join_ranks
    from training.loop import train
    from training.machine import Machine
    from training.recipe import read_recipe
    from training.run_pictures import draw_run

    if init is not None and from_scratch:
        raise click.UsageError("--init and --from-scratch exclude each other")
    chosen = read_recipe(
        recipe,
        steps=steps,
        batch=batch,
        seed=seed,
        variant=variant,
        start="random" if from_scratch else None,
        data={"crop": crop, "defect_free": defect_free, "validation": validation},
    )
    data = DataFolders(folders, classes, bits, unlabelled)
    with join_ranks() as ranks:
        log_to_stderr(logging.INFO if ranks.first else logging.WARNING)
        log.info("reading the images of %s", ", ".join(map(str, folders)))
        sources = data.read(chosen)
        checkpoint = train(
            chosen,
            sources,
            output,
            machine=Machine(device, amp, compiled, save_every),
            ranks=ranks,
            init=init,
            teacher=teacher,
            size=size,
            data=data,
        )
    if ranks.first:
        draw_run(output, sources)
        say_result(output, checkpoint, folders)


if __name__ == "__main__":
    tune_malloc()
    if sys.argv[1:2] == ["finish"]:
        end_process(run(finish, sys.argv[2:]))
    end_process(run(training))
