"""Self-test: a loaded artifact must return the golden scores that were stored when it was made."""

from __future__ import annotations

import time
from dataclasses import dataclass

from tinyunet_deploy.artifacts.golden import read_golden
from tinyunet_deploy.backends.base import Backend
from tinyunet_deploy.errors import ArtifactError
from tinyunet_deploy.quality.comparison import step_difference
from tinyunet_deploy.quality.parity_limits import read_limits

__all__ = ["SelfTest", "self_test"]


@dataclass(frozen=True)
class SelfTest:
    """Differences between an artifact's scores and its golden scores."""

    largest_steps: int
    """Largest difference of a pixel, steps of 1/255."""
    mean_steps: float
    """Mean difference over all pixels, steps of 1/255."""
    seconds: float
    """Time that scoring the golden images took."""


def self_test(backend: Backend) -> SelfTest:
    """Score the golden images of a loaded artifact and compare them with the golden scores.

    Raises:
        ArtifactError: the scores differ by more than ``parity_limits.toml`` allows, or there are no
            golden images.
    """
    artifact = backend.artifact
    image, expected = read_golden(artifact)
    started = time.perf_counter()
    score = backend.score_alone(image)
    seconds = time.perf_counter() - started
    difference = step_difference(score, expected)
    result = SelfTest(int(difference.max()), float(difference.mean()), seconds)
    figures = {
        "golden_largest_steps": result.largest_steps,
        "golden_mean_steps": result.mean_steps,
    }
    for limit, value, holds in read_limits().check(
        figures, artifact.sidecar.precision, backend.name
    ):
        if not holds:
            raise ArtifactError(
                artifact.path,
                f"fails its self-test on {backend.name}: {limit.figure} is {value:.3g}, "
                f"but must be {limit}",
                "tinyunet parity --explain names the stage at which it first differs",
            )
    return result
