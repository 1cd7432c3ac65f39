"""``python -m training RECIPE --data DIR --output RUN``."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import click

from tinyunet_deploy.cli import run
from tinyunet_deploy.cli.options import ClassList, debug_option


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("recipe", default="reference")
@click.option(
    "--data",
    "folders",
    multiple=True,
    required=True,
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Folder of images and masks; give it again to train on several, which take turns.",
)
@click.option("--classes", type=ClassList(), help="Only these classes, such as 1,3-5.")
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "--init",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Checkpoint to start from.",
)
@click.option("--steps", type=click.IntRange(min=1), help="Instead of the recipe's.")
@click.option("--seed", type=click.IntRange(min=0), help="Instead of the recipe's.")
@click.option("--variant", help="Instead of the recipe's: tiny or original.")
@click.option("--device", default="cpu", show_default=True, help="cpu or cuda:0.")
@click.option("--amp", is_flag=True, help="Mixed precision: fp16 on CUDA, bf16 on a CPU.")
@click.option("--save-every", default=250, show_default=True, type=click.IntRange(min=1))
@debug_option
def training(
    recipe: str,
    folders: tuple[Path, ...],
    classes: tuple[int, ...] | None,
    output: Path,
    init: Path | None,
    steps: int | None,
    seed: int | None,
    variant: str | None,
    device: str,
    amp: bool,
    save_every: int,
) -> None:
    """Train a network by RECIPE, a TOML file or the name of one in training/recipes.

    Writes OUTPUT/checkpoint.safetensors with its sidecar. The same command run again goes on where
    it stopped.
    """
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    from training.data import read_source
    from training.loop import Machine, train
    from training.recipe import read_recipe

    chosen = read_recipe(recipe, steps=steps, seed=seed, variant=variant)
    sources = [read_source(folder, classes, chosen) for folder in folders]
    checkpoint = train(chosen, sources, output, machine=Machine(device, amp, save_every), init=init)
    click.echo(f"{checkpoint}")
    click.echo(f"next: python -m export {checkpoint} --output engines/NAME.onnx", err=True)


if __name__ == "__main__":
    sys.exit(run(training))
