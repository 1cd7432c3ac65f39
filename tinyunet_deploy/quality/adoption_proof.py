"""Proof of an adopted file: its scores against the original's, with our own arithmetic in numpy.

Nothing here reads the wrapped graph, so that a fault of the surgery cannot hide: images are
normalised and values become scores a second time, in float64.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from tinyunet_deploy.artifacts.adoption.form import InputForm, Normalization, OutputForm
from tinyunet_deploy.backends.base import Backend
from tinyunet_deploy.backends.foreign_graph import ForeignGraph
from tinyunet_deploy.contract import Batch, Image
from tinyunet_deploy.errors import ArtifactError, GateFailed
from tinyunet_deploy.quality.comparison import step_difference

__all__ = ["MOST_STEPS", "Original", "Proof", "original_scores", "prove", "values_as_nchw"]

MOST_STEPS: Final = 1
"""Largest accepted difference, steps of 1/255: sums in another order, at a rounding edge."""


@dataclass(frozen=True)
class Original:
    """The network as it came, with its normalisation in numpy."""

    graph: ForeignGraph
    source: InputForm
    normalization: Normalization | None
    """None if it takes the bytes."""

    def values(self, image: Image) -> NDArray[Any]:
        """Return the output for a grey image, uint8 [H, W], as the network gives it."""
        return self.graph.run(self.prepared(image))

    def prepared(self, image: Image) -> NDArray[Any]:
        """Return the network's input for a grey image, uint8 [H, W]."""
        channels = np.stack([image] * self.source.channels)
        if self.normalization is not None:
            shape = (-1, 1, 1)
            mean = np.reshape(self.normalization.mean, shape)
            std = np.reshape(self.normalization.std, shape)
            channels = (channels.astype(np.float64) - mean) / std
        if self.source.layout == "NHWC":
            channels = np.moveaxis(channels, 0, -1)
        one = np.ascontiguousarray(channels[None].astype(self.source.type_name))
        return np.repeat(one, self.source.batch or 1, axis=0)


@dataclass(frozen=True)
class Proof:
    """Differences between an adopted file and its original."""

    images: int
    largest_steps: int
    """Largest difference of a pixel, steps of 1/255."""
    mean_steps: float
    """Mean difference over all pixels, steps of 1/255."""
    lowest_score: int
    highest_score: int


def prove(
    original: Original, result: OutputForm, adopted: Backend, images: Sequence[Image]
) -> Proof:
    """Compare the scores of an adopted file with the original's.

    Args:
        images: uint8 [H, W] of the file's size.

    Returns:
        The differences.

    Raises:
        ArtifactError: the original gives values that are not finite.
        GateFailed: a score differs by more than :data:`MOST_STEPS`.
    """
    where = adopted.artifact.path
    expected = original_scores(original, result, images, where.name)
    given = adopted.score_alone(np.stack(images)[:, None])
    difference = step_difference(given, expected)
    proof = Proof(
        images=len(images),
        largest_steps=int(difference.max()),
        mean_steps=float(difference.mean()),
        lowest_score=int(expected.min()),
        highest_score=int(expected.max()),
    )
    if proof.largest_steps > MOST_STEPS:
        off = 100.0 * float((difference > MOST_STEPS).mean())
        raise GateFailed(
            where,
            f"differs from the original by up to {proof.largest_steps} of 255 and "
            f"{proof.mean_steps:.3g} on average ({off:.3g} % of the pixels by more than "
            f"{MOST_STEPS}) on {len(images)} images, but must by at most {MOST_STEPS}",
            "nothing was written",
        )
    return proof


def original_scores(
    original: Original, result: OutputForm, images: Iterable[Image], where: str
) -> Batch:
    """Return the scores of images by the original, uint8 [N, 1, H, W].

    Args:
        images: uint8 [H, W] each.
        where: name of the file, for errors.

    Raises:
        ArtifactError: it gives values that are not finite.
    """
    scores = [_score(original.values(image), result, where) for image in images]
    return np.stack(scores)[:, None]


def _score(values: NDArray[Any], result: OutputForm, where: str) -> Image:
    """Return the score of one image, uint8 [H, W], from the output that the original gives for it.

    Raises:
        ArtifactError: a value is not finite.
    """
    channels = values_as_nchw(values, result.layout)[0]
    if result.activation == "bytes":
        return np.ascontiguousarray(channels[0].astype(np.uint8))
    channels = channels.astype(np.float64)
    if not np.isfinite(channels).all():
        raise ArtifactError(where, "gives values that are not finite")
    if result.activation == "sigmoid":
        channels = 0.5 * (1.0 + np.tanh(0.5 * channels))
    elif result.activation == "softmax":
        powers = np.exp(channels - channels.max(axis=0, keepdims=True))
        channels = powers / powers.sum(axis=0, keepdims=True)
    defects = channels[list(result.defect)]
    probability = defects.sum(axis=0) if result.combine == "sum" else defects.max(axis=0)
    score: Image = np.rint(255.0 * np.clip(probability, 0.0, 1.0)).astype(np.uint8)
    return score


def values_as_nchw(values: NDArray[Any], layout: str) -> NDArray[Any]:
    """Return a network's output as [N, C, H, W]."""
    if layout == "NHWC":
        return np.moveaxis(values, -1, 1)
    return values[:, None] if layout == "NHW" else values
