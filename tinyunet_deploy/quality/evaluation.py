"""Evaluate how well an artifact finds the defects of a labelled data set."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from tinyunet_deploy.backends.base import Backend
from tinyunet_deploy.contract import Image, Score, defect_mask, score_threshold
from tinyunet_deploy.data.dataset import Dataset, Item
from tinyunet_deploy.data.encoding import encode_jpeg, encode_png
from tinyunet_deploy.data.masks import read_mask
from tinyunet_deploy.errors import ImageError
from tinyunet_deploy.files import write_atomic
from tinyunet_deploy.inspection.defects import (
    Findings,
    TrueDefect,
    compare_with_truth,
    verdict,
)
from tinyunet_deploy.inspection.drift import image_statistics
from tinyunet_deploy.inspection.output_names import overlay_name
from tinyunet_deploy.inspection.overlays import draw_miss, overlay_with_truth
from tinyunet_deploy.quality.dataset_scoring import image_digest, missing_kinds, score_dataset
from tinyunet_deploy.quality.metrics import (
    ImageCounts,
    MetricSummary,
    Ratios,
    count_image,
    mean_of,
    summarize,
)
from tinyunet_deploy.quality.part_score import PartScore, score_part
from tinyunet_deploy.quality.plateau import Plateau, plateau_of
from tinyunet_deploy.quality.recall_by_type import (
    TypedDefects,
    TypeRecall,
    recall_by_type,
    typed_defects,
)
from tinyunet_deploy.quality.score_quality import ScoreCounts, ScoreQuality, score_counts
from tinyunet_deploy.quality.scored_by import ScoredBy

__all__ = ["Evaluation", "evaluate"]


@dataclass(frozen=True)
class Evaluation:
    """Result of an evaluation."""

    dataset: Dataset
    model: str
    """File name of the artifact."""
    model_sha256: str
    precision: str
    backend: str
    device: str
    versions: dict[str, str]
    """Package -> version of the packages that decode, compute and count."""
    threshold: float
    """Operating threshold, a probability."""
    min_area: int
    """Smallest defect that makes a part NG, pixels."""
    images: tuple[ImageCounts, ...]
    """Counts of each image, in the order of the data set, without the skipped ones; never empty."""
    skipped: dict[Path, ImageError]
    """Image file -> the error because of which it was skipped."""
    findings: tuple[Findings, ...]
    """Detected and true defects of each of ``images``."""
    parts: tuple[PartScore, ...]
    """What decides the verdict on each of ``images``."""
    score_quality: ScoreQuality
    """Calibration of the scores."""
    scored_by: ScoredBy
    typed: tuple[TypedDefects, ...]
    """Defects of each of ``images`` by their types; empty where the truth has none."""
    tuned_on: int
    """Number of images that also served to choose the artifact's threshold and min_area, which
    flatters the figures."""
    trained_on: int = 0
    """Number of images on which the weights were trained, which flatters the figures."""
    notes: tuple[str, ...] = ()
    """Doubts about the scores as a whole, one sentence each."""
    statistics: tuple[dict[str, float], ...] = ()
    """:data:`~tinyunet_deploy.inspection.drift.STATISTICS` of each of ``images``; empty unless
    :func:`evaluate` was asked for them."""

    @cached_property
    def plateau(self) -> Plateau:
        """How far threshold and min_area may move without another verdict on these images."""
        return plateau_of(self.parts, self.scored_by, self.threshold, self.min_area)

    @property
    def true_defects(self) -> list[TrueDefect]:
        """Defects in the truth of all images."""
        return [defect for finding in self.findings for defect in finding.truth]

    @property
    def by_type(self) -> list[TypeRecall]:
        """Found and all defects of each type, sorted by name; empty where the truth has none."""
        return recall_by_type(self.typed, [image.verdict for image in self.images])

    @property
    def false_defects(self) -> int:
        """Number of defects found where the truth has none."""
        return sum(len(finding.false) for finding in self.findings)

    @cached_property
    def classes(self) -> dict[int, MetricSummary]:
        """Class -> figures; empty for images without classes."""
        by_class: dict[int, list[ImageCounts]] = {}
        for image in self.images:
            if image.class_id is not None:
                by_class.setdefault(image.class_id, []).append(image)
        return {k: summarize(images, self.threshold) for k, images in sorted(by_class.items())}

    @property
    def mean(self) -> Ratios:
        """Mean of the classes' figures, as published for DAGM2007."""
        return mean_of(list(self.classes.values()) or [self.all])

    @property
    def all(self) -> MetricSummary:
        """Figures of all images together, whatever their class."""
        return summarize(self.images, self.threshold)


