"""``python -m training.untrained RECIPE --data DIR -o FILE``: the network before its first step.

The value of training shows in a comparison with the same network untrained. For a fair comparison,
its threshold and min_area are chosen on the same images that training keeps out.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click
import torch

from tinyunet_deploy.artifacts.checkpoint import save_checkpoint
from tinyunet_deploy.artifacts.network import Network, make_network
from tinyunet_deploy.cli import run
from tinyunet_deploy.cli.options import debug_option
from tinyunet_deploy.contract import Contract
from training.commands import HELP, classes_option, end_process, tune_malloc
from training.recipe import Recipe, read_recipe
from training.sources import Source, model_size, read_source
from training.validation import choose_operating_point

__all__ = ["initial_network", "write_untrained"]


def initial_network(recipe: Recipe) -> Network:
    """Return the network with which training begins: random weights from the recipe's seed."""
    torch.manual_seed(recipe.seed)
    return make_network(recipe.variant, recipe.network)


def write_untrained(recipe: Recipe, source: Source, checkpoint: Path) -> None:
    """Write the checkpoint of a run without steps.

    Args:
        checkpoint: file to write, ``NAME.safetensors``.

    Raises:
        RuntimeUnavailable: the disk is full, read-only or failing.
    """
    network = initial_network(recipe).eval()
    contract = Contract(*model_size([source], recipe.architecture.size_multiple))
    point = choose_operating_point(network, contract, source.validation)
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    save_checkpoint(
        checkpoint,
        network,
        contract,
        threshold=point.threshold,
        min_area=point.min_area,
        step=0,
        bits=source.bits,
        origin={"recipe": recipe.as_dict(), "operating_point": point.as_dict()},
    )


@click.command(context_settings=HELP)
@click.argument("recipe")
@click.option(
    "--data",
    required=True,
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Folder of images and masks.",
)
@classes_option
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="File of the checkpoint, NAME.safetensors.",
)
@debug_option
def untrained(recipe: str, data: Path, classes: Sequence[int] | None, output: Path) -> None:
    """Write the network with which training with RECIPE begins, for comparison with the trained
    one."""
    chosen = read_recipe(recipe)
    click.echo(f"reading the images of {data}", err=True)
    source = read_source(data, classes, chosen)
    click.echo(f"scoring {len(source.validation)} images with random weights", err=True)
    write_untrained(chosen, source, output)
    click.echo(output)


if __name__ == "__main__":
    tune_malloc()
    end_process(run(untrained))
