"""Write an evaluation as JSON."""

from __future__ import annotations

import dataclasses
import json
from typing import Any, Final

from tinyunet_deploy import __version__
from tinyunet_deploy.files import json_value
from tinyunet_deploy.inspection.defects import MATCHING, Findings, recall_by_size
from tinyunet_deploy.quality.evaluation import Evaluation
from tinyunet_deploy.quality.metrics import BOUNDS, FORMULAS, NOTATION, ImageCounts
from tinyunet_deploy.quality.part_score import PartScore

__all__ = ["evaluation_json"]

SCHEMA_VERSION: Final = 1
"""Version of the fields of a result file."""


def evaluation_json(evaluation: Evaluation) -> str:
    """Return the text of a result file; each image is one line of ``per_image``."""
    dataset, true_defects = evaluation.dataset, evaluation.true_defects
    splits = {item.split for item in dataset.items}
    fields = {
        "schema_version": SCHEMA_VERSION,
        "tinyunet_deploy": __version__,
        "model": {
            "name": evaluation.model,
            "sha256": evaluation.model_sha256,
            "precision": evaluation.precision,
        },
        "backend": evaluation.backend,
        "device": evaluation.device,
        "versions": evaluation.versions,
        "dataset": {
            "name": dataset.root.resolve().name,
            "layout": dataset.layout,
            "classes": list(evaluation.classes),
            "split": "all" if len(splits) > 1 else splits.pop(),
        },
        "threshold": evaluation.threshold,
        "min_area_px": evaluation.min_area,
        "images": len(evaluation.images),
        "tuned_on_these_images": evaluation.tuned_on > 0,
        "images_tuned_on": evaluation.tuned_on,
        "images_trained_on": evaluation.trained_on,
        "skipped": [
            {
                "name": path.relative_to(dataset.root).as_posix(),
                "reason": error.reason,
                "what": error.what,
            }
            for path, error in evaluation.skipped.items()
        ],
        "notes": list(evaluation.notes),
        "notation": NOTATION,
        "formulas": {**FORMULAS, **BOUNDS},
        "classes": {k: summary.as_fields() for k, summary in evaluation.classes.items()},
        "mean": dataclasses.asdict(evaluation.mean),
        "all": evaluation.all.as_fields(),
        "plateau": evaluation.plateau.as_fields(),
        "score_quality": evaluation.score_quality.as_fields(),
        "defects": {
            "matching": MATCHING,
            "truth": len(true_defects),
            "hit": sum(defect.hit for defect in true_defects),
            "missed": sum(not defect.hit for defect in true_defects),
            "false": evaluation.false_defects,
            "by_size": [row._asdict() for row in recall_by_size(true_defects)],
            "by_type": [row.as_fields() for row in evaluation.by_type],
        },
    }
    head = json.dumps(json_value(fields), indent=2, allow_nan=False).removesuffix("\n}")
    lines = ",\n".join(
        f"    {json.dumps(_image_fields(image, findings, part))}"
        for image, findings, part in zip(
            evaluation.images, evaluation.findings, evaluation.parts, strict=True
        )
    )
    return f'{head},\n  "per_image": [\n{lines}\n  ]\n}}\n'


def _image_fields(image: ImageCounts, findings: Findings, part: PartScore) -> dict[str, Any]:
    return {
        "name": image.name,
        "class": image.class_id,
        "defective": image.defective,
        "truth_px": image.truth_px,
        "max_score": image.max_score,
        "deciding_score": part.deciding_score,
        "largest_px": part.largest_px,
        "verdict": image.verdict,
        "predicted_px": {str(t): pixels.predicted for t, pixels in image.pixels.items()},
        "intersection_px": {str(t): pixels.intersection for t, pixels in image.pixels.items()},
        "true_defects": [dataclasses.asdict(defect) for defect in findings.truth],
        "false_defects": [defect.as_fields() for defect in findings.false],
    }