def evaluate(
    dataset: Dataset,
    backend: Backend,
    *,
    threshold: float,
    min_area: int,
    batch_size: int,
    workers: int,
    tile: bool = True,
    bits: int | None = None,
    max_pixels: int | None = None,
    misses: Path | None = None,
    overlays: Path | None = None,
    with_statistics: bool = False,
    progress: Callable[[int], None] | None = None,
) -> Evaluation:
    """Score every image of a data set and count the defects; unusable images are skipped.

    Args:
        threshold: the operating threshold, probability in [0, 1].
        min_area: smallest defect that makes a part NG, pixels.
        workers: threads that decode images, and as many that compare scores with masks.
        tile: take images of any size; False skips those that are not of the network's size.
        max_pixels: largest accepted height x width of an image; None is 64 megapixels.
        bits: depth of 16-bit files, 8..16; None takes the one in the sidecar.
        misses: folder for a picture of each missed defect; made if it does not exist.
        overlays: folder for a picture of each image with its defects and its truth; made if it
            does not exist.
        with_statistics: also compute the statistics by which drift is noticed.
        progress: takes the number of images that are newly finished.

    Raises:
        DataError: a mask is unusable, or every image is.
        ValueError: the threshold is outside 0..1.
    """
    score_threshold(threshold)
    sidecar = backend.artifact.sidecar
    tuned_on, trained_on = set(sidecar.tuned_on), set(sidecar.trained_on)

    def count(item: Item, image: Image, score: Score) -> _Counted:
        name = item.image.relative_to(dataset.root).as_posix()
        truth = read_mask(item, (score.shape[0], score.shape[1]))
        findings = compare_with_truth(score, truth, threshold, min_area)
        if misses is not None:
            for number, missed in enumerate(findings.missed, start=1):
                picture = Path(overlay_name(name)).with_suffix("")
                drawn = draw_miss(image, score, truth, missed.bbox)
                _write(misses / f"{picture}-{number}.png", encode_png(drawn))
        if overlays is not None:
            mask = defect_mask(score, threshold)
            drawn = overlay_with_truth(image, score, mask, truth, findings)
            _write(overlays / overlay_name(name), encode_jpeg(drawn))
        counts = count_image(
            score,
            truth,
            name=name,
            class_id=item.class_id,
            defective=item.defective,
            verdict=verdict(findings.detected),
            threshold=threshold,
        )
        typed = typed_defects(item, dataset.defect_types, score, truth, threshold, min_area)
        digest = image_digest(item.image) if tuned_on or trained_on else ""
        statistics = image_statistics(image, score, threshold) if with_statistics else {}
        part = score_part(score, threshold, min_area, name=name, defective=item.defective)
        pixels = score_counts(score, truth)
        known = digest in tuned_on, digest in trained_on
        return _Counted(counts, findings, typed, part, pixels, *known, statistics)

    counted, skipped, notes = score_dataset(
        dataset,
        backend,
        count,
        batch_size=batch_size,
        workers=workers,
        tile=tile,
        bits=bits,
        max_pixels=max_pixels,
        progress=progress,
    )
    parts = tuple(image.part for image in counted)
    pixels = np.sum([image.pixels for image in counted], axis=0)
    return Evaluation(
        dataset=dataset,
        model=backend.artifact.path.name,
        model_sha256=sidecar.sha256,
        precision=sidecar.precision,
        backend=backend.name,
        device=backend.device,
        versions={"numpy": np.__version__, "opencv": cv2.__version__, **backend.versions},
        threshold=threshold,
        min_area=min_area,
        images=tuple(image.counts for image in counted),
        skipped=skipped,
        findings=tuple(image.findings for image in counted),
        parts=parts,
        score_quality=ScoreQuality.of(parts, pixels),
        scored_by=ScoredBy.of(backend),
        typed=tuple(image.typed for image in counted),
        tuned_on=sum(image.tuned_on for image in counted),
        trained_on=sum(image.trained_on for image in counted),
        notes=(*notes, *missing_kinds([image.counts.defective for image in counted])),
        statistics=tuple(image.statistics for image in counted) if with_statistics else (),
    )


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, data)


class _Counted(NamedTuple):
    counts: ImageCounts
    findings: Findings
    typed: TypedDefects
    part: PartScore
    pixels: ScoreCounts
    tuned_on: bool
    trained_on: bool
    statistics: dict[str, float]
