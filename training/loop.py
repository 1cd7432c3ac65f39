"""One training run, from the first step to the checkpoint."""

from __future__ import annotations

import json
import logging
import math
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from tinyunet_deploy import __version__
from tinyunet_deploy.artifacts.checkpoint import load_checkpoint, save_checkpoint
from tinyunet_deploy.artifacts.golden import write_golden
from tinyunet_deploy.artifacts.network import TinyUNet, normalize
from tinyunet_deploy.artifacts.sidecar import digest, read_artifact, sidecar_path
from tinyunet_deploy.backends.torch import TorchBackend
from tinyunet_deploy.contract import Contract
from tinyunet_deploy.errors import DataError, RefusedError, RuntimeUnavailable
from tinyunet_deploy.files import lock_folder, write_atomic
from training.curves import Curves
from training.data import Sampler, Source, different, sources_digest
from training.distributed import ALONE, Ranks
from training.loss import segmentation_loss
from training.optimizer import learning_rate, make_optimizer
from training.recipe import Recipe
from training.rounding import int8_activations, rounds
from training.state import (
    State,
    remove_states,
    restore_state,
    save_state,
    states,
    stopped_by_signals,
)
from training.validation import choose_operating_point

log = logging.getLogger("training")

CHECKPOINT = "checkpoint.safetensors"
LOADERS = 4
"""Threads that draw batches, each those of one step ahead."""


@dataclass(frozen=True)
class Machine:
    """Where and how a run computes; the recipe says what."""

    device: str = "cpu"
    """cpu, cuda, or one GPU such as cuda:1; processes that share a machine take one GPU each."""
    amp: bool = False
    """fp16 with loss scaling on CUDA, bf16 autocast on a CPU; the weights stay float32."""
    compiled: bool = False
    """Let torch.compile fuse what lies between the convolutions."""
    save_every: int = 250
    """Steps between two resumable states."""


def train(
    recipe: Recipe,
    sources: Sequence[Source],
    output: Path,
    *,
    machine: Machine,
    ranks: Ranks = ALONE,
    init: Path | None = None,
    load: Callable[[int], Sequence[Tensor]] | None = None,
) -> Path:
    """Train, or go on where an earlier call with the same output folder stopped.

    SIGTERM and SIGINT end the process at any point, its state saved.

    Args:
        ranks: the processes that share every batch; each calls this, with the same arguments.
        load: step, from 0 -> images and masks as :meth:`Sampler.batch` gives them, on any device;
            None draws them from the sources. Called by several threads.

    Returns:
        The checkpoint's path, ``output/checkpoint.safetensors``.

    Raises:
        RefusedError: the folder holds another run or is in use, or the loss is not finite.
        RuntimeUnavailable: no such device, no disk.
    """
    if not ranks.first:
        return _train(recipe, sources, output, machine, ranks, init, load)
    lock = lock_folder(output)
    try:
        return _train(recipe, sources, output, machine, ranks, init, load)
    finally:
        os.close(lock)


