"""``python -m training RECIPE --data DIR --output RUN``."""

from __future__ import annotations

import functools
import logging
import os
import sys
from pathlib import Path
from typing import NoReturn

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
@click.option(
    "--device", default="cpu", show_default=True, help="cpu, cuda, or one such as cuda:1."
)
@click.option("--amp", is_flag=True, help="Mixed precision: fp16 on CUDA, bf16 on a CPU.")
@click.option("--compile", "compiled", is_flag=True, help="Use torch.compile.")
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
    compiled: bool,
    save_every: int,
) -> None:
    """Train a network by RECIPE, a TOML file or the name of one in training/recipes.

    Writes OUTPUT/checkpoint.safetensors with its sidecar. The same command run again goes on where
    it stopped. On several GPUs or nodes: torchrun --nproc-per-node N -m training RECIPE ...
    """
    from training.data import read_source
    from training.distributed import join_ranks
    from training.loop import Machine, train
    from training.recipe import read_recipe

    chosen = read_recipe(recipe, steps=steps, seed=seed, variant=variant)
    read = functools.cache(functools.partial(read_source, classes=classes, recipe=chosen))
    with join_ranks() as ranks:
        level = logging.INFO if ranks.first else logging.WARNING
        logging.basicConfig(level=level, format="%(message)s", stream=sys.stderr)
        checkpoint = train(
            chosen,
            [read(folder) for folder in folders],
            output,
            machine=Machine(device, amp, compiled, save_every),
            ranks=ranks,
            init=init,
        )
    if ranks.first:
        click.echo(f"{checkpoint}")
        click.echo(f"next: python -m export {checkpoint} --output engines/NAME.onnx", err=True)


def tune_malloc() -> None:
    """Have glibc keep freed memory, in huge pages, for it to be used again.

    The activations of a step are some 100 MB each; giving them back and touching them anew takes
    more than a third of a step on a CPU. glibc reads its tunables as a process starts, so this
    starts the process again, before torch is imported.
    """
    if sys.platform == "linux" and "GLIBC_TUNABLES" not in os.environ:
        os.environ["GLIBC_TUNABLES"] = ":".join(
            (
                "glibc.malloc.hugetlb=1",
                "glibc.malloc.mmap_max=0",
                f"glibc.malloc.trim_threshold={2**31 - 1}",
            )
        )
        os.execv(sys.executable, sys.orig_argv)


def leave(code: int) -> NoReturn:
    """End this process.

    DDP keeps gloo's threads alive after ``destroy_process_group``, and now and then they abort a
    process that ends in the usual way ("terminate called without an active exception", torch
    2.13). So what torchrun started ends without taking down what torch has left.
    """
    if "TORCHELASTIC_RUN_ID" in os.environ:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


if __name__ == "__main__":
    tune_malloc()
    leave(run(training))
