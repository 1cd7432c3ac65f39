"""``python -m training.speed RECIPE --data DIR``: how fast the trainer is, and what comes out.

The run is done once in float32 (TF32 where a GPU has it, torch's default for convolutions) and once
in mixed precision; each is evaluated on the test images. Beside each stand the same steps on one
batch that lies on the device already: what the run loses on that is what reading and augmenting
cost.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import shlex
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import click

from tinyunet_deploy.cli import run
from tinyunet_deploy.cli.options import ClassList, debug_option
from training.__main__ import tune_malloc

WARM_UP: Final = 40
"""Steps at the start that are not timed: choosing kernels, filling the loaders."""
PUBLISHED: Final = {"A100": {"float32": 136, "amp": 255}, "V100": {"amp": 169}}
"""Images/s of one GPU in training, published with NVIDIA's U-Net Industrial for TensorFlow 1."""


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("recipe", default="reference")
@click.option(
    "--data",
    required=True,
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="A data set with train and test images.",
)
@click.option("--classes", type=ClassList(), help="Only these classes, such as 1,3-5.")
@click.option("--steps", type=click.IntRange(min=1), help="Instead of the recipe's.")
@click.option(
    "--resident-steps",
    default=200,
    show_default=True,
    type=click.IntRange(min=1),
    help="Steps on the batch that lies on the device.",
)
@click.option("--device", default="cpu", show_default=True, help="cpu, cuda, or one as cuda:1.")
@click.option(
    "--runs",
    default=Path("runs/speed"),
    show_default=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="Where the runs are kept; a finished one is not timed again, so give a new folder.",
)
@click.option(
    "-o",
    "--output",
    default=Path("benchmarks/results/training_speed.json"),
    show_default=True,
    type=click.Path(path_type=Path, dir_okay=False),
)
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
    """Train by RECIPE in float32 and in mixed precision, and time it."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    import torch
    from torch import Tensor

    from tinyunet_deploy.errors import RefusedError
    from tinyunet_deploy.files import json_value, write_atomic
    from tinyunet_deploy.host import describe_machine
    from tinyunet_deploy.speed.clock_rates import read_clock_rates
    from training.data import read_source
    from training.loop import LOADERS, Machine, batch_loader, train
    from training.recipe import read_recipe
    from training.recipe_comparison import figures_of

    chosen = read_recipe(recipe, steps=steps)
    if min(chosen.steps, resident_steps) <= WARM_UP + LOADERS:
        raise RefusedError("--steps", f"are too few: the first {WARM_UP + LOADERS} are not timed")
    source = read_source(data, classes, chosen)
    place = torch.device(device)
    draw = batch_loader([source], chosen, place)
    resident = [tensor.to(place) for tensor in draw(0)]

    def timed(
        load: Callable[[int], Sequence[Tensor]], count: int, machine: Machine, folder: Path
    ) -> tuple[float, float, Path]:
        """Images/s after the warm-up, seconds of the whole run, its checkpoint."""
        stamps: dict[int, float] = {}

        def load_and_stamp(step: int) -> Sequence[Tensor]:
            # each step asks for one batch, so as many steps lie between two stamps
            stamps[step] = time.perf_counter()
            return load(step)

        asked = dataclasses.replace(chosen, steps=count)
        began = time.perf_counter()
        checkpoint = train(asked, [source], folder, machine=machine, load=load_and_stamp)
        seconds = time.perf_counter() - began
        first, last = WARM_UP + LOADERS, count
        if last not in stamps:
            raise RefusedError(folder, "holds a finished run, which cannot be timed again")
        images = (last - first) * chosen.batch
        return images / (stamps[last] - stamps[first]), seconds, checkpoint

    words = ["python", "-m", "training.speed", recipe, "--data", data.name]
    words += ["--classes", ",".join(map(str, classes))] if classes else []
    words += ["--steps", str(steps)] if steps else []
    words += ["--resident-steps", str(resident_steps), "--device", device]
    results = []
    for precision in ("float32", "amp"):
        machine = Machine(device, amp=precision == "amp", save_every=chosen.steps)
        with tempfile.TemporaryDirectory() as scratch:
            bare, _, _ = timed(lambda _: resident, resident_steps, machine, Path(scratch) / "run")
        clocks_before = read_clock_rates(device)
        rate, seconds, checkpoint = timed(draw, chosen.steps, machine, runs / precision)
        results.append(
            {
                "precision": precision,
                "images_per_s": rate,
                "resident_images_per_s": bare,
                "share_of_resident": rate / bare,
                "seconds_to_train": seconds,
                "clocks_before": dataclasses.asdict(clocks_before),
                "clocks_after": dataclasses.asdict(read_clock_rates(device)),
                **figures_of(data, checkpoint, device, classes),
            }
        )
        click.echo(
            f"{precision}: {rate:.1f} images/s, {rate / bare:.1%} of a resident batch; "
            f"{chosen.steps} steps in {seconds:.1f} s; "
            f"iou_defective {results[-1]['figures']['iou_defective']:.3f}"
        )
    document: dict[str, Any] = {
        "schema_version": 1,
        "command": shlex.join(words),
        "machine": describe_machine(),
        "torch": torch.__version__,
        "cudnn": torch.backends.cudnn.version(),
        "device": torch.cuda.get_device_name(place) if place.type == "cuda" else "cpu",
        "tf32_convolutions": place.type == "cuda" and torch.backends.cudnn.allow_tf32,
        "recipe": recipe,
        "recipe_sha256": chosen.digest(),
        "steps": chosen.steps,
        "batch": chosen.batch,
        "crop_px": chosen.data.crop,
        "resident_steps": resident_steps,
        "formula": f"images_per_s = batch * (steps - {WARM_UP}) / seconds of these steps, "
        f"the first {WARM_UP} left out; seconds_to_train = wall clock from the decoded images to "
        "the checkpoint on disk",
        "published_images_per_s": PUBLISHED,
        "results": json_value(results),
    }
    output.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(output, json.dumps(document, indent=1, allow_nan=False).encode(), durable=True)
    click.echo(output)


if __name__ == "__main__":
    tune_malloc()
    sys.exit(run(speed))
