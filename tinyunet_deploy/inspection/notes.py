"""Notes on doubtful scores of a whole run, which no single image shows.

They are printed once, on stderr, and are part of the report or the result of the run.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from tinyunet_deploy.data.tiles import Fit
from tinyunet_deploy.inspection.scoring import Scored

__all__ = ["ScoreTally", "log_notes", "run_notes"]

log = logging.getLogger(__name__)


@dataclass
class ScoreTally:
    """Counts over the scores of a run."""

    highest_score: int = 0
    """Largest score of all images, 0..255."""
    whole: int = 0
    """Number of images of the network's size."""
    padded: int = 0
    """Number of images smaller than the network's, padded by mirroring."""
    tiled: int = 0
    """Number of images larger than the network's, inspected in overlapping tiles."""
    approximate: int = 0
    """Number of images in tiles whose scores only approximate those of the whole image."""

    def add(self, scored: Scored) -> None:
        """Count an image; one without a score does not count."""
        if scored.score is None:
            return
        self.highest_score = max(self.highest_score, int(scored.score.max()))
        self.add_fit(scored.fit, scored.approximate)

    def add_fit(self, fit: Fit, approximate: bool) -> None:
        """Count an image by its size alone.

        Args:
            approximate: whether it is in tiles whose scores only approximate the whole image's.
        """
        self.whole += fit == "whole"
        self.padded += fit == "padded"
        self.tiled += fit == "tiled"
        self.approximate += approximate

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences of :func:`run_notes`."""
        counts = self.highest_score, self.padded, self.tiled, self.approximate
        return tuple(run_notes(*counts))


def run_notes(highest_score: int, padded: int, tiled: int, approximate: int) -> list[str]:
    """Return what a reader of a run's scores should know about them, one sentence each.

    Args:
        highest_score: largest score of all images, 0..255.
        padded: images smaller than the network's, padded by mirroring.
        tiled: images larger than the network's, inspected in overlapping tiles.
        approximate: number of images in tiles whose scores only approximate the whole image's.
    """
    notes = []
    if highest_score == 1:
        notes.append(
            "no score is above 1 of 255: does the model give labels, 0 or 1, instead of "
            "probability x 255?"
        )
    if padded or tiled:
        counts = [f"{padded} padded by mirroring"] * (padded > 0)
        counts += [f"{tiled} inspected in tiles"] * (tiled > 0)
        notes.append(f"images of another size than the model's: {', '.join(counts)}")
    if approximate:
        images = "1 image was" if approximate == 1 else f"{approximate} images were"
        notes.append(
            f"{images} inspected in tiles whose scores only approximate those of the whole image: "
            "the reach of the network is unknown, or the tiles are too small for it, so seams "
            "cannot be excluded"
        )
    return notes


def log_notes(notes: Sequence[str]) -> None:
    """Log the notes of a run that has ended."""
    for note in notes:
        log.warning("note: %s", note)
