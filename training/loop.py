"""One training run, from the first step to the checkpoint."""

from __future__ import annotations

import ctypes
import json
import logging
import math
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch.utils.tensorboard import SummaryWriter

from tinyunet_deploy import __version__
from tinyunet_deploy.artifact import digest, sidecar_path
from tinyunet_deploy.checkpoint import load_checkpoint, save_checkpoint
from tinyunet_deploy.contract import Contract
from tinyunet_deploy.errors import DataError, RefusedError, RuntimeUnavailable
from tinyunet_deploy.files import write_atomic
from tinyunet_deploy.model import TinyUNet, normalize
from training.data import Sampler, Source, sources_digest
from training.loss import segmentation_loss
from training.operating_point import choose_operating_point
from training.optimizer import learning_rate, make_optimizer
from training.recipe import Recipe

log = logging.getLogger("training")

CHECKPOINT = "checkpoint.safetensors"


@dataclass(frozen=True)
class Machine:
    """Where and how a run computes; the recipe says what."""

    device: str = "cpu"
    amp: bool = False
    """fp16 with loss scaling on CUDA, bf16 autocast on a CPU; the weights stay float32."""
    save_every: int = 250
    """Steps between two resumable states."""


def train(
    recipe: Recipe,
    sources: Sequence[Source],
    output: Path,
    *,
    machine: Machine,
    init: Path | None = None,
) -> Path:
    """Train, or go on where an earlier call with the same output folder stopped.

    Returns:
        The checkpoint's path, ``output/checkpoint.safetensors``.

    Raises:
        RefusedError: the folder holds another run, or the loss is not finite.
        RuntimeUnavailable: no such device, no disk.
    """
    run = {
        "recipe": recipe.as_dict(),
        "recipe_sha256": recipe.digest(),
        "data_sha256": sources_digest(sources),
        "init_sha256": digest(init.read_bytes()) if init else None,
        "amp": machine.amp,
    }
    checkpoint = output / CHECKPOINT
    _claim(output, run)
    if checkpoint.exists() and sidecar_path(checkpoint).exists():
        load_checkpoint(checkpoint)
        log.info("%s is finished already", output)
        return checkpoint

    device = _device(machine)
    if device.type == "cpu":
        _keep_freed_memory()
    torch.manual_seed(recipe.seed)
    network = load_checkpoint(init)[0] if init else TinyUNet(recipe.variant)
    if network.variant != recipe.variant:
        raise RefusedError(init or output, f"is a {network.variant} network", "check the recipe")
    network = network.to(device, memory_format=torch.channels_last).train()
    optimizer = make_optimizer(network.parameters(), recipe.optimizer)
    half = torch.float16 if device.type == "cuda" else torch.bfloat16
    scaler = torch.amp.GradScaler(device.type, enabled=machine.amp and half is torch.float16)
    first_step = _restore(output, network, optimizer, scaler)
    if first_step:
        log.info("going on at step %d of %d", first_step, recipe.steps)

    sampler = Sampler(sources, recipe)
    writer = SummaryWriter(str(output / "tensorboard"), purge_step=first_step)
    progress = Progress(
        TextColumn("training"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]:.4f}  dice {task.fields[dice]:.3f}"),
        TextColumn("{task.fields[rate]:.1f} images/s"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        disable=not sys.stderr.isatty(),
    )
    started = time.monotonic()
    with progress, ThreadPoolExecutor(1) as loader, writer:
        bar = progress.add_task(
            "", total=recipe.steps, completed=first_step, loss=math.nan, dice=math.nan, rate=0.0
        )
        coming = loader.submit(sampler.batch, first_step)
        for step in range(first_step, recipe.steps):
            images, masks = coming.result()
            coming = loader.submit(sampler.batch, step + 1)
            images_NCHW = torch.from_numpy(images).to(device, non_blocking=True)
            truth_NCHW = torch.from_numpy(masks).to(device, non_blocking=True).float()
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(recipe.schedule, step, recipe.steps)
            with torch.autocast(device.type, half, enabled=machine.amp):
                logit_NCHW = network(normalize(images_NCHW))
            loss, dice = segmentation_loss(recipe.loss, logit_NCHW, truth_NCHW)
            optimizer.zero_grad(set_to_none=True)
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()

            if not math.isfinite(loss.item()):
                raise RefusedError(output, f"the loss is {loss.item()} at step {step}")
            done = step + 1
            rate = (done - first_step) * recipe.batch / (time.monotonic() - started)
            progress.update(
                bar, completed=done, loss=loss.item(), dice=1.0 - dice.item(), rate=rate
            )
            if done % 10 == 0 or done == recipe.steps:
                writer.add_scalar("loss", loss.item(), done)
                writer.add_scalar("dice", 1.0 - dice.item(), done)
                writer.add_scalar("learning_rate", optimizer.param_groups[0]["lr"], done)
                writer.add_scalar("images_per_s", rate, done)
            if done % 100 == 0:
                log.info(
                    "step %d of %d  loss %.4f  dice %.3f  %.1f images/s",
                    done, recipe.steps, loss.item(), 1.0 - dice.item(), rate,
                )  # fmt: skip
            if done % machine.save_every == 0 and done < recipe.steps:
                _save_state(output, done, network, optimizer, scaler)

    network = network.eval().to("cpu")
    validation = [example for source in sources for example in source.validation]
    point = choose_operating_point(network, validation)
    classes = sorted({str(e.item.class_id) for s in sources for e in s.defective})
    height = width = sources[0].defective[0].image.shape[0] // 16 * 16
    save_checkpoint(
        checkpoint,
        network,
        Contract(height, width),
        threshold=point.threshold,
        min_area=point.min_area,
        origin={
            **run,
            "classes": classes,
            "images": {
                "defective": sum(len(s.defective) for s in sources),
                "defect_free": sum(len(s.defect_free) for s in sources),
                "validation": len(validation),
            },
            "operating_point": point.as_dict(),
            "versions": _versions(),
        },
    )
    for state in _states(output):
        _remove_state(state)
    return checkpoint


