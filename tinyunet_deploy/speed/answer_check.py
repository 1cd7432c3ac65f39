"""Check the answers that are measured: a fast wrong answer counts for nothing."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np

from tinyunet_deploy.artifacts.sidecar import Sidecar
from tinyunet_deploy.contract import Batch, Mask, Score
from tinyunet_deploy.quality.comparison import ScoreComparison
from tinyunet_deploy.quality.parity_limits import Limits, outcome_of
from tinyunet_deploy.speed.benchmark_images import BenchmarkImages
from tinyunet_deploy.speed.benchmark_result import BrokenLimit, OutputCheck

__all__ = ["AnswerCheck"]


class AnswerCheck:
    """Compares each input's first answer, and later answers that differ, with the reference.

    Of a padded image, or of a tile, the pixels are compared that the image's score is made of.
    """

    def __init__(self, images: BenchmarkImages) -> None:
        self._images = images
        self._comparison = ScoreComparison(images.threshold, images.min_area)
        self._checksums: dict[int, int] = {}
        """Input -> checksum of its last answer."""
        self._truth: tuple[int, Mask | None] | None = None
        """Image -> its truth, of the image that was compared last."""
        self._answers = 0

    def add(self, numbers: Sequence[int], score: Batch | Sequence[Score]) -> None:
        """Add the answer to some inputs, given by their numbers.

        Args:
            score: uint8 [N, 1, H, W], or N scores of [H, W].
        """
        planes = score[:, 0] if isinstance(score, np.ndarray) else score
        for number, answer in zip(numbers, planes, strict=True):
            self._answers += 1
            checksum = zlib.crc32(answer.tobytes())
            if self._checksums.get(number) != checksum:
                self._checksums[number] = checksum
                self._compare(number, answer)

    def _compare(self, number: int, answer: Score) -> None:
        model_input = self._images.inputs[number]
        image = self._images.images[model_input.image]
        truth, defective = self._truth_of(model_input.image), image.defective
        if truth is not None and truth.shape != truth[model_input.in_image].shape:
            truth = truth[model_input.in_image]
            defective = bool(truth.any())
        self._comparison.add(
            answer[model_input.in_tile],
            self._images.scores[number][model_input.in_tile],
            self._images.name(number),
            truth=truth,
            defective=defective,
        )

    def _truth_of(self, index: int) -> Mask | None:
        """Return the truth of an image, which its tiles share."""
        if self._truth is None or self._truth[0] != index:
            self._truth = index, self._images.truth(index)
        return self._truth[1]

    def result(self, limits: Limits, sidecar: Sidecar, backend: str) -> OutputCheck:
        """Check the figures of all answers against the limits of the precision and backend."""
        figures = {name: float(value) for name, value in self._comparison.figures.items()}
        checks = limits.check(figures, sidecar.precision, backend)
        broken = tuple(
            BrokenLimit(check.limit.figure, check.value, str(check.limit), check.limit.reason)
            for check in checks
            if not check.holds
        )
        images = {self._images.inputs[number].image for number in self._checksums}
        return OutputCheck(outcome_of(checks), len(images), self._answers, figures, broken)
