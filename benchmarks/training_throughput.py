"""``python -m benchmarks.training_throughput --data DIR``: the trainer against a plain loop.

The plain loop is the one that an engineer writes first: a Dataset that decodes and augments, a
DataLoader with workers, eager float32, the same network, batch, crop, optimizer and loss. Both run
W and then W + M steps; the rate is M batches divided by the difference of the two wall times, so
that the time to start and to finish does not count. They take turns, and the figure is the ratio of
the medians.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch.utils.data import DataLoader, Dataset

from benchmarks.options import (
    HELP,
    REPOSITORY,
    output_option,
    progress_lines,
    rounds_option,
    write_result,
)
from tinyunet_deploy.artifacts.network import make_network, normalize
from tinyunet_deploy.cli import run
from tinyunet_deploy.data.decoding import read_image
from tinyunet_deploy.data.layouts import read_dataset
from tinyunet_deploy.data.masks import read_mask
from tinyunet_deploy.host import describe_machine

_RECIPES = REPOSITORY / "training" / "recipes"
_WARM_UP = 2
"""Steps that are not timed, W."""


@click.command(context_settings=HELP)
@click.option(
    "--data",
    required=True,
    type=click.Path(path_type=Path, exists=True),
    help="A data set with training images.",
)
@click.option("--recipe", default="crops", show_default=True, help="A recipe with AdamW.")
@click.option(
    "--steps", default=10, show_default=True, type=click.IntRange(min=1), help="Timed steps, M."
)
@rounds_option
@output_option("training_throughput.json")
def training_throughput(data: Path, recipe: str, steps: int, rounds: int, output: Path) -> None:
    """Measure images/s of `python -m training` and of a plain PyTorch loop on the CPU."""
    values = tomllib.loads((_RECIPES / f"{recipe}.toml").read_text("utf-8"))
    loops: dict[str, Callable[[int], None]] = {
        "plain": lambda count: _plain_loop(data, values, count),
        "ours_fp32": lambda count: _our_loop(data, recipe, count),
        "ours_bf16": lambda count: _our_loop(data, recipe, count, "--amp"),
    }
    rates: dict[str, list[float]] = {name: [] for name in loops}
    with progress_lines(rounds * len(loops)) as progress:
        for _ in range(rounds):
            for name, loop in loops.items():
                seconds = _seconds(loop, _WARM_UP + steps) - _seconds(loop, _WARM_UP)
                rates[name].append(values["batch"] * steps / seconds)
                progress.advance()
                click.echo(f"{name}: {rates[name][-1]:.2f} images/s", err=True)
    medians = {name: statistics.median(values) for name, values in rates.items()}
    fields = {
        "machine": describe_machine(),
        "torch": torch.__version__,
        "recipe": recipe,
        "batch": values["batch"],
        "crop_px": values["data"]["crop"],
        "steps": steps,
        "rounds": rounds,
        "formula": "batch * steps / (seconds of W + steps steps - seconds of W steps), W = 2",
        "images_per_s": rates,
        "median_images_per_s": medians,
        "ratio_to_plain": {name: rate / medians["plain"] for name, rate in medians.items()},
    }
    write_result(output, fields)
    click.echo(json.dumps(fields["ratio_to_plain"]))


def _seconds(loop: Callable[[int], None], steps: int) -> float:
    started = time.perf_counter()
    loop(steps)
    return time.perf_counter() - started


def _our_loop(data: Path, recipe: str, steps: int, *options: str) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        subprocess.run(
            [
                sys.executable, "-m", "training", recipe, "--data", data.resolve(), "--steps",
                str(steps), "--output", f"{scratch}/run", *options,
            ],
            cwd=REPOSITORY, check=True, capture_output=True,
        )  # fmt: skip


class _Images(Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """The training images, each decoded, cropped and turned whenever it is read."""

    def __init__(self, data: Path, values: dict[str, Any], count: int) -> None:
        self.items = read_dataset(data, split="train").items
        self.values = values
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        rng = np.random.default_rng(index)
        item = self.items[rng.integers(len(self.items))]
        image = read_image(item.image)
        mask = read_mask(item, image.shape)
        side = self.values["data"]["crop"]
        y, x = rng.integers(0, np.array(image.shape) - side + 1)
        turns = int(rng.integers(4))
        image, mask = (np.rot90(a[y : y + side, x : x + side], turns) for a in (image, mask))
        if rng.random() < 0.5:
            image, mask = image[:, ::-1], mask[:, ::-1]
        pair = (torch.from_numpy(a.copy())[None] for a in (image, mask // 255))
        image_CHW, mask_CHW = pair
        return image_CHW, mask_CHW.float()


def _plain_loop(data: Path, values: dict[str, Any], steps: int) -> None:
    images = _Images(data, values, steps * values["batch"])
    network = make_network().train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=values["schedule"]["rate"])
    for image_NCHW, truth_NCHW in DataLoader(images, batch_size=values["batch"], num_workers=2):
        logit_NCHW = network(normalize(image_NCHW))
        probability = torch.sigmoid(logit_NCHW)
        overlap = 2.0 * (probability * truth_NCHW).sum() + 1.0
        loss = 1.0 - overlap / (probability.sum() + truth_NCHW.sum() + 1.0)
        if loss.item() >= 0.3:
            loss = F.binary_cross_entropy_with_logits(logit_NCHW, truth_NCHW)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


if __name__ == "__main__":
    sys.exit(run(training_throughput))
