"""``python -m training.speed RECIPE --data DIR``: speed and result of the trainer.

The run is done once in float32 (TF32 where a GPU has it, torch's default for convolutions) and once
in mixed precision; each is evaluated on the test images. Steps on one batch that is already on the
device are timed as well: the difference of the two rates is the cost of reading and augmenting.
"""

from __future__ import annotations

import dataclasses
import shlex
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from tinyunet_deploy.cli import run
from tinyunet_deploy.cli.options import debug_option
from tinyunet_deploy.errors import RefusedError
from training.commands import (
    HELP,
    classes_option,
    device_option,
    log_to_stderr,
    result_option,
    runs_option,
    steps_option,
    tune_malloc,
    write_result,
)

if TYPE_CHECKING:
    from torch import Tensor

    from training.batches import Load
    from training.machine import Machine
    from training.recipe import Recipe
    from training.sources import Source

_WARM_UP: Final = 40
"""Number of steps at the start that are not timed: they choose kernels and fill the queue of
batches."""
PUBLISHED: Final = {"A100": {"float32": 136, "amp": 255}, "V100": {"amp": 169}}
"""Images/s of one GPU in training, published with NVIDIA's U-Net Industrial for TensorFlow 1."""


@dataclass(frozen=True)
class _TimedRun:
    images_per_s: float
    """Rate after the warm-up."""
    seconds: float
    """Duration of the whole run."""
    checkpoint: Path


@click.command(context_settings=HELP)
@click.argument("recipe", default="reference")
@click.option(
    "--data",
    required=True,
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="A data set with train and test images.",
)
@classes_option
@steps_option
@click.option(
    "--resident-steps",
    default=200,
    show_default=True,
    type=click.IntRange(min=1),
    help="Steps on the batch that lies on the device.",
)
@device_option
@runs_option(
    "runs/speed",
    "Folder of the runs; a finished run is not timed again, so name a new folder.",
)
@result_option("training_speed.json")
@debug_option
def speed(
    recipe: str,
    data: Path,
    classes: tuple[int, ...] | None,
    steps: int | None,
    resident_steps: int,
    device: str,
    runs: Path,
    output: Path,
) -> None:
    """Train with RECIPE in float32 and in mixed precision, and time both."""
    log_to_stderr()
    import torch

    from tinyunet_deploy.files import json_value
    from tinyunet_deploy.host import describe_machine
    from training.figures import figures_of
    from training.recipe import read_recipe
    from training.sources import read_source

    chosen = read_recipe(recipe, steps=steps)
    untimed = _untimed_steps()
    if min(chosen.steps, resident_steps) <= untimed:
        raise RefusedError("--steps", f"are too few: the first {untimed} are not timed")
    source = read_source(data, classes, chosen)
    rows = []
    for precision in ("float32", "amp"):
        row, checkpoint = _measure(precision, chosen, source, resident_steps, device, runs)
        row |= figures_of(data, checkpoint, device, classes)
        rows.append(row)
        click.echo(
            f"{precision}: {row['images_per_s']:.1f} images/s, "
            f"{row['share_of_resident']:.1%} of a resident batch; "
            f"{chosen.steps} steps in {row['seconds_to_train']:.1f} s; "
            f"iou_defective {row['figures']['iou_defective']:.3f}"
        )
    words = ["python", "-m", "training.speed", recipe, "--data", data.name]
    words += ["--classes", ",".join(map(str, classes))] if classes else []
    words += ["--steps", str(steps)] if steps else []
    words += ["--resident-steps", str(resident_steps), "--device", device]
    place = torch.device(device)
    fields = {
        "command": shlex.join(words),
        "machine": describe_machine(),
        "torch": torch.__version__,
        "cudnn": torch.backends.cudnn.version(),  # type: ignore[no-untyped-call]
        "device": torch.cuda.get_device_name(place) if place.type == "cuda" else "cpu",
        "tf32_convolutions": place.type == "cuda" and torch.backends.cudnn.allow_tf32,
        "recipe": recipe,
        "recipe_sha256": chosen.digest(),
        "steps": chosen.steps,
        "batch": chosen.batch,
        "crop_px": chosen.data.crop,
        "resident_steps": resident_steps,
        "formula": f"images_per_s = batch * (steps - {_WARM_UP}) / seconds of these steps, "
        f"the first {_WARM_UP} left out; seconds_to_train = wall clock from the decoded images to "
        "the checkpoint on disk",
        "published_images_per_s": PUBLISHED,
        "results": json_value(rows),
    }
    write_result(output, fields)
    click.echo(output)


def _untimed_steps() -> int:
    """Return the number of steps before the clock starts.

    A batch is drawn as many steps ahead as the queue is long, so the time stamps of the draws are
    ahead of the steps by as much.
    """
    from training.batches import DRAWN_AHEAD

    return _WARM_UP + DRAWN_AHEAD


def _measure(
    precision: str, recipe: Recipe, source: Source, resident_steps: int, device: str, runs: Path
) -> tuple[dict[str, Any], Path]:
    """Time the recipe, and then ``resident_steps`` steps on one resident batch.

    Returns:
        The times and clocks, and the checkpoint of the recipe's run.
    """
    import torch

    from tinyunet_deploy.contract import Contract
    from tinyunet_deploy.data.tiles import Tiling
    from tinyunet_deploy.speed.clock_rates import read_clock_rates
    from training.batches import batch_loader
    from training.machine import Machine
    from training.sources import model_size

    machine = Machine(device, amp=precision == "amp", save_every=recipe.steps)
    place = torch.device(device)
    multiple = recipe.architecture.size_multiple
    tiling = Tiling(Contract(*model_size([source], multiple)))
    draw = batch_loader([source], recipe, tiling, place)
    resident = [tensor.to(place) for tensor in draw(0)]
    few_steps = dataclasses.replace(recipe, steps=resident_steps)
    with tempfile.TemporaryDirectory() as scratch:
        bare = _timed_run(few_steps, source, Path(scratch) / "run", machine, lambda _: resident)
    clocks_before = read_clock_rates(device)
    trained = _timed_run(recipe, source, runs / precision, machine, draw)
    row = {
        "precision": precision,
        "images_per_s": trained.images_per_s,
        "resident_images_per_s": bare.images_per_s,
        "share_of_resident": trained.images_per_s / bare.images_per_s,
        "seconds_to_train": trained.seconds,
        "clocks_before": dataclasses.asdict(clocks_before),
        "clocks_after": dataclasses.asdict(read_clock_rates(device)),
    }
    return row, trained.checkpoint


def _timed_run(
    recipe: Recipe, source: Source, folder: Path, machine: Machine, load: Load
) -> _TimedRun:
    from training.loop import train

    stamps: dict[int, float] = {}

    def load_and_stamp(step: int) -> Sequence[Tensor]:
        # each step asks for one batch, so as many steps lie between two stamps
        stamps[step] = time.perf_counter()
        return load(step)

    began = time.perf_counter()
    checkpoint = train(recipe, [source], folder, machine=machine, load=load_and_stamp)
    seconds = time.perf_counter() - began
    first, last = _untimed_steps(), recipe.steps
    if last not in stamps:
        raise RefusedError(folder, "contains a finished run, which cannot be timed again")
    images = (last - first) * recipe.batch
    return _TimedRun(images / (stamps[last] - stamps[first]), seconds, checkpoint)


if __name__ == "__main__":
    tune_malloc()
    sys.exit(run(speed))
