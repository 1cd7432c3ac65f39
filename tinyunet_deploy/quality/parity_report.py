"""Write the files of a parity run: ``parity.json``, ``parity.xml`` for CI, the worst images."""

from __future__ import annotations

import json
import logging
import re
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from tinyunet_deploy import __version__
from tinyunet_deploy.contract import Image, Score, defect_mask
from tinyunet_deploy.data.encoding import encode_png
from tinyunet_deploy.errors import RuntimeUnavailable, printable
from tinyunet_deploy.files import json_value, write_atomic
from tinyunet_deploy.host import describe_machine
from tinyunet_deploy.quality.comparison import NEAR_STEPS
from tinyunet_deploy.quality.parity import ArtifactParity, Parity
from tinyunet_deploy.quality.parity_stages import STAGES
from tinyunet_deploy.quality.plateau_picture import PLATEAU, draw_plateaus

__all__ = ["draw_difference", "parity_json", "parity_junit", "write_parity_report"]

log = logging.getLogger(__name__)

SCHEMA_VERSION: Final = 1
"""Version of the fields of ``parity.json``."""


def parity_json(parity: Parity) -> str:
    """Return the text of ``parity.json``."""
    fields = {
        "schema_version": SCHEMA_VERSION,
        "tinyunet_deploy": __version__,
        "machine": describe_machine(),
        "reference": {
            "name": parity.reference.path.name,
            "role": parity.reference.role,
            "reason": parity.reference.reason,
            "golden_largest_steps": parity.reference.golden_steps,
            "sha256": parity.reference_sidecar.sha256,
            "backend": parity.reference_backend,
            "versions": parity.reference_versions,
        },
        "data": parity.folder.resolve().name,
        "images": len(parity.images),
        "defective": sum(bool(image.defective) for image in parity.images),
        "truth": any(image.item is not None for image in parity.images),
        "padded": parity.tally.padded,
        "tiled": parity.tally.tiled,
        "approximate": parity.tally.approximate,
        "notes": parity.tally.notes,
        "skipped": [
            {"name": Path(error.where).name, "reason": error.reason, "what": error.what}
            for error in parity.skipped_images
        ],
        "refused": [
            {"model": Path(error.where).name, "what": error.what} for error in parity.refused
        ],
        "threshold": parity.threshold,
        "min_area_px": parity.min_area,
        "near_steps": NEAR_STEPS,
        "stage_tolerances": STAGES,
        "plateau": parity.plateau.plateau.as_fields(),
        "comparisons": [_artifact_fields(parity, artifact) for artifact in parity.artifacts],
    }
    return json.dumps(json_value(fields), indent=2, allow_nan=False) + "\n"


def parity_junit(parity: Parity) -> bytes:
    """Return JUnit XML: a suite for each artifact on each backend, a case for each limit."""
    suites = ET.Element("testsuites", name="parity")
    for artifact in parity.artifacts:
        name = printable(f"{artifact.model.name} on {artifact.backend} {artifact.device}")
        checks = [] if artifact.skipped is not None else artifact.checks
        otherwise = artifact.skipped is None and not artifact.decides_alike
        failures = sum(not check.holds for check in checks) + otherwise
        suite = ET.SubElement(
            suites,
            "testsuite",
            name=name,
            tests=str(max(len(checks), 1) + otherwise),
            failures=str(failures),
            errors="0",
            skipped=str(int(not checks)),
        )
        if otherwise:
            assert artifact.decision is not None
            case = ET.SubElement(suite, "testcase", classname=name, name="decision")
            message = printable(str(artifact.decision))
            failure = ET.SubElement(case, "failure", message=message, type="decision")
            failure.text = artifact.decision.hint
        if not checks:
            case = ET.SubElement(suite, "testcase", classname=name, name="runs")
            reason = artifact.skipped or f"no limit for {artifact.sidecar.precision}"
            ET.SubElement(case, "skipped", message=printable(reason))
        for check in checks:
            case = ET.SubElement(suite, "testcase", classname=name, name=check.limit.figure)
            if not check.holds:
                message = f"{check.limit.figure} is {check.value:.6g}, but must be {check.limit}"
                failure = ET.SubElement(case, "failure", message=message, type="limit")
                failure.text = check.limit.reason
    for error in parity.refused:
        name = printable(Path(error.where).name)
        suite = ET.SubElement(
            suites, "testsuite", name=name, tests="1", failures="0", errors="1", skipped="0"
        )
        case = ET.SubElement(suite, "testcase", classname=name, name="loads")
        ET.SubElement(case, "error", message=printable(str(error)), type="artifact")
    ET.indent(suites)
    text: bytes = ET.tostring(suites, encoding="utf-8", xml_declaration=True)
    return text + b"\n"


