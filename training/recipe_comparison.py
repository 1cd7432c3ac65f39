"""``python -m training.recipe_comparison``: compare recipes over seeds and data sets."""

from __future__ import annotations

import dataclasses
import logging
import math
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from tinyunet_deploy.cli import run
from tinyunet_deploy.cli.options import debug_option
from tinyunet_deploy.files import json_value
from training.commands import (
    HELP,
    amp_option,
    device_option,
    log_to_stderr,
    result_option,
    runs_option,
    steps_option,
    tune_malloc,
    write_result,
)

if TYPE_CHECKING:
    from training.machine import Machine
    from training.recipe import Recipe

_CROPS_ON_DEFECT: Final = 0.8
"""Share of the crops of a defective image that are placed on its defect, with ``--crop``."""
_COLUMNS: Final = (
    "iou_defective", "escape_rate", "overkill_rate", "dice_reference", "dice_nothing",
)  # fmt: skip
"""Figures that are printed; the result has them all."""


@dataclass(frozen=True)
class TrainedRecipe:
    """One trained network on the test images of the data that it was trained on."""

    recipe: str
    recipe_sha256: str
    data: str
    seed: int
    steps: int
    step: int
    """Step whose weights were kept."""
    threshold: float
    min_area_px: int
    escapes: int
    defective: int
    overkills: int
    defect_free: int
    figures: dict[str, float]


@click.command(context_settings=HELP)
@click.argument("recipes", nargs=-1, required=True)
@click.option(
    "--data",
    "folders",
    multiple=True,
    required=True,
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="A data set with train and test images, such as dagm2007/Class1; give it again for more.",
)
@click.option("--seeds", default=3, show_default=True, type=click.IntRange(min=1))
@steps_option
@click.option(
    "--crop",
    type=click.IntRange(min=1),
    help="Crops of this side, most of them on a defect, instead of the recipes' own: small ones "
    "let a CPU compare recipes in an hour.",
)
@device_option
@amp_option
@runs_option("runs/compare", "Folder of the runs; finished ones are not run again.")
@result_option("training.json")
@debug_option
def compare_recipes(
    recipes: tuple[str, ...],
    folders: tuple[Path, ...],
    seeds: int,
    steps: int | None,
    crop: int | None,
    device: str,
    amp: bool,
    runs: Path,
    output: Path,
) -> None:
    """Train each RECIPE on each data set with seeds 0, 1, ... and evaluate it on the test images.

    Threshold and min_area are those of the run, chosen without the test images. Prints a Markdown
    table and writes OUTPUT after every run. The same command resumes an interrupted comparison.
    """
    log_to_stderr()
    import torch

    from tinyunet_deploy.host import describe_machine
    from training.machine import Machine
    from training.recipe import read_recipe

    for name in recipes:
        multiple = read_recipe(name).architecture.size_multiple
        if crop is not None and crop % multiple:
            raise click.BadParameter(f"must be a multiple of {multiple}", param_hint="--crop")
    trained = []
    for seed in range(seeds):  # outermost, so that a comparison cut short has every cell
        for folder in folders:
            for name in recipes:
                recipe = read_recipe(name, seed=seed, steps=steps)
                if crop is not None:
                    recipe = _on_crops(recipe, crop)
                machine = Machine(device, amp)
                trained.append(_train(Path(name).stem, recipe, folder, runs, machine))
                fields = {
                    "command": "python -m training.recipe_comparison " + " ".join(sys.argv[1:]),
                    "machine": describe_machine(),
                    "torch": torch.__version__,
                    "amp": amp,
                    "device": device,
                    "crop_px": crop,
                    "results": [json_value(dataclasses.asdict(one)) for one in trained],
                    "summary": _summary(trained),
                }
                write_result(output, fields)
    click.echo(_table(_summary(trained)))


def _on_crops(recipe: Recipe, side: int) -> Recipe:
    """Return the recipe on square crops, ``side`` pixels wide."""
    data = dataclasses.replace(
        recipe.data,
        crop=side,
        crop_on_defect=max(recipe.data.crop_on_defect, _CROPS_ON_DEFECT),
        defect_margin=0,
    )
    return dataclasses.replace(recipe, data=data)


def _train(name: str, recipe: Recipe, folder: Path, runs: Path, machine: Machine) -> TrainedRecipe:
    from training.figures import figures_of
    from training.loop import train
    from training.sources import read_source

    data = "/".join(folder.resolve().parts[-2:])
    output = runs / f"{name}-{data.replace('/', '-')}-seed{recipe.seed}"
    logging.info("%s", output.name)
    source = read_source(folder, None, recipe)
    checkpoint = train(recipe, [source], output, machine=machine)
    return TrainedRecipe(
        recipe=name,
        recipe_sha256=recipe.digest(),
        data=data,
        seed=recipe.seed,
        steps=recipe.steps,
        **figures_of(folder, checkpoint, machine.device),
    )


def _summary(trained: Sequence[TrainedRecipe]) -> list[dict[str, Any]]:
    """Return, per recipe and data set, each figure's mean, range and sample standard deviation."""
    cells: dict[tuple[str, str], list[TrainedRecipe]] = {}
    for one in trained:
        cells.setdefault((one.data, one.recipe), []).append(one)
    return [
        {
            "data": data,
            "recipe": recipe,
            "seeds": len(cell),
            "steps": cell[0].steps,
            **{
                name: json_value(_spread([one.figures[name] for one in cell]))
                for name in cell[0].figures
            },
        }
        for (data, recipe), cell in sorted(cells.items())
    ]


def _spread(values: Sequence[float]) -> dict[str, float]:
    return {
        "mean": statistics.fmean(values),
        "min": min(values),
        "max": max(values),
        "sd": statistics.stdev(values) if len(values) > 1 else math.nan,
    }


def _table(summary: Sequence[dict[str, Any]]) -> str:
    """Return the summary as a Markdown table."""

    def cell(spread: dict[str, float | None]) -> str:
        if spread["mean"] is None:
            return "-"
        return f"{spread['mean']:.3f} ({spread['min']:.3f} to {spread['max']:.3f})"

    lines = ["| data | recipe | steps | seeds | " + " | ".join(_COLUMNS) + " |"]
    lines.append("|---" * (4 + len(_COLUMNS)) + "|")
    for row in summary:
        head = f"| {row['data']} | {row['recipe']} | {row['steps']} | {row['seeds']} | "
        lines.append(head + " | ".join(cell(row[name]) for name in _COLUMNS) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    tune_malloc()
    sys.exit(run(compare_recipes))
