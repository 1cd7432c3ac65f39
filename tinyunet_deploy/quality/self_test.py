"""Self-test: does a loaded artifact still answer to its golden images as when it was made?"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from tinyunet_deploy.artifacts.golden import read_golden
from tinyunet_deploy.backends.base import Backend
from tinyunet_deploy.errors import ArtifactError
from tinyunet_deploy.quality.parity_limits import read_limits

__all__ = ["SelfTest", "self_test"]


@dataclass(frozen=True)
class SelfTest:
    """How far the scores were from the golden ones."""

    largest_steps: int
    """Largest difference of a pixel, steps of 1/255."""
    mean_steps: float
    """Mean difference over all pixels, steps of 1/255."""
    seconds: float


def self_test(backend: Backend) -> SelfTest:
    """Score the golden images of a loaded artifact.

    Raises:
        ArtifactError: the scores are further from the golden ones than ``parity_limits.toml``
            allows, or there are no golden images.
    """
    artifact = backend.artifact
    image, expected = read_golden(artifact)
    started = time.perf_counter()
    score = backend.score_alone(image)
    seconds = time.perf_counter() - started
    difference = np.abs(score.astype(np.int16) - expected)
    found = SelfTest(int(difference.max()), float(difference.mean()), seconds)
    figures = {
        "golden_largest_steps": found.largest_steps,
        "golden_mean_steps": found.mean_steps,
    }
    for limit in read_limits().of(artifact.sidecar.precision, backend.name):
        if limit.figure in figures and not limit.holds(figures[limit.figure]):
            raise ArtifactError(
                artifact.path,
                f"fails its self-test on {backend.name}: {limit.figure} "
                f"{figures[limit.figure]:.3g}, {limit} wanted",
                "tinyunet parity --explain says at which stage it parts from its checkpoint",
            )
    return found
