"""Progress of a training run: a bar, lines in the log, curves for TensorBoard."""

from __future__ import annotations

import logging
import math
import sys
import time
from pathlib import Path
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from tinyunet_deploy.cli.progress import duration
from training.curves import EVENTS, VALIDATION, Curves
from training.recipe import Recipe
from training.validation import OperatingPoint

__all__ = ["TrainingProgress"]

log = logging.getLogger("training")
_LOG_EVERY_S = 8.0
"""Longest time without a line in the log, seconds, if a step does not take longer."""
_ESTIMATED_AT = 5
"""Step of this process, from 1, at which the time to the end is said for the first time: the first
step is slow, and the next few tell what the others take."""


class TrainingProgress:
    """Reports every step of a run; the process that is not the first stays silent."""

    def __init__(self, recipe: Recipe, output: Path, first_step: int, *, first: bool) -> None:
        """Start the reports.

        Args:
            output: the run's folder; ``tensorboard`` in it takes the curves.
            first_step: step that this process begins with, 0 unless the run is resumed.
            first: whether this is the process that reports.
        """
        self._recipe = recipe
        self._first_step = first_step
        self._curves = Curves(output / EVENTS, first_step + 1) if first else None
        self._bar = Progress(
            TextColumn("training"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("loss {task.fields[loss]:.4f}  dice {task.fields[dice]:.3f}"),
            TextColumn("{task.fields[rate]:.1f} images/s"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[reached]}"),
            console=Console(stderr=True),
            disable=not (first and sys.stderr.isatty()),
        )
        self._task = self._bar.add_task(
            "", total=recipe.steps, completed=first_step, loss=math.nan, dice=math.nan, rate=0.0,
            reached="",
        )  # fmt: skip
        self._started = self._logged = time.monotonic()
        self._first_done = self._started
        """When the first step of this process was done."""
        self._validations = 0
        self._validated_s = self._validated_before_s = 0.0
        self._reached = ""

    def report(self, done: int, *, loss: float, dice: float, learning_rate: float) -> None:
        """Report one step.

        Args:
            done: steps that are done, this one included.
            dice: Dice coefficient of the batch, 0..1.
        """
        images = (done - self._first_step) * self._recipe.batch
        now = time.monotonic()
        rate = images / (now - self._started - self._validated_s)
        self._bar.update(self._task, completed=done, loss=loss, dice=dice, rate=rate)
        if self._curves is not None:
            self._curves.add(
                done, loss=loss, dice=dice, learning_rate=learning_rate, images_per_s=rate
            )
        fresh = done - self._first_step
        if fresh == 1:
            self._first_done, self._validated_before_s = now, self._validated_s
        due = fresh in (1, _ESTIMATED_AT) or now - self._logged >= _LOG_EVERY_S
        if due or done == self._recipe.steps:
            self._logged = now
            left = self._time_left(done, now)
            log.info(
                "step %d of %d  loss %.4f  dice %.3f  %.1f images/s%s%s",
                done, self._recipe.steps, loss, dice, rate,
                f"  {left}" if left else "", f"  {self._reached}" if self._reached else "",
            )  # fmt: skip

    def validated(self, step: int, point: OperatingPoint, seconds: float) -> None:
        """Report what the weights after a step reach on the validation images, if there are any.

        Args:
            step: number of steps done.
            seconds: duration of the validation.
        """
        self._validations += 1
        self._validated_s += seconds
        if point.escapes is None or point.overkills is None:
            return
        good = point.validation_images - point.validation_defective
        iou = point.iou_defective or 0.0
        self._reached = (
            f"validation at step {step}: iou_defective {iou:.3f}, "
            f"escapes {point.escapes} of {point.validation_defective}, "
            f"overkills {point.overkills} of {good}"
        )
        self._bar.update(self._task, reached=self._reached)
        if self._curves is not None:
            values = (iou, float(point.escapes), float(point.overkills))
            self._curves.add(step, **dict(zip(VALIDATION, values, strict=True)))
        log.info("%s", self._reached)

    def _time_left(self, done: int, now: float) -> str:
        """Estimate the time to the end, in words; empty if nothing is left or known.

        Every step takes the mean of those after the first, every validation the mean so far.
        """
        fresh, left = done - self._first_step, self._recipe.steps - done
        if fresh < 2 or not left:
            return ""
        step_s = (now - self._first_done - (self._validated_s - self._validated_before_s)) / (
            fresh - 1
        )
        seconds, words = step_s * left, "about"
        every = self._recipe.validate_every
        validations = 1 + ((self._recipe.steps - 1) // every - (done - 1) // every if every else 0)
        unknown = self._recipe.data.validation and not self._validations
        if self._validations:
            seconds += self._validated_s / self._validations * validations
        if self._recipe.patience:
            words = "at most about"
        return f"{words} {duration(seconds)} left" + (" without validation" if unknown else "")

    def stop(self) -> None:
        """Leave the terminal as it was before the bar; safe to call from another thread."""
        self._bar.stop()

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()
