"""``python -m training.recipe_comparison``: recipes side by side, over seeds and data sets."""

from __future__ import annotations

import dataclasses
import json
import logging
import math
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import click

from tinyunet_deploy.cli import run
from tinyunet_deploy.cli.options import debug_option
from tinyunet_deploy.contract import SIZE_MULTIPLE
from tinyunet_deploy.files import json_value
from training.__main__ import tune_malloc
from training.recipe import Recipe, read_recipe

FIGURES: Final = ("iou_defective", "iou_global", "escape_rate", "overkill_rate", "auroc")
REFERENCE_THRESHOLD: Final = 0.99
"""The threshold of the published figures."""
CROPS_ON_DEFECT: Final = 0.8
"""Share of the crops of a defective image that hold some of its defect, under ``--crop``."""


@dataclass(frozen=True)
class Result:
    """One trained network on the test images of the data that it was trained on."""

    recipe: str
    recipe_sha256: str
    data: str
    seed: int
    steps: int
    step: int
    """The step whose weights were kept."""
    threshold: float
    min_area_px: int
    escapes: int
    defective: int
    overkills: int
    defect_free: int
    figures: dict[str, float]


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
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
@click.option("--steps", type=click.IntRange(min=1), help="Instead of the recipes'.")
@click.option(
    "--crop",
    type=click.IntRange(min=SIZE_MULTIPLE),
    help="Crops of this side, most of them on a defect, instead of what the recipes draw: what a "
    "CPU can compare in an hour.",
)
@click.option("--device", default="cpu", show_default=True, help="cpu or cuda.")
@click.option("--amp", is_flag=True, help="Mixed precision: fp16 on CUDA, bf16 on a CPU.")
@click.option(
    "--runs",
    default=Path("runs/compare"),
    show_default=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="Where the runs are kept; those that are finished are not run again.",
)
@click.option(
    "-o",
    "--output",
    default=Path("benchmarks/results/training.json"),
    show_default=True,
    type=click.Path(path_type=Path, dir_okay=False),
)
@debug_option
def compare(
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
    table and writes OUTPUT after every run. The same command run again goes on where it stopped.
    """
    if crop is not None and crop % SIZE_MULTIPLE:
        raise click.BadParameter(f"must be a multiple of {SIZE_MULTIPLE}", param_hint="--crop")
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    import torch

    from tinyunet_deploy.files import write_atomic
    from tinyunet_deploy.host import describe_machine
    from training.data import read_source
    from training.loop import Machine, train

    results = []
    for seed in range(seeds):  # outermost, so that a comparison cut short has every cell
        for folder in folders:
            data = "/".join(folder.resolve().parts[-2:])
            for name in recipes:
                recipe = read_recipe(name, seed=seed, steps=steps)
                if crop is not None:
                    recipe = _on_crops(recipe, crop)
                place = runs / f"{Path(name).stem}-{data.replace('/', '-')}-seed{seed}"
                logging.info("%s", place.name)
                source = read_source(folder, None, recipe)
                checkpoint = train(recipe, [source], place, machine=Machine(device, amp))
                results.append(
                    Result(
                        recipe=Path(name).stem,
                        recipe_sha256=recipe.digest(),
                        data=data,
                        seed=seed,
                        steps=recipe.steps,
                        **figures_of(folder, checkpoint, device),
                    )
                )
                document = {
                    "schema_version": 1,
                    "command": "python -m training.recipe_comparison " + " ".join(sys.argv[1:]),
                    "machine": describe_machine(),
                    "torch": torch.__version__,
                    "amp": amp,
                    "device": device,
                    "crop_px": crop,
                    "results": [json_value(dataclasses.asdict(result)) for result in results],
                    "summary": _summary(results),
                }
                output.parent.mkdir(parents=True, exist_ok=True)
                text = json.dumps(document, indent=1, allow_nan=False)
                write_atomic(output, text.encode(), durable=True)
    click.echo(_table(_summary(results)))


def _on_crops(recipe: Recipe, side: int) -> Recipe:
    """The recipe on square crops of so many pixels."""
    data = dataclasses.replace(
        recipe.data,
        crop=side,
        crop_on_defect=max(recipe.data.crop_on_defect, CROPS_ON_DEFECT),
        defect_margin=0,
    )
    return dataclasses.replace(recipe, data=data)


def figures_of(
    folder: Path, checkpoint: Path, device: str, classes: Sequence[int] | None = None
) -> dict[str, Any]:
    """The fields of a :class:`Result` that evaluation on the test images gives."""
    from tinyunet_deploy.backends.registry import open_backend
    from tinyunet_deploy.data.layouts import read_dataset
    from tinyunet_deploy.quality.dataset_scoring import held_out
    from tinyunet_deploy.quality.evaluation import evaluate

    device = "cuda:0" if device == "cuda" else device
    with open_backend(checkpoint, "torch", device) as backend:
        sidecar = backend.artifact.sidecar
        evaluation = evaluate(
            held_out(read_dataset(folder, classes=classes)),
            backend,
            threshold=sidecar.threshold,
            min_area=sidecar.min_area,
            batch_size=1,
            workers=2,
        )
    found = evaluation.all
    return {
        "step": sidecar.origin["step"],
        "threshold": sidecar.threshold,
        "min_area_px": sidecar.min_area,
        "escapes": found.escapes,
        "defective": found.defective,
        "overkills": found.overkills,
        "defect_free": found.images - found.defective,
        "figures": {
            **{name: getattr(found, name) for name in FIGURES},
            "dice_reference": found.dice_reference[REFERENCE_THRESHOLD],
            "dice_nothing": found.dice_nothing,
        },
    }


def _summary(results: Sequence[Result]) -> list[dict[str, Any]]:
    """Per recipe and data set: each figure's mean, range and sample standard deviation."""
    cells: dict[tuple[str, str], list[Result]] = {}
    for result in results:
        cells.setdefault((result.data, result.recipe), []).append(result)
    return [
        {
            "data": data,
            "recipe": recipe,
            "seeds": len(cell),
            "steps": cell[0].steps,
            **{
                name: json_value(_spread([result.figures[name] for result in cell]))
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
    def cell(spread: dict[str, float | None]) -> str:
        if spread["mean"] is None:
            return "-"
        return f"{spread['mean']:.3f} ({spread['min']:.3f} to {spread['max']:.3f})"

    names = ("iou_defective", "escape_rate", "overkill_rate", "dice_reference", "dice_nothing")
    lines = ["| data | recipe | steps | seeds | " + " | ".join(names) + " |"]
    lines.append("|---" * (4 + len(names)) + "|")
    for row in summary:
        head = f"| {row['data']} | {row['recipe']} | {row['steps']} | {row['seeds']} | "
        lines.append(head + " | ".join(cell(row[name]) for name in names) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    tune_malloc()
    sys.exit(run(compare))
