"""Section on the worst images of an evaluation, with pictures if the images are available."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np

from benchmarks.report.content import Picture, Section, Table
from benchmarks.report.joins import one_per_data_set
from benchmarks.report.results import Results
from benchmarks.report.wording import configuration, data_name
from tinyunet_deploy.artifacts.sidecar import KINDS, MODELS, read_sidecar
from tinyunet_deploy.backends.base import Backend
from tinyunet_deploy.backends.registry import open_backend
from tinyunet_deploy.contract import defect_mask
from tinyunet_deploy.data.dataset import Item
from tinyunet_deploy.data.decoding import read_image
from tinyunet_deploy.data.layouts import read_dataset
from tinyunet_deploy.data.masks import read_mask
from tinyunet_deploy.errors import ArtifactError, DataError
from tinyunet_deploy.inspection.overlays import TRUTH, outline

_WORST: Final = 6
"""Images that are shown."""
_THUMBNAIL: Final = 240
"""Side of one view, pixels."""


def worst_images(results: Results, data: Path | None) -> Section:
    """Return the section on the worst images of one evaluation.

    Args:
        data: the data set that was evaluated; None shows the table without pictures.

    Raises:
        DataError: no evaluation is of ``data``, or its images are not those that were evaluated.
    """
    section = Section("The worst images")
    evaluation = _evaluation_of(results, data)
    if evaluation is None:
        section.absent = True
        section.lead = ["Escapes, false alarms and poor outlines, one by one."]
        section.commands = ["tinyunet evaluate DATA -m MODEL -o benchmarks/results/NAME.json"]
        return section
    worst = sorted(evaluation["per_image"], key=lambda image: _badness(image, evaluation))[:_WORST]
    section.lead = [
        f"Of {data_name(evaluation)} by {_configuration(evaluation)}: "
        "escapes first, then false alarms, then the poorest outlines."
    ]
    section.tables = [_table(worst, evaluation)]
    if data is None:
        section.notes = ["The pictures are drawn where --data gives the folder of the images."]
        return section
    backend = _backend_of(evaluation)
    section.pictures = _pictures(worst, evaluation, data, backend)
    section.notes = [
        "Left the image with its label outlined, right with what is found."
        if backend
        else "The label is outlined; what is found is drawn where the model is in engines/."
    ]
    if backend is not None:
        backend.close()
    return section


def _configuration(evaluation: dict[str, Any]) -> str:
    model = evaluation["model"]
    return configuration(model["name"], model["precision"], evaluation["backend"])


def _evaluation_of(results: Results, data: Path | None) -> dict[str, Any] | None:
    """Return the evaluation to show: one of ``data`` if given, preferably of the fastest model."""
    evaluations = [
        evaluation
        for evaluation in results.evaluations.values()
        if data is None or evaluation["dataset"]["name"] == data.resolve().name
    ]
    if not evaluations:
        if data is not None:
            raise DataError(data, "is not the data set of any evaluation among the results")
        return None
    preferred = {id(evaluation) for evaluation in one_per_data_set(results)}
    return next((shown for shown in evaluations if id(shown) in preferred), evaluations[0])


def _table(worst: Sequence[dict[str, Any]], evaluation: dict[str, Any]) -> Table:
    rows = []
    for image in worst:
        predicted, both = _pixels(image, evaluation)
        rows.append(
            (image["name"], f"{image['truth_px']:,}", f"{predicted:,}", f"{both:,}", _fault(image))
        )
    return Table(("image", "truth px", "predicted px", "in both px", "verdict"), rows)


def _pixels(image: dict[str, Any], evaluation: dict[str, Any]) -> tuple[int, int]:
    """Return the predicted pixels, and how many of them are true, at the evaluated threshold."""
    threshold = str(evaluation["threshold"])
    return image["predicted_px"][threshold], image["intersection_px"][threshold]


def _badness(image: dict[str, Any], evaluation: dict[str, Any]) -> tuple[int, float]:
    """Return a sort key, which is smallest for the worst image."""
    predicted, both = _pixels(image, evaluation)
    if image["defective"] and image["verdict"] == "OK":
        return 0, -image["truth_px"]
    if not image["defective"] and image["verdict"] == "NG":
        return 1, -predicted
    union = image["truth_px"] + predicted - both
    return 2, both / union if union and image["defective"] else 1.0


def _fault(image: dict[str, Any]) -> str:
    right = "NG" if image["defective"] else "OK"
    if image["verdict"] == right:
        return str(image["verdict"])
    return "OK: an escape" if image["defective"] else "NG: a false alarm"


def _pictures(
    worst: Sequence[dict[str, Any]],
    evaluation: dict[str, Any],
    data: Path,
    backend: Backend | None,
) -> list[Picture]:
    dataset = read_dataset(data)
    items = {item.image.relative_to(dataset.root).as_posix(): item for item in dataset.items}
    pictures = []
    for image in worst:
        item = items.get(image["name"])
        if item is None:
            raise DataError(data / image["name"], "was evaluated but is missing now")
        predicted, both = _pixels(image, evaluation)
        union = image["truth_px"] + predicted - both
        text = _fault(image)
        text += f", IoU {both / union:.2f}" if image["defective"] else f", {predicted:,} px"
        uri = _thumbnail(item, image, evaluation["threshold"], backend)
        pictures.append(Picture(uri, image["name"], text))
    return pictures


def _backend_of(evaluation: dict[str, Any]) -> Backend | None:
    """Open the evaluated artifact, if it is among the package's models or in engines/."""
    for folder in (MODELS, Path("engines")):
        for path in sorted(folder.glob("*.json")):
            artifact = path.with_suffix("")
            if artifact.suffix in KINDS and artifact.is_file():
                try:
                    sha256 = read_sidecar(artifact).sha256
                except ArtifactError:
                    continue
                if sha256 == evaluation["model"]["sha256"]:
                    return open_backend(artifact, evaluation["backend"])
    return None


def _thumbnail(
    item: Item, counts: dict[str, Any], threshold: float, backend: Backend | None
) -> str:
    """Draw the image with its label, and beside it with the prediction, as a JPEG data URI."""
    image = read_image(item.image)
    truth = read_mask(item, (image.shape[0], image.shape[1]))
    if int(np.count_nonzero(truth)) != counts["truth_px"]:
        raise DataError(item.image, "is not the image that was evaluated", "another data set?")
    views = [outline(image, truth, TRUTH)]
    if backend is not None:
        score = backend.run(image[None, None]).score[0, 0]
        views.append(outline(image, defect_mask(score, threshold)))
    size = (_THUMBNAIL, _THUMBNAIL)
    small = [cv2.resize(view, size, interpolation=cv2.INTER_AREA) for view in views]
    gap = np.full((_THUMBNAIL, 6, 3), 128, np.uint8)
    picture = np.hstack([part for view in small for part in (gap, view)][1:])
    encoded, jpeg = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 82])
    assert encoded
    return "data:image/jpeg;base64," + base64.b64encode(jpeg.tobytes()).decode()
