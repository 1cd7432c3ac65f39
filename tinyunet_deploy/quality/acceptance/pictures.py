"""Pictures of the parts on which the verdict of an acceptance test turns."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Final, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from tinyunet_deploy.backends.base import Backend
from tinyunet_deploy.contract import defect_mask
from tinyunet_deploy.data.bit_depth import BitDepth
from tinyunet_deploy.data.dataset import Item
from tinyunet_deploy.data.encoding import encode_jpeg
from tinyunet_deploy.data.masks import read_mask
from tinyunet_deploy.inspection.defects import compare_with_truth, verdict
from tinyunet_deploy.inspection.overlays import overlay_with_truth
from tinyunet_deploy.inspection.scoring import score_images
from tinyunet_deploy.quality.acceptance.evidence import PartKind, PartPicture
from tinyunet_deploy.quality.evaluation import Evaluation

__all__ = ["MOST", "draw_parts"]

MOST: Final = 12
"""Largest number of pictures of escapes, and of rejected good parts."""
_NEAR: Final = 2
"""Number of pictures of parts that were nearly judged wrongly, where none of their kind was."""
_SIDE: Final = 400
"""Longest side of a picture, pixels."""


class _Chosen(NamedTuple):
    kind: PartKind
    name: str


def draw_parts(
    evaluation: Evaluation,
    backend: Backend,
    *,
    tile: bool,
    bits: int | None,
    max_pixels: int | None,
) -> Iterator[PartPicture]:
    """Draw escapes and rejected good parts or, if there are none, the parts that came nearest.

    Args:
        evaluation: the evaluation that judged the parts.
        backend: the loaded model; the chosen images are scored again.
        tile, bits, max_pixels: as for :func:`~tinyunet_deploy.quality.evaluation.evaluate`.
    """
    dataset = evaluation.dataset
    items = {item.image.relative_to(dataset.root).as_posix(): item for item in dataset.items}
    chosen = [*_escapes(evaluation), *_rejects(evaluation)]
    depth = backend.artifact.sidecar.bit_depth(dataset.bits if bits is None else bits)
    scored_images = score_images(
        [items[part.name].image for part in chosen],
        backend,
        batch_size=1,
        workers=1,
        tile=tile,
        depth=BitDepth(depth),
        max_pixels=max_pixels,
    )
    for part, scored in zip(chosen, scored_images, strict=True):
        if scored.image is not None and scored.score is not None:
            yield _draw(evaluation, part, items[part.name], scored.image, scored.score)


def _escapes(evaluation: Evaluation) -> list[_Chosen]:
    """Return the escapes; without any, the parts that were rejected for the smallest defect."""
    judged = list(zip(evaluation.images, evaluation.findings, strict=True))
    escapes = [i.name for i, _ in judged if i.defective and i.verdict == "OK"]
    if escapes:
        return [_Chosen("escape", name) for name in escapes[:MOST]]
    areas = sorted((f.detected[0].area_px, i.name) for i, f in judged if i.defective and f.detected)
    return [_Chosen("near escape", name) for _, name in areas[:_NEAR]]


def _rejects(evaluation: Evaluation) -> list[_Chosen]:
    """Return the rejected good parts; without any, the passed ones with the highest scores."""
    good = [image for image in evaluation.images if not image.defective]
    rejects = [image.name for image in good if image.verdict == "NG"]
    if rejects:
        return [_Chosen("reject", name) for name in rejects[:MOST]]
    scores = sorted((-image.max_score, image.name) for image in good)
    return [_Chosen("near reject", name) for _, name in scores[:_NEAR]]


def _draw(
    evaluation: Evaluation,
    part: _Chosen,
    item: Item,
    image: NDArray[np.uint8],
    score: NDArray[np.uint8],
) -> PartPicture:
    threshold, min_area = evaluation.threshold, evaluation.min_area
    truth = read_mask(item, (score.shape[0], score.shape[1]))
    findings = compare_with_truth(score, truth, threshold, min_area)
    drawn = overlay_with_truth(image, score, defect_mask(score, threshold), truth, findings)
    height, width = drawn.shape[:2]
    factor = min(1.0, _SIDE / max(height, width))
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    small = np.asarray(cv2.resize(drawn, size, interpolation=cv2.INTER_AREA), np.uint8)
    return PartPicture(
        kind=part.kind,
        name=part.name,
        verdict=verdict(findings.detected),
        max_score=int(score.max()),
        jpeg=base64.b64encode(encode_jpeg(small)).decode(),
        width=size[0],
        height=size[1],
    )