def write_parity_report(parity: Parity, output: Path) -> None:
    """Write ``parity.json``, ``parity.xml``, ``plateau.svg`` and ``worst/*.png`` under ``output``.

    The picture of the plateaus is left out, with a warning, if matplotlib is not installed.

    Raises:
        RuntimeUnavailable: the disk is full or read-only.
    """
    pictures = output / "worst"
    pictures.mkdir(parents=True, exist_ok=True)
    for artifact in parity.artifacts:
        for rank, worst in enumerate(sorted(artifact.comparison.worst, reverse=True), start=1):
            compared = parity.images[worst.image_index]
            name = re.sub("[^A-Za-z0-9.-]+", "-", compared.name)
            path = pictures / f"{artifact.model.name}-{artifact.backend}-{rank}-{name}.png"
            image = parity.read(compared)
            expected = parity.scores[worst.image_index]
            picture = draw_difference(image, expected, worst.score, parity.threshold)
            write_atomic(path, encode_png(picture))
    plateaus = [parity.plateau.plateau]
    plateaus += [a.plateau.plateau for a in parity.artifacts if a.plateau is not None]
    try:
        write_atomic(output / PLATEAU, draw_plateaus(plateaus))
    except RuntimeUnavailable as error:
        if error.where != "matplotlib":
            raise
        log.warning("%s is left out: %s", PLATEAU, error)
    write_atomic(output / "parity.xml", parity_junit(parity), durable=True)
    write_atomic(output / "parity.json", parity_json(parity).encode(), durable=True)


def draw_difference(
    image: Image, expected: Score, score: Score, threshold: float
) -> NDArray[np.uint8]:
    """Draw the reference's mask, the artifact's mask, and their difference on the darkened image.

    In the third picture, red pixels are only in the reference's mask and green ones only in the
    artifact's. Where the masks agree, brighter blue means a larger difference of the scores.

    Args:
        image: uint8 [H, W].
        expected: uint8 [H, W], the reference's score.
        score: uint8 [H, W], the artifact's.
        threshold: probability above which a pixel is a defect.

    Returns:
        uint8 [H, 3 W + 16, 3], BGR.
    """
    wanted, mask = (defect_mask(s, threshold) for s in (expected, score))
    apart = np.abs(expected.astype(np.int16) - score)
    third = cv2.cvtColor(image // 3, cv2.COLOR_GRAY2BGR)
    third[..., 0] = np.maximum(third[..., 0], np.minimum(apart * 8, 255))
    third[(wanted != 0) & (mask == 0)] = (0, 0, 255)
    third[(wanted == 0) & (mask != 0)] = (0, 255, 0)
    gap = np.full((image.shape[0], 8, 3), 128, np.uint8)
    first, second = (cv2.cvtColor(m, cv2.COLOR_GRAY2BGR) for m in (wanted, mask))
    return np.hstack([first, gap, second, gap, np.asarray(third, np.uint8)]).astype(np.uint8)


def _artifact_fields(parity: Parity, artifact: ArtifactParity) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "model": artifact.model.name,
        "sha256": artifact.sidecar.sha256,
        "precision": artifact.sidecar.precision,
        "backend": artifact.backend,
        "device": artifact.device,
        "outcome": artifact.outcome,
        "threshold": artifact.sidecar.threshold,
        "min_area_px": artifact.sidecar.min_area,
        "decides_alike": artifact.decides_alike,
    }
    if artifact.skipped is not None:
        return {**fields, "skipped": artifact.skipped}
    comparison, explanation, batch = artifact.comparison, artifact.explanation, artifact.batch
    return {
        **fields,
        "versions": artifact.versions,
        **artifact.figures,
        "least_agreement_of_an_image": comparison.least_agreement,
        "flipped_near_px": comparison.flipped_near,
        "flipped_far_px": comparison.flipped_far,
        "intersection_px": comparison.intersection_px,
        "union_px": comparison.union_px,
        "histogram_of_steps_px": np.trim_zeros(comparison.histogram, "b").tolist(),
        "iou_defective": _mean(comparison.ious),
        "iou_defective_of_reference": _mean(comparison.reference_ious),
        "iou_drop_95": comparison.iou_drop_interval,
        "plateau": artifact.plateau and artifact.plateau.plateau.as_fields(),
        "flipped_parts": [flip._asdict() for flip in comparison.flips],
        "batches": batch and {"sizes": batch.sizes, "steps": batch.steps},
        "worst": [
            {"name": parity.images[worst.image_index].name, "flipped_px": worst.flipped_px}
            for worst in sorted(comparison.worst, reverse=True)
        ],
        "explanation": explanation
        and {
            "name": explanation.name,
            "first": explanation.first and explanation.first.stage,
            "largest_difference": {stage.stage: stage.difference for stage in explanation.stages},
        },
        "checks": [
            {
                "figure": check.limit.figure,
                "value": check.value,
                "limit": str(check.limit),
                "holds": check.holds,
                "reason": check.limit.reason,
            }
            for check in artifact.checks
        ],
    }


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None