def _claim(output: Path, run: dict[str, Any]) -> None:
    """Make the folder this run's own, or see that it is already."""
    output.mkdir(parents=True, exist_ok=True)
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
    ):
        if earlier.get(key) != run[key]:
            raise DataError(output, f"holds a run with another {what}", "give another --output")


def _device(machine: Machine) -> torch.device:
    device = torch.device(machine.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise RuntimeUnavailable(machine.device, "is not here", "use --device cpu")
    return device


def _keep_freed_memory() -> None:
    """Have glibc reuse freed memory: giving 100 MB activations back at every step costs a third."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        trim_threshold, mmap_max = -1, -4
        mallopt(mmap_max, 0)
        mallopt(trim_threshold, 2**31 - 1)


def _states(output: Path) -> list[Path]:
    """Resumable states, newest first."""
    return sorted(output.glob("state-*.safetensors"), reverse=True)


def _remove_state(state: Path) -> None:
    state.unlink()
    state.with_suffix(".json").unlink(missing_ok=True)


def _save_state(
    output: Path,
    step: int,
    network: TinyUNet,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
) -> None:
    """Write all that the next step depends on; keep the state before as well."""
    tensors = {f"network.{k}": v.detach().contiguous() for k, v in network.state_dict().items()}
    for index, state in optimizer.state_dict()["state"].items():
        for key, value in state.items():
            tensors[f"optimizer.{index}.{key}"] = torch.as_tensor(value).contiguous()
    data = safetensors.torch.save({k: v.cpu() for k, v in tensors.items()})
    path = output / f"state-{step:08d}.safetensors"
    about = {"step": step, "sha256": digest(data), "scaler": scaler.state_dict()}
    write_atomic(path.with_suffix(".json"), json.dumps(about).encode(), durable=True)
    write_atomic(path, data, durable=True)
    for old in _states(output)[2:]:
        _remove_state(old)


def _restore(
    output: Path,
    network: TinyUNet,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
) -> int:
    """Load the newest whole state. Returns the step to go on with, 0 for a new run."""
    for path in _states(output):
        try:
            about = json.loads(path.with_suffix(".json").read_text())
            data = path.read_bytes()
            if digest(data) != about["sha256"]:
                raise ValueError("it is not what was written")
        except (OSError, ValueError, KeyError) as error:
            log.warning("%s is skipped: %s", path, error)
            continue
        tensors = safetensors.torch.load(data)
        weights, states = {}, {}
        for name, value in tensors.items():
            if name.startswith("network."):
                weights[name.removeprefix("network.")] = value
            else:
                _, index, key = name.split(".")
                states.setdefault(int(index), {})[key] = value
        network.load_state_dict(weights)
        whole = optimizer.state_dict()
        optimizer.load_state_dict({**whole, "state": states})
        if about["scaler"]:
            scaler.load_state_dict(about["scaler"])
        return int(about["step"])
    return 0


def _versions() -> dict[str, str]:
    return {
        "tinyunet_deploy": __version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": sys.version.split()[0],
    }
