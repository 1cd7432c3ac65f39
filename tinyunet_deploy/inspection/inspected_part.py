"""The verdict on one part, in memory, with the contents of the files that ``infer`` writes."""

from __future__ import annotations

import contextlib
import logging
from collections import Counter
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tinyunet_deploy.backends.base import Backend
from tinyunet_deploy.contract import Image, Mask, Score, defect_mask, score_threshold
from tinyunet_deploy.data.bit_depth import BitDepth
from tinyunet_deploy.data.description_file import described_bits
from tinyunet_deploy.errors import ImageError, TinyUNetError
from tinyunet_deploy.inspection.defects import Defect, Verdict, find_defects, verdict
from tinyunet_deploy.inspection.notes import ScoreTally, log_notes
from tinyunet_deploy.inspection.overlays import overlay
from tinyunet_deploy.inspection.scoring import Scored, score_images
from tinyunet_deploy.inspection.walk import common_root, no_images, walk_images

__all__ = ["InspectedPart", "inspect_parts", "inspect_score"]

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class InspectedPart:
    """One part: its verdict with the image and scores behind it, or the error that prevented it.

    Only a part with :attr:`passes` may leave the station: a part without a verdict is not good.
    """

    path: Path
    """The image file."""
    name: str
    """Path of the image below the inspected folder, with slashes, as in ``report.jsonl``."""
    verdict: Verdict | None = None
    """``"OK"`` or ``"NG"``; None if the image cannot be used."""
    defects: tuple[Defect, ...] = ()
    """The defects, the largest first; empty for a good part, and for one without a verdict."""
    image: Image | None = field(default=None, repr=False)
    """uint8 [H, W], grey values; None if the image cannot be used."""
    score: Score | None = field(default=None, repr=False)
    """uint8 [H, W], defect probability x 255; None if the image cannot be used."""
    mask: Mask | None = field(default=None, repr=False)
    """uint8 [H, W], {0, 255}, 255 is a defect; None if the image cannot be used."""
    error: ImageError | None = None
    """Reason why the image cannot be used: ``error.reason`` is a stable code such as ``truncated``,
    and ``str(error)`` is one line for people. None if the part has a verdict."""

    @property
    def passes(self) -> bool:
        """True if the verdict is OK; False for NG and for a part without a verdict."""
        return self.verdict == "OK"

    def overlay(self, mm_per_px: float | None = None) -> NDArray[np.uint8]:
        """Return the picture that ``infer --overlays`` writes: defects, and a caption below.

        Args:
            mm_per_px: side of a pixel on the part, millimetres; gives areas in mm2, too.

        Returns:
            uint8 [H + caption, W, 3], BGR; the caption may need a margin at the right, too.

        Raises:
            ImageError: the image cannot be used.
        """
        if self.image is None or self.score is None or self.mask is None:
            raise self.error or ImageError(self.path, "unreadable", "has no image")
        return overlay(self.image, self.score, self.mask, self.defects, mm_per_px=mm_per_px)


def inspect_score(
    path: Path,
    name: str,
    image: Image,
    score: Score,
    *,
    threshold: float,
    min_area: int,
    contours: bool = False,
) -> InspectedPart:
    """Return the verdict on the part whose image has this score.

    Args:
        path, name: path and name of the image.
        image, score: uint8 [H, W].
        threshold: probability in [0, 1] above which a pixel is a defect.
        min_area: smallest defect that makes the part NG, pixels.
        contours: also trace the outlines of the defects.
    """
    defects = find_defects(score, threshold, min_area, contours=contours)
    mask = defect_mask(score, threshold)
    return InspectedPart(path, name, verdict(defects), tuple(defects), image, score, mask)


def inspect_parts(
    sources: Sequence[Path],
    backend: Backend,
    *,
    threshold: float | None = None,
    min_area: int | None = None,
    batch_size: int,
    workers: int,
    tile: bool = True,
    bits: int | None = None,
    max_pixels: int | None = None,
) -> Generator[InspectedPart]:
    """Inspect image files and folders, as ``infer`` does, and yield the parts instead of files.

    Entries of the folders that are not images are passed over as by ``infer``; their number and the
    notes on the scores are logged at the end.

    Args:
        sources: image files and folders, at least one.
        threshold, min_area: None takes the value in the artifact's sidecar.
        bits: depth of 16-bit files, 8..16; None takes the one that a ``dataset.toml`` of the
            sources states, else the one in the sidecar.
        batch_size: images per call of the backend.
        workers: threads that decode; with 0 nothing overlaps.
        tile: take images of any size; False skips those that are not of the network's size.
        max_pixels: largest accepted height x width of an image; None is 64 megapixels.

    Yields:
        Every image in the order of names, including images that cannot be used.

    Raises:
        RefusedError: there is no image at all, or a source is the output of an inspection.
        RuntimeUnavailable: the device failed.
        ValueError: the threshold is outside 0..1.
    """
    sidecar = backend.artifact.sidecar
    decision = sidecar.decision(threshold, min_area)
    score_threshold(decision.threshold)
    root = common_root(sources)
    passed_over = Counter[str]()
    results = score_images(
        walk_images(sources, None, passed_over),
        backend,
        batch_size=batch_size,
        workers=workers,
        tile=tile,
        identify=True,
        depth=BitDepth(described_bits(sources, bits, sidecar.bits)),
        max_pixels=max_pixels,
    )
    images = 0
    tally = ScoreTally()
    with contextlib.closing(results):
        for images, scored in enumerate(results, start=1):  # noqa: B007  counted
            tally.add(scored)
            yield _inspected(scored, root, decision.threshold, decision.min_area)
    if not images:
        raise no_images(root)
    log_notes(tally.notes)
    if passed_over:
        counts = ", ".join(f"{count} {kind}" for kind, count in sorted(passed_over.items()))
        log.warning("%s", TinyUNetError(root, f"passed over: {counts}"))


def _inspected(scored: Scored, root: Path, threshold: float, min_area: int) -> InspectedPart:
    name = scored.path.relative_to(root).as_posix()
    if scored.image is None or scored.score is None:
        return InspectedPart(scored.path, name, error=scored.error)
    return inspect_score(
        scored.path, name, scored.image, scored.score, threshold=threshold, min_area=min_area
    )
