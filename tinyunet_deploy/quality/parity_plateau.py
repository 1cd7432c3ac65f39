"""Compare the plateau of an artifact with that of its reference, on the images of a parity run."""

from __future__ import annotations

import math

from tinyunet_deploy.backends.base import Backend
from tinyunet_deploy.contract import Score, score_threshold
from tinyunet_deploy.quality.parity_inputs import ComparedImage
from tinyunet_deploy.quality.part_score import PartScore, score_part
from tinyunet_deploy.quality.plateau import MARGIN_STEPS, Plateau, plateau_of
from tinyunet_deploy.quality.scored_by import ScoredBy

__all__ = ["ArtifactPlateau", "ReferencePlateau"]


class ReferencePlateau:
    """The reference's part scores, and its plateau.

    Args:
        reference: the model that scores the images.
        threshold: probability above which a pixel is a defect.
        min_area: smallest defect that makes a part NG, pixels.
    """

    def __init__(self, reference: Backend, threshold: float, min_area: int) -> None:
        self.threshold = threshold
        self.min_area = min_area
        self.parts: list[PartScore] = []
        """A part is defective by its label, or without one if the reference rejects it."""
        self.truth = False
        """True if the images are labelled."""
        self._scored_by = ScoredBy.of(reference)

    def add(self, image: ComparedImage, score: Score) -> None:
        """Add the reference's score of the next image, uint8 [H, W]."""
        part = score_part(score, self.threshold, self.min_area, name=image.name, defective=False)
        self.truth = image.defective is not None
        defective = image.defective if image.defective is not None else self._rejects(part)
        self.parts.append(part._replace(defective=defective))

    def _rejects(self, part: PartScore) -> bool:
        return part.deciding_score > score_threshold(self.threshold)

    @property
    def rejected(self) -> list[bool]:
        """Whether the reference rejects each part."""
        return [self._rejects(part) for part in self.parts]

    @property
    def plateau(self) -> Plateau:
        """The reference's own plateau."""
        parts = self.parts, self._scored_by
        return plateau_of(*parts, self.threshold, self.min_area, truth=self.truth)


class ArtifactPlateau:
    """An artifact's part scores, and the plateau on which it keeps the reference's verdicts.

    Args:
        reference: complete, of the same images.
        backend: the artifact.
    """

    def __init__(self, reference: ReferencePlateau, backend: Backend) -> None:
        self._reference = reference
        self._scored_by = ScoredBy.of(backend)
        self._parts: list[PartScore] = []

    def add(self, index: int, score: Score) -> None:
        """Add the artifact's score, uint8 [H, W], of the image with this index; in order."""
        name, defective, *_ = self._reference.parts[index]
        threshold, min_area = self._reference.threshold, self._reference.min_area
        part = score_part(score, threshold, min_area, name=name, defective=defective)
        self._parts.append(part)

    @property
    def plateau(self) -> Plateau:
        """Thresholds at which the artifact keeps the reference's verdicts."""
        return plateau_of(
            self._parts,
            self._scored_by,
            self._reference.threshold,
            self._reference.min_area,
            truth=self._reference.truth,
            rejected=self._reference.rejected,
        )

    @property
    def figures(self) -> dict[str, float]:
        """Figures by their names in ``parity_limits.toml``.

        ``margin_steps`` is NaN without an edge, and where the reference itself stands within
        :data:`MARGIN_STEPS` of one: that is a fault of the threshold, which ``tune``, ``evaluate``
        and ``accept`` name, and no difference between the two.
        """
        plateau, reference = self.plateau, self._reference.plateau
        margin = plateau.margin_steps
        judged = math.isfinite(margin) and reference.margin_steps >= MARGIN_STEPS
        return {
            "plateau_kept": plateau.kept(reference),
            "margin_steps": margin if judged else math.nan,
        }
