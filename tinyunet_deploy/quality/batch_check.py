"""Check that an image gets the same score whatever else is in its batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tinyunet_deploy.backends.base import Backend
from tinyunet_deploy.contract import Batch, Image
from tinyunet_deploy.quality.comparison import step_difference

__all__ = ["BatchCheck", "check_batches"]


@dataclass(frozen=True)
class BatchCheck:
    """Differences between scores of images in batches and scores of the images alone."""

    sizes: tuple[int, ...]
    """Batch sizes that were run, ascending, including those of a plan's profile."""
    steps: dict[str, int]
    """``one-by-one``, ``equal-rows``, ``permuted-rows``, ``padded-batch`` -> largest difference
    from the score of the image alone, steps of 1/255."""

    @property
    def largest(self) -> int:
        """Largest batch that was run."""
        return max(self.sizes)

    @property
    def worst_steps(self) -> int:
        """Largest difference of all batches, steps of 1/255."""
        return max(self.steps.values())


def check_batches(backend: Backend, images: Sequence[Image], batch_size: int) -> BatchCheck:
    """Score images alone, in batches, in reverse order, repeated, and beside black images.

    Args:
        images: uint8 [H, W] each; repeated from the first where a batch needs more.
        batch_size: the largest batch, reduced to what the backend takes. The smallest, best and
            largest batch of a plan's profile are run as well.
    """
    plan = backend.artifact.sidecar.plan
    profiles = plan.profiles if plan else ()
    wanted = (batch_size, *(size for profile in profiles for size in profile.sizes))
    sizes = sorted({max(backend.min_batch, backend.batch_size(size)) for size in wanted})
    rows = np.stack([images[row % len(images)] for row in range(sizes[-1])])[:, None]
    distinct = min(len(images), len(rows))
    alone = backend.score_alone(rows[:distinct])[np.arange(len(rows)) % distinct]
    steps = dict.fromkeys(("one-by-one", "equal-rows", "permuted-rows", "padded-batch"), 0)

    def compare(case: str, image: Batch, expected: Batch) -> None:
        score = backend.run(image).score[: len(expected)]
        steps[case] = max(steps[case], int(step_difference(score, expected).max()))

    for size in sizes:
        compare("one-by-one", rows[:size], alone[:size])
        compare("equal-rows", np.repeat(rows[:1], size, axis=0), np.repeat(alone[:1], size, axis=0))
        compare("permuted-rows", rows[:size][::-1], alone[:size][::-1])
        kept = -(-size // 2)
        padded = rows[:size].copy()
        padded[kept:] = 0
        compare("padded-batch", padded, alone[:kept])
    return BatchCheck(tuple(sizes), steps)