def _train(
    recipe: Recipe,
    sources: Sequence[Source],
    output: Path,
    machine: Machine,
    ranks: Ranks,
    init: Path | None,
    load: Callable[[int], Sequence[Tensor]] | None,
) -> Path:
    device = _device(machine, ranks)
    if recipe.batch % ranks.size:
        raise RefusedError(
            f"batch = {recipe.batch}", f"cannot be shared equally by {ranks.size} processes"
        )
    run = {
        "recipe": recipe.as_dict(),
        "recipe_sha256": recipe.digest(),
        "data_sha256": sources_digest(sources),
        "init_sha256": digest(init.read_bytes()) if init else None,
        "amp": machine.amp,
        "compiled": machine.compiled,
    }
    if ranks.first:
        _claim(output, run)
    ranks.wait()
    checkpoint = output / CHECKPOINT
    finished = checkpoint.exists() and sidecar_path(checkpoint).exists()
    _see_the_same(ranks, output, (run, finished, [path.name for path in states(output)]))
    if finished:
        load_checkpoint(checkpoint)
        if ranks.first:
            _finish(checkpoint)
        log.info("%s is finished already", output)
        return checkpoint

    torch.manual_seed(recipe.seed)
    network = load_checkpoint(init)[0] if init else TinyUNet(recipe.variant)
    if network.variant != recipe.variant:
        raise RefusedError(init or output, f"is a {network.variant} network", "check the recipe")
    network = network.to(device, memory_format=torch.channels_last).train()
    torch.backends.cudnn.benchmark = True  # the size of a batch never changes
    optimizer = make_optimizer(network.parameters(), recipe.optimizer)
    half = torch.float16 if device.type == "cuda" else torch.bfloat16
    scaler = torch.amp.GradScaler(device.type, enabled=machine.amp and half is torch.float16)
    state = State(network, optimizer, scaler)
    restore_state(output, state)
    first_step = state.step
    if first_step:
        log.info("going on at step %d of %d", first_step, recipe.steps)

    forward = ranks.wrap(network)
    if machine.compiled:
        forward = torch.compile(forward)
    validation = [example for source in different(sources) for example in source.validation]
    load = load or batch_loader(sources, recipe, device, ranks)
    curves = Curves(output / "tensorboard", first_step + 1) if ranks.first else None
    progress = Progress(
        TextColumn("training"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]:.4f}  dice {task.fields[dice]:.3f}"),
        TextColumn("{task.fields[rate]:.1f} images/s"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        disable=not (ranks.first and sys.stderr.isatty()),
    )

    def stop() -> None:
        if ranks.first:
            save_state(output, state)
            progress.stop()
            log.info("stopped after step %d; the same command goes on from there", state.step)

    started = time.monotonic()
    with stopped_by_signals(stop), progress, ThreadPoolExecutor(LOADERS) as loaders:
        bar = progress.add_task(
            "", total=recipe.steps, completed=first_step, loss=math.nan, dice=math.nan, rate=0.0
        )
        coming = deque(loaders.submit(load, first_step + ahead) for ahead in range(LOADERS))
        for step in range(first_step, recipe.steps):
            if recipe.validate_every and step and step % recipe.validate_every == 0:
                state.consider(choose_operating_point(network, validation, ranks))
            images, masks = coming.popleft().result()
            images_NCHW = images.to(device, non_blocking=True)
            truth_NCHW = masks.to(device, non_blocking=True).float()
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(recipe.schedule, step, recipe.steps)
            rounded = rounds(recipe.int8, recipe.seed, step)
            with (
                torch.autocast(device.type, half, enabled=machine.amp),
                int8_activations(network) if rounded else nullcontext(),
            ):
                logit_NCHW = forward(normalize(images_NCHW))
            loss, dice = segmentation_loss(recipe.loss, logit_NCHW, truth_NCHW, ranks)
            optimizer.zero_grad(set_to_none=True)
            # now, as this thread has little left to do but wait for a GPU: no launch is held up
            coming.append(loaders.submit(load, step + LOADERS))
            scaler.scale(loss).backward()
            with state.changing:
                scaler.step(optimizer)
                scaler.update()
                state.step = done = step + 1

            if not math.isfinite(loss.item()):
                raise RefusedError(output, f"the loss is {loss.item()} at step {step}")
            rate = (done - first_step) * recipe.batch / (time.monotonic() - started)
            progress.update(
                bar, completed=done, loss=loss.item(), dice=1.0 - dice.item(), rate=rate
            )
            if curves is not None:
                curves.add(
                    done,
                    loss=loss.item(),
                    dice=1.0 - dice.item(),
                    learning_rate=optimizer.param_groups[0]["lr"],
                    images_per_s=rate,
                )
            if done % 100 == 0:
                log.info(
                    "step %d of %d  loss %.4f  dice %.3f  %.1f images/s",
                    done, recipe.steps, loss.item(), 1.0 - dice.item(), rate,
                )  # fmt: skip
            if ranks.first and done % machine.save_every == 0 and done < recipe.steps:
                save_state(output, state)

        state.consider(choose_operating_point(network, validation, ranks))
        if ranks.first:
            _save_best(checkpoint, state, sources, run)
            _finish(checkpoint)
    ranks.wait()
    return checkpoint


