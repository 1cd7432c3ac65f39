"""What a parity run leaves: ``parity.json``, ``parity.xml`` for CI, and pictures of the worst."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from tinyunet_deploy import __version__
from tinyunet_deploy.contract import Image, Score, defect_mask
from tinyunet_deploy.data.decoding import read_image
from tinyunet_deploy.data.encoding import encode_png
from tinyunet_deploy.files import json_value, write_atomic
from tinyunet_deploy.host import describe_machine
from tinyunet_deploy.quality.parity import NEAR_STEPS, STAGES, Comparison, Parity

SCHEMA_VERSION: Final = 1


def as_json(parity: Parity) -> str:
    """The text of ``parity.json``."""
    fields = {
        "schema_version": SCHEMA_VERSION,
        "tinyunet_deploy": __version__,
        "machine": describe_machine(),
        "reference": {
            "name": parity.reference.name,
            "sha256": parity.reference_sidecar.sha256,
            "backend": parity.reference_backend,
            "versions": parity.reference_versions,
        },
        "data": parity.folder.resolve().name,
        "images": len(parity.parts),
        "defective": sum(bool(part.item and part.item.defective) for part in parity.parts),
        "truth": any(part.item is not None for part in parity.parts),
        "skipped": [
            {"name": Path(error.where).name, "reason": error.reason, "what": error.what}
            for error in parity.skipped_images
        ],
        "threshold": parity.threshold,
        "min_area_px": parity.min_area,
        "near_steps": NEAR_STEPS,
        "stage_tolerances": STAGES,
        "comparisons": [_comparison(parity, found) for found in parity.comparisons],
    }
    return json.dumps(json_value(fields), indent=2, allow_nan=False) + "\n"


def as_junit(parity: Parity) -> bytes:
    """JUnit XML: a suite for each artifact on each backend, a case for each limit."""
    suites = ET.Element("testsuites", name="parity")
    for found in parity.comparisons:
        name = f"{found.model.name} on {found.backend} {found.device}"
        cases = [] if found.skipped is not None else found.checks
        failures = sum(not check.holds for check in cases)
        suite = ET.SubElement(
            suites,
            "testsuite",
            name=name,
            tests=str(max(len(cases), 1)),
            failures=str(failures),
            errors="0",
            skipped=str(int(not cases)),
        )
        if not cases:
            case = ET.SubElement(suite, "testcase", classname=name, name="runs")
            reason = found.skipped or f"no limit for {found.sidecar.precision}"
            ET.SubElement(case, "skipped", message=_printable(reason))
        for check in cases:
            case = ET.SubElement(suite, "testcase", classname=name, name=check.limit.figure)
            if not check.holds:
                message = f"{check.limit.figure} is {check.value:.6g}, {check.limit} wanted"
                failure = ET.SubElement(case, "failure", message=message, type="limit")
                failure.text = check.limit.reason
    ET.indent(suites)
    text: bytes = ET.tostring(suites, encoding="utf-8", xml_declaration=True)
    return text + b"\n"


def write_report(parity: Parity, output: Path) -> None:
    """Write ``parity.json``, ``parity.xml`` and ``worst/*.png`` under ``output``.

    Raises:
        RuntimeUnavailable: the disk is full or read-only.
    """
    pictures = output / "worst"
    pictures.mkdir(parents=True, exist_ok=True)
    for found in parity.comparisons:
        for rank, worst in enumerate(sorted(found.worst, reverse=True), start=1):
            part = parity.parts[worst.part]
            name = re.sub("[^A-Za-z0-9.-]+", "-", part.name)
            path = pictures / f"{found.model.name}-{found.backend}-{rank}-{name}.png"
            image, expected = read_image(part.path), parity.scores[worst.part]
            picture = draw_difference(image, expected, worst.score, parity.threshold)
            write_atomic(path, encode_png(picture))
    write_atomic(output / "parity.xml", as_junit(parity), durable=True)
    write_atomic(output / "parity.json", as_json(parity).encode(), durable=True)


def draw_difference(
    image: Image, expected: Score, score: Score, threshold: float
) -> NDArray[np.uint8]:
    """The reference's mask, the other mask, and their difference on the darkened image.

    In the third, red is only in the reference's mask and green only in the other; where the masks
    are the same, blue says that the scores are not, the brighter the further.

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


def _comparison(parity: Parity, found: Comparison) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "model": found.model.name,
        "sha256": found.sidecar.sha256,
        "precision": found.sidecar.precision,
        "backend": found.backend,
        "device": found.device,
        "outcome": found.outcome,
    }
    if found.skipped is not None:
        return {**fields, "skipped": found.skipped}
    explained = found.explanation
    return {
        **fields,
        "versions": found.versions,
        **found.figures,
        "least_agreement_of_an_image": found.least_agreement,
        "flipped_near_px": found.flipped_near,
        "flipped_far_px": found.flipped_far,
        "intersection_px": found.intersection_px,
        "union_px": found.union_px,
        "histogram_of_steps_px": np.trim_zeros(found.histogram, "b").tolist(),
        "iou_defective": float(np.mean(found.ious)) if found.ious else None,
        "iou_defective_of_reference": (
            float(np.mean(found.reference_ious)) if found.reference_ious else None
        ),
        "flipped_parts": [flip._asdict() for flip in found.flips],
        "batches": found.batch and {"sizes": found.batch.sizes, "steps": found.batch.steps},
        "worst": [
            {"name": parity.parts[worst.part].name, "flipped_px": worst.flipped_px}
            for worst in sorted(found.worst, reverse=True)
        ],
        "explanation": explained
        and {
            "name": explained.name,
            "first": explained.first and explained.first.stage,
            "largest_difference": {stage.stage: stage.difference for stage in explained.stages},
        },
        "checks": [
            {
                "figure": check.limit.figure,
                "value": check.value,
                "limit": str(check.limit),
                "holds": check.holds,
                "reason": check.limit.reason,
            }
            for check in found.checks
        ],
    }


def _printable(text: str) -> str:
    """XML has no way to write control characters."""
    return re.sub(r"[\x00-\x1f\x7f\ud800-\udfff\ufffe\uffff]", "?", text)
