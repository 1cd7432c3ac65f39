"""One training run, from the first step to the checkpoint."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tinyunet_deploy.artifacts.checkpoint import load_checkpoint
from tinyunet_deploy.artifacts.facts import NetworkFacts
from tinyunet_deploy.artifacts.network import normalize
from tinyunet_deploy.artifacts.packaged import PACKAGED
from tinyunet_deploy.cli.stopping import reacting
from tinyunet_deploy.contract import Contract
from tinyunet_deploy.data.tiles import Tiling
from tinyunet_deploy.errors import RefusedError
from tinyunet_deploy.inspection.folder_lock import lock_folder
from training.batch_norm import add_batch_norm, keep_answers, plain_network
from training.batches import BatchQueue, Load, batch_loader
from training.data_folders import DataFolders
from training.distributed import ALONE, Ranks
from training.final_checkpoint import complete_run, write_checkpoint
from training.int8_steps import int8_activations, is_int8_step
from training.loss import distillation_loss, segmentation_loss
from training.machine import Machine, choose_device, half_precision
from training.optimizer import learning_rate, make_optimizer
from training.progress import TrainingProgress
from training.recipe import Recipe
from training.run_folder import (
    CHECKPOINT,
    claim_folder,
    claim_scores,
    is_finished,
    require_same_folder,
    run_record,
)
from training.run_result import write_result
from training.sources import Example, Source, model_size, validation_images
from training.state import State, restore_state, save_state, state_files
from training.teacher import crop_scorer, require_teacher, scores_digest, with_scores
from training.untrained import initial_network
from training.validation import choose_operating_point

__all__ = ["end_run", "first_state", "train"]

log = logging.getLogger("training")


def train(
    recipe: Recipe,
    sources: Sequence[Source],
    output: Path,
    *,
    machine: Machine,
    ranks: Ranks = ALONE,
    init: Path | None = None,
    teacher: Path | None = None,
    size: tuple[int, int] | None = None,
    load: Load | None = None,
    data: DataFolders | None = None,
) -> Path:
    """Train, or resume the run that an earlier call began in the same output folder.

    SIGTERM and SIGINT save the state and end the process at any point.

    Args:
        ranks: the processes that share every batch; each calls this, with the same arguments.
        init: checkpoint to start from; None starts from the weights that the recipe names.
        teacher: checkpoint to learn from, for a recipe with a share for a teacher.
        size: height and width of the model, pixels; None chooses them by the images
            (:func:`~training.sources.model_size`).
        load: function that draws the batches, called by several threads; None draws them from the
            sources.
        data: where the sources were read, for ``python -m training finish``.

    Returns:
        The checkpoint's path, ``output/checkpoint.safetensors``.

    Raises:
        RefusedError: the folder is in use, the loss is not finite, or a checkpoint or a teacher is
            missing or of no use to the recipe.
        DataError: the folder contains another run.
        RuntimeUnavailable: the device does not exist, or the disk cannot be written.
    """
    if init is None and recipe.start == "package":
        init = _packaged_checkpoint(recipe.variant)
    facts = NetworkFacts.of(recipe.variant, recipe.network)
    contract = _contract(facts, size or model_size(sources, facts.size_multiple or 1))
    require_teacher(recipe, teacher, sources)
    if recipe.batch_norm and ranks.size > 1:
        raise RefusedError("batch_norm = true", f"is for one process, not for {ranks.size}")
    device = choose_device(machine, ranks)
    run = _Run(recipe, output, machine, ranks, device, contract, init, teacher)
    if recipe.batch % ranks.size:
        raise RefusedError(
            f"batch = {recipe.batch}", f"cannot be shared equally by {ranks.size} processes"
        )
    if not ranks.first:
        return _train(run, sources, load, data)
    lock = lock_folder(output)
    try:
        checkpoint = _train(run, sources, load, data)
        lock.check()
        return checkpoint
    finally:
        lock.close()


def _packaged_checkpoint(variant: str) -> Path:
    """Return the checkpoint of the package with this network.

    Raises:
        RefusedError: the package has no such network.
    """
    if variant not in PACKAGED:
        what = f"has no {variant} network to start from, only {' and '.join(PACKAGED)}"
        hint = f"give --variant {' or '.join(PACKAGED)}, --init or --from-scratch"
        raise RefusedError("the package", what, hint)
    return PACKAGED[variant].with_suffix(".safetensors")


@dataclass(frozen=True)
class _Run:
    """Recipe, output folder, machine and earlier checkpoints of one training run."""

    recipe: Recipe
    output: Path
    machine: Machine
    ranks: Ranks
    device: torch.device
    contract: Contract
    init: Path | None
    teacher: Path | None


def _contract(facts: NetworkFacts, size: tuple[int, int]) -> Contract:
    """Return the size of the model's images.

    Raises:
        RefusedError: the network does not take images of this size.
    """
    height, width = size
    try:
        facts.check_size(height, width)
    except ValueError as error:
        where = f"a {facts.name} network for images of {height}x{width}"
        raise RefusedError(where, str(error)) from error
    return Contract(height, width)


def _train(
    run: _Run,
    sources: Sequence[Source],
    load: Load | None,
    data: DataFolders | None,
) -> Path:
    output, ranks, init, teacher = run.output, run.ranks, run.init, run.teacher
    checkpoint = output / CHECKPOINT
    finished = is_finished(checkpoint)
    record = run_record(run.recipe, sources, init, teacher, run.machine, run.contract)
    if ranks.first:
        claim_folder(output, record, data, init, teacher)
    ranks.wait()
    if teacher is not None and run.recipe.teacher_of == "images" and not finished:
        sources = with_scores(sources, teacher, output, run.machine, ranks)
        claim_scores(output, scores_digest(sources), ranks)
    names = [path.name for path in state_files(output)]
    require_same_folder(ranks, output, (record, finished, names))
    if finished:
        _, sidecar = load_checkpoint(checkpoint)
        if ranks.first:
            complete_run(checkpoint)
        done = sidecar.origin.get("steps_done", run.recipe.steps)
        log.info("%s is already finished, after %s of %d steps", output, done, run.recipe.steps)
        return checkpoint

    state = first_state(run.recipe, output, run.device, init, amp=run.machine.amp)
    restore_state(output, state)
    if state.step:
        log.info("resuming at step %d of %d", state.step, run.recipe.steps)
    progress = TrainingProgress(run.recipe, output, state.step, first=ranks.first)

    def save_and_stop() -> None:
        if ranks.first:
            save_state(output, state)
            progress.stop()
            log.info("stopped after step %d; the same command resumes the run", state.step)

    validation = validation_images(sources)
    if load is None:
        facts = state.network.facts
        tiling = Tiling(run.contract, facts.size_multiple, facts.reach)
        load = batch_loader(sources, run.recipe, tiling, run.device, ranks)
    if run.recipe.batch_norm and init is not None and not state.step:
        images = load(0)[0].to(run.device)
        keep_answers(state.network, normalize(images))
    with (
        reacting(save_and_stop, waits=False),
        progress,
        BatchQueue(load, state.step) as batches,
    ):
        score = None
        if teacher is not None and run.recipe.teacher_of == "crops":
            score = crop_scorer(teacher, run.device)
        _run_steps(run, state, batches, validation, progress, score)
        if ranks.first:
            end_run(state, run.contract, sources, record, output, init, teacher)
    ranks.wait()
    return checkpoint


def end_run(
    state: State,
    contract: Contract,
    sources: Sequence[Source],
    record: dict[str, Any],
    output: Path,
    init: Path | None,
    teacher: Path | None,
) -> Path:
    """Write the result of a run and the checkpoint of its best weights; remove its states.

    Args:
        contract: size of the model.
        record: the run's own record, which becomes part of the checkpoint's origin.
        init: checkpoint that the run started from.
        teacher: checkpoint that the run learned from.

    Raises:
        RefusedError: a weight is not finite.
        RuntimeUnavailable: the disk is full, read-only or failing.
    """
    checkpoint = output / CHECKPOINT
    write_result(output, state, record["recipe"]["steps"], validation_images(sources))
    write_checkpoint(checkpoint, state, contract, sources, record, init, teacher)
    complete_run(checkpoint)
    return checkpoint


def first_state(
    recipe: Recipe, output: Path, device: torch.device, init: Path | None = None, *, amp: bool
) -> State:
    """Return the state of a run before its first step.

    Args:
        output: the run's folder, which the error names.
        init: checkpoint to start from; None starts from random weights.
        amp: mixed precision, in which the loss is scaled on CUDA.

    Raises:
        RefusedError: the checkpoint has another network than the recipe.
    """
    network = load_checkpoint(init)[0] if init else initial_network(recipe)
    if network.facts != NetworkFacts.of(recipe.variant, recipe.network):
        raise RefusedError(
            init or output,
            f"is a {network.name} network, but the recipe is for {recipe.variant}",
            f"give --variant {network.name} or --from-scratch",
        )
    if recipe.batch_norm:
        add_batch_norm(network)
    network = network.to(
        device,
        memory_format=torch.channels_last,  # type: ignore[call-overload]  # torch's stubs lack it
    ).train()
    torch.backends.cudnn.benchmark = True  # the size of a batch never changes
    optimizer = make_optimizer(network.parameters(), recipe.optimizer)
    scaled = amp and half_precision(device) is torch.float16
    return State(network, optimizer, torch.amp.GradScaler(device.type, enabled=scaled))


def _run_steps(
    run: _Run,
    state: State,
    batches: BatchQueue,
    validation: Sequence[Example],
    progress: TrainingProgress,
    score_crops: Callable[[Tensor], Tensor] | None,
) -> None:
    """Run the remaining steps, and leave the best weights in ``state.best``.

    The state after the last step is saved before it is validated, so that nothing that fails
    afterwards costs the training.

    Args:
        score_crops: the teacher of crops, uint8 -> uint8 [N, 1, H, W]; None without one.
    """

    def validate() -> None:
        started = time.monotonic()
        plain = plain_network(network)
        point = choose_operating_point(plain, run.contract, validation, ranks)
        state.consider(point)
        progress.validated(state.step, point, time.monotonic() - started)

    recipe, device, ranks = run.recipe, run.device, run.ranks
    network, optimizer, scaler = state.network, state.optimizer, state.scaler
    forward: Callable[[Tensor], Tensor] = ranks.wrap(network)
    if run.machine.compiled:
        forward = torch.compile(forward)
    for step in range(state.step, recipe.steps):
        if recipe.validate_every and step and step % recipe.validate_every == 0:
            validate()
            if _is_patience_over(recipe, state):
                log.info("ended after step %d of %d: no better validation", step, recipe.steps)
                if ranks.first:
                    save_state(run.output, state)
                return
        images, masks, *taught = batches.take()
        images_NCHW = images.to(device, non_blocking=True)
        truth_NCHW = masks.to(device, non_blocking=True).float()
        rate = learning_rate(recipe.schedule, step, recipe.steps)
        for group in optimizer.param_groups:
            group["lr"] = rate
        with (
            torch.autocast(device.type, half_precision(device), enabled=run.machine.amp),
            int8_activations(network)
            if is_int8_step(recipe.int8, recipe.seed, step)
            else nullcontext(),
        ):
            logit_NCHW = forward(normalize(images_NCHW))
            if score_crops:
                taught.insert(0, score_crops(images_NCHW))
        if taught:
            score_NCHW, labelled_N = taught[0].to(device, non_blocking=True), taught[1].bool()
            loss, dice_loss = distillation_loss(
                recipe, logit_NCHW, truth_NCHW, score_NCHW, labelled_N, ranks
            )
        else:
            loss, dice_loss = segmentation_loss(recipe.loss, logit_NCHW, truth_NCHW, ranks)
        optimizer.zero_grad(set_to_none=True)
        # Here, as this thread has little left to do but wait for a GPU: no launch is held up.
        batches.draw_next()
        scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        with state.changing:
            scaler.step(optimizer)
            scaler.update()
            state.step = done = step + 1

        if not math.isfinite(loss.item()):
            raise RefusedError(
                run.output,
                f"the loss is {loss.item()} at step {step}",
                "lower the recipe's rate; python -m training finish takes the last saved state",
            )
        progress.report(done, loss=loss.item(), dice=1.0 - dice_loss.item(), learning_rate=rate)
        if ranks.first and done % run.machine.save_every == 0 and done < recipe.steps:
            save_state(run.output, state)

    if ranks.first:
        save_state(run.output, state)
    validate()


def _is_patience_over(recipe: Recipe, state: State) -> bool:
    """Return whether the recipe's number of validations brought nothing better.

    Steps alone decide, so that a resumed run ends where an undisturbed one ends.
    """
    if not recipe.patience or state.best is None:
        return False
    return state.step - state.best.step >= recipe.patience * recipe.validate_every
