"""Choose three pictures of parts for the first screen from those that a run has drawn."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import cv2
import numpy as np

from benchmarks.report.content import Picture
from tinyunet_deploy.errors import DataError
from tinyunet_deploy.files import read_regular
from tinyunet_deploy.inspection.output_names import overlay_name
from tinyunet_deploy.inspection.run_report import read_report

__all__ = ["part_pictures"]

_SHOWN: Final = 3
_WIDTH: Final = 480
"""Width of a picture in the page, pixels."""
_LARGEST: Final = 64 << 20
"""Largest picture that is read, bytes."""


class _Part(NamedTuple):
    """A part with its picture."""

    name: str
    path: Path
    wrong: bool
    """True if the verdict is known to be wrong."""
    ng: bool
    area_px: int
    """Area of the detected defects, pixels."""
    text: str


def part_pictures(folder: Path, evaluations: Sequence[dict[str, Any]]) -> list[Picture]:
    """Return three parts: a rejected one, a good one, and a mistake if there is one.

    Args:
        folder: output of ``tinyunet infer --overlays``, or the folder of ``tinyunet evaluate
            --overlays``.
        evaluations: results of ``tinyunet evaluate``, of which one is of the second folder.

    Raises:
        DataError: the folder contains no such pictures, or one cannot be read.
    """
    report = folder / "report.jsonl"
    parts = _inspected(folder, report) if report.is_file() else _evaluated(folder, evaluations)
    if not parts:
        raise DataError(
            folder, "contains no overlays of these results",
            "give the output of tinyunet infer --overlays, or of tinyunet evaluate --overlays",
        )  # fmt: skip
    return [Picture(_data_uri(part.path), part.name, part.text) for part in _choose(parts)]


def _inspected(folder: Path, report: Path) -> list[_Part]:
    parts = []
    for line in read_report(report)[0]:
        picture = folder / "overlays" / overlay_name(line["path"], line.get("change", 0))
        if line["status"] == "inspected" and picture.is_file():
            area = sum(defect["area_px"] for defect in line["defects"])
            text = "rejected (NG)" if line["verdict"] == "NG" else "passed (OK)"
            parts.append(
                _Part(line["path"], picture, False, line["verdict"] == "NG", area, text)
            )  # fmt: skip
    return parts


def _evaluated(folder: Path, evaluations: Sequence[dict[str, Any]]) -> list[_Part]:
    """Return the parts of the first evaluation whose pictures are all in the folder."""
    for evaluation in evaluations:
        names = [image["name"] for image in evaluation["per_image"]]
        pictures = [folder / overlay_name(name) for name in names]
        if not all(picture.is_file() for picture in pictures):
            continue
        threshold = str(evaluation["threshold"])
        return [
            _Part(
                image["name"], picture, (image["verdict"] == "NG") != image["defective"],
                image["verdict"] == "NG", image["predicted_px"][threshold], _judged(image),
            )
            for image, picture in zip(evaluation["per_image"], pictures, strict=True)
        ]  # fmt: skip
    return []


def _judged(image: dict[str, Any]) -> str:
    if image["verdict"] == "NG":
        return "rightly rejected" if image["defective"] else "rejected, though it is good"
    return "let through, though it is defective" if image["defective"] else "rightly passed"


def _choose(parts: Sequence[_Part]) -> list[_Part]:
    """Choose a typical rejected part, a good one and a mistake; if one is missing, choose
    another."""
    right = sorted((part for part in parts if not part.wrong), key=lambda part: part.area_px)
    rejected = [part for part in right if part.ng]
    passed = [part for part in right if not part.ng]
    wrong = [part for part in parts if part.wrong]
    chosen = [group[len(group) // 2] for group in (rejected, passed, wrong) if group]
    others = [part for part in [*reversed(rejected), *passed, *wrong] if part not in chosen]
    return [*chosen, *others][:_SHOWN]


def _data_uri(path: Path) -> str:
    picture = cv2.imdecode(np.frombuffer(read_regular(path, _LARGEST), np.uint8), cv2.IMREAD_COLOR)
    if picture is None:
        raise DataError(path, "is not a picture")
    height = max(1, round(picture.shape[0] * _WIDTH / picture.shape[1]))
    if picture.shape[1] > _WIDTH:
        picture = cv2.resize(picture, (_WIDTH, height), interpolation=cv2.INTER_AREA)
    encoded, jpeg = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 85])
    assert encoded
    return "data:image/jpeg;base64," + base64.b64encode(jpeg.tobytes()).decode()
