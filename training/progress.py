"""Progress of a training run: a bar, lines in the log, curves for TensorBoard."""

from __future__ import annotations

import logging
import math
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from training.curves import EVENTS, Curves
from training.recipe import Recipe

__all__ = ["TrainingProgress"]

log = logging.getLogger("training")
_LOG_EVERY_S = 8.0
"""Longest time without a line in the log, seconds, if a step does not take longer."""


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
            console=Console(stderr=True),
            disable=not (first and sys.stderr.isatty()),
        )
        self._task = self._bar.add_task(
            "", total=recipe.steps, completed=first_step, loss=math.nan, dice=math.nan, rate=0.0
        )
        self._started = self._logged = time.monotonic()

    def report(self, done: int, *, loss: float, dice: float, learning_rate: float) -> None:
        """Report one step.

        Args:
            done: steps that are done, this one included.
            dice: Dice coefficient of the batch, 0..1.
        """
        images = (done - self._first_step) * self._recipe.batch
        now = time.monotonic()
        rate = images / (now - self._started)
        self._bar.update(self._task, completed=done, loss=loss, dice=dice, rate=rate)
        if self._curves is not None:
            self._curves.add(
                done, loss=loss, dice=dice, learning_rate=learning_rate, images_per_s=rate
            )
        begins = done == self._first_step + 1
        if begins or done == self._recipe.steps or now - self._logged >= _LOG_EVERY_S:
            self._logged = now
            log.info(
                "step %d of %d  loss %.4f  dice %.3f  %.1f images/s",
                done, self._recipe.steps, loss, dice, rate,
            )  # fmt: skip

    def stop(self) -> None:
        """Leave the terminal as it was before the bar; safe to call from another thread."""
        self._bar.stop()

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._bar.stop()
