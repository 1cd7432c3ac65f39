"""Batches as tensors, drawn ahead by threads."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Self

import torch
from torch import Tensor

from tinyunet_deploy.data.tiles import Tiling
from training.distributed import ALONE, Ranks
from training.recipe import Recipe
from training.sampler import Sampler
from training.sources import Source

__all__ = ["DRAWN_AHEAD", "BatchQueue", "Load", "batch_loader"]

Load = Callable[[int], Sequence[Tensor]]
"""Step, from 0 -> images, masks and a teacher's scores as :meth:`Sampler.batch` returns them, on
any device."""
DRAWN_AHEAD = 4
"""Number of steps whose batches are drawn ahead, each by its own thread."""


def batch_loader(
    sources: Sequence[Source],
    recipe: Recipe,
    tiling: Tiling,
    device: torch.device,
    ranks: Ranks = ALONE,
) -> Load:
    """Return a function that draws this process's share of a step's images and masks.

    They are in page-locked memory if they go to a GPU.

    Args:
        tiling: how the model takes images of another size than its own.
    """
    sampler = Sampler(sources, recipe, tiling)

    def load(step: int) -> Sequence[Tensor]:
        batch = (torch.from_numpy(array) for array in sampler.batch(step, ranks.share))
        return [tensor.pin_memory() if device.type == "cuda" else tensor for tensor in batch]

    return load


class BatchQueue:
    """The batches of consecutive steps, :data:`DRAWN_AHEAD` of them drawn ahead."""

    def __init__(self, load: Load, first_step: int) -> None:
        self._load = load
        self._threads = ThreadPoolExecutor(DRAWN_AHEAD)
        self._next_step = first_step
        self._drawn: deque[Future[Sequence[Tensor]]] = deque()
        for _ in range(DRAWN_AHEAD):
            self.draw_next()

    def draw_next(self) -> None:
        """Begin to draw the batch of one more step."""
        self._drawn.append(self._threads.submit(self._load, self._next_step))
        self._next_step += 1

    def take(self) -> Sequence[Tensor]:
        """Return the images and masks of the next step, once they are drawn."""
        return self._drawn.popleft().result()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._threads.shutdown()
