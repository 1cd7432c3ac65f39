"""Check the answers that are measured: a fast wrong answer counts for nothing."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

from tinyunet_deploy.artifacts.sidecar import Sidecar
from tinyunet_deploy.contract import Batch
from tinyunet_deploy.quality.comparison import ScoreComparison
from tinyunet_deploy.quality.parity_limits import Limits, outcome_of
from tinyunet_deploy.speed.benchmark_images import BenchmarkImages
from tinyunet_deploy.speed.benchmark_result import BrokenLimit, OutputCheck

__all__ = ["AnswerCheck"]


class AnswerCheck:
    """Compares each image's first answer, and later answers that differ, with the reference."""

    def __init__(self, images: BenchmarkImages) -> None:
        self._images = images
        self._comparison = ScoreComparison(images.threshold, images.min_area)
        self._checksums: dict[int, int] = {}
        """Image -> checksum of its last answer."""
        self._answers = 0

    def add(self, indices: Sequence[int], score: Batch) -> None:
        """Add the answer to a batch: scores uint8 [N, 1, H, W] of N images, given by their
        indices."""
        for index, answer in zip(indices, score[:, 0], strict=True):
            self._answers += 1
            checksum = zlib.crc32(answer.tobytes())
            if self._checksums.get(index) != checksum:
                self._checksums[index] = checksum
                image = self._images.images[index]
                self._comparison.add(
                    answer,
                    self._images.scores[index],
                    image.name,
                    truth=image.truth(answer),
                    defective=image.defective,
                )

    def result(self, limits: Limits, sidecar: Sidecar, backend: str) -> OutputCheck:
        """Check the figures of all answers against the limits of the precision and backend."""
        figures = {name: float(value) for name, value in self._comparison.figures.items()}
        checks = limits.check(figures, sidecar.precision, backend)
        broken = tuple(
            BrokenLimit(check.limit.figure, check.value, str(check.limit), check.limit.reason)
            for check in checks
            if not check.holds
        )
        return OutputCheck(outcome_of(checks), len(self._checksums), self._answers, figures, broken)