def batch_loader(
    sources: Sequence[Source], recipe: Recipe, device: torch.device, ranks: Ranks = ALONE
) -> Callable[[int], Sequence[Tensor]]:
    """Step -> this process's images and masks, in page-locked memory if they go to a GPU."""
    sampler = Sampler(sources, recipe)

    def load(step: int) -> Sequence[Tensor]:
        batch = (torch.from_numpy(array) for array in sampler.batch(step, ranks.share))
        return [tensor.pin_memory() if device.type == "cuda" else tensor for tensor in batch]

    return load


def _claim(output: Path, run: dict[str, Any]) -> None:
    """Make the folder this run's own, or see that it is already."""
    record = output / "run.json"
    if not record.exists():
        write_atomic(record, json.dumps(run, indent=2).encode(), durable=True)
        return
    earlier = json.loads(record.read_text())
    for key, what in (
        ("recipe_sha256", "recipe"),
        ("data_sha256", "data"),
        ("init_sha256", "initial checkpoint"),
        ("amp", "precision"),
        ("compiled", "way to compute (--compile)"),
    ):
        if earlier.get(key) != run[key]:
            raise DataError(output, f"holds a run with another {what}", "give another --output")


def _see_the_same(ranks: Ranks, output: Path, seen: object) -> None:
    if any(other != seen for other in ranks.gather([seen])):
        raise DataError(
            output,
            "or the data are not the same on all nodes",
            "give every node the same recipe and data, and one shared --output",
        )


def _device(machine: Machine, ranks: Ranks) -> torch.device:
    try:
        device = torch.device(machine.device)
    except RuntimeError as error:
        raise RuntimeUnavailable(machine.device, "is no device", "cpu or cuda") from error
    if device.type == "cuda":
        if device.index is not None and ranks.size > 1:
            raise RefusedError(machine.device, "is one GPU for all processes", "use --device cuda")
        device = torch.device("cuda", ranks.local if device.index is None else device.index)
        count = torch.cuda.device_count()
        if device.index >= count:
            raise RuntimeUnavailable(str(device), f"is not here: {count} GPUs", "use --device cpu")
    elif device.type != "cpu":
        raise RuntimeUnavailable(machine.device, "cannot train", "use cpu or cuda")
    elif machine.amp and not has_bfloat16():
        raise RuntimeUnavailable("cpu", "does not compute in bf16 itself", "leave --amp out")
    return device


def has_bfloat16() -> bool:
    """Whether the CPU has instructions for bf16: emulated, it is slower than float32."""
    capabilities = torch.cpu.get_capabilities()
    return any(has is True and name.endswith("bf16") for name, has in capabilities.items())


def _save_best(
    checkpoint: Path, state: State, sources: Sequence[Source], run: dict[str, Any]
) -> None:
    best = state.best
    assert best is not None
    for name, value in best.weights.items():
        if not bool(torch.isfinite(value).all()):
            raise RefusedError(checkpoint.parent, f"{name} is not finite after step {best.step}")
    network = TinyUNet(state.network.variant)
    network.load_state_dict(best.weights)
    classes = {e.item.class_id for s in sources for e in s.defective} - {None}
    height = width = sources[0].defective[0].image.shape[0] // 16 * 16
    save_checkpoint(
        checkpoint,
        network,
        Contract(height, width),
        threshold=best.point.threshold,
        min_area=best.point.min_area,
        origin={
            **run,
            "step": best.step,
            "sources": [source.name for source in sources],
            "classes": sorted(classes),
            "images": {
                "defective": sum(len(s.defective) for s in different(sources)),
                "defect_free": sum(len(s.defect_free) for s in different(sources)),
                "validation": sum(len(s.validation) for s in different(sources)),
            },
            "operating_point": best.point.as_dict(),
            "versions": _versions(),
        },
    )


def _finish(checkpoint: Path) -> None:
    """What comes after the checkpoint; a run that was killed here does it when it is run again."""
    artifact = read_artifact(checkpoint)
    if artifact.sidecar.golden is None:
        with TorchBackend(artifact) as judge:
            write_golden(checkpoint, judge.score_alone)
    remove_states(checkpoint.parent)


def _versions() -> dict[str, str]:
    return {
        "tinyunet_deploy": __version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": sys.version.split()[0],
    }
