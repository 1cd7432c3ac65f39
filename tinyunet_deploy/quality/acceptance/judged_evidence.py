"""Turn an evaluation, a self-test and the statistics of images into evidence."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tinyunet_deploy.backends.base import Backend
from tinyunet_deploy.errors import ArtifactError, DataError
from tinyunet_deploy.inspection.defects import recall_by_size
from tinyunet_deploy.inspection.drift import OF_THE_IMAGE, compare_statistics
from tinyunet_deploy.quality.acceptance.evidence import (
    DetectionFigures,
    DriftFigures,
    SelfTestFigures,
    SkippedPart,
)
from tinyunet_deploy.quality.evaluation import Evaluation
from tinyunet_deploy.quality.self_test import self_test

__all__ = ["detection_evidence", "drift_evidence", "self_test_evidence"]


def detection_evidence(evaluation: Evaluation) -> DetectionFigures:
    """Return the mistakes of a model on labelled images."""
    figures, root = evaluation.all, evaluation.dataset.root
    defects = evaluation.true_defects
    return DetectionFigures(
        defective=figures.defective,
        escapes=figures.escapes,
        good=figures.images - figures.defective,
        overkills=figures.overkills,
        skipped=tuple(
            SkippedPart(path.relative_to(root).as_posix(), error.what)
            for path, error in evaluation.skipped.items()
        ),
        areas_hit_px=tuple(sorted(d.area_px for d in defects if d.hit)),
        areas_missed_px=tuple(sorted(d.area_px for d in defects if not d.hit)),
        by_size=tuple(row for row in recall_by_size(defects) if row.truth),
        by_type=tuple(row.as_fields() for row in evaluation.by_type),
        iou_defective=figures.iou_defective,
        auroc=figures.auroc,
        notes=evaluation.notes,
        areas_missed_in_passed_px=tuple(
            sorted(
                defect.area_px
                for image, findings in zip(evaluation.images, evaluation.findings, strict=True)
                if image.verdict == "OK"
                for defect in findings.missed
            )
        ),
    )


def self_test_evidence(backend: Backend) -> SelfTestFigures:
    """Run the self-test of a loaded model, if it has golden images."""
    if backend.artifact.sidecar.golden is None:
        return SelfTestFigures("missing", "the artifact has no golden images")
    try:
        result = self_test(backend)
    except ArtifactError as error:
        return SelfTestFigures("failed", f"{Path(error.where).name} {error.what}")
    return SelfTestFigures(
        "ok",
        f"On {backend.name} the golden scores are met within {result.largest_steps} of 255, "
        f"{result.mean_steps:.2g} on average",
    )


def drift_evidence(
    evaluation: Evaluation,
    baseline: Path,
    earlier: Sequence[dict[str, float]],
    alpha: float,
) -> DriftFigures:
    """Compare the grey values of the good parts with those of the line's images.

    Statistics of the score depend on the share of defective parts, and an acceptance test has more
    of them than a line.
    """
    name = (baseline if baseline.is_dir() else baseline.parent).resolve().name
    good = [
        statistics
        for image, statistics in zip(evaluation.images, evaluation.statistics, strict=True)
        if not image.defective
    ]
    if len(good) < 2:
        return DriftFigures(name, None, (), "There are fewer than two good parts to compare")
    try:
        drift = compare_statistics(
            good,
            earlier,
            alpha,
            OF_THE_IMAGE,
            where=(evaluation.dataset.root, baseline),
            note="grey values of good parts only: a line has fewer defective parts",
        )
    except DataError as error:
        return DriftFigures(name, None, (), f"{Path(error.where).name} {error.what}")
    return DriftFigures(name, drift.as_fields(), tuple(drift.drifted), drift.hint)
