"""Holding a file that is about to be written against the network it was made from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from tinyunet_deploy import synthetic
from tinyunet_deploy.artifact import Artifact, Precision
from tinyunet_deploy.backends import Backend, why_not
from tinyunet_deploy.backends.onnxruntime import ONNXRuntimeBackend
from tinyunet_deploy.backends.torch import TorchBackend
from tinyunet_deploy.contract import Batch, Contract, Image, Mask, score_threshold
from tinyunet_deploy.defects import find_defects, verdict
from tinyunet_deploy.errors import DataError, GateFailed
from tinyunet_deploy.images import IMAGE_SUFFIXES, read_image
from tinyunet_deploy.metrics import count_image, summarize

IMAGES: Final = 10


@dataclass(frozen=True)
class Limits:
    """What a file may differ by from its checkpoint, besides flipping no verdict."""

    max_difference_steps: int
    """Largest difference of one score, in steps of 1/255."""
    agreement_iou: float
    """Smallest accepted overlap of the masks; see :func:`agreement_iou`."""


LIMITS: Final[dict[Precision, Limits]] = {
    # Two runtimes sum in another order, so a score on the edge of rounding may move by one.
    "fp32": Limits(1, 0.9999),
    # Half keeps 11 bits: logits of 50 move by 0.02, which is up to two steps in the middle of the
    # sigmoid and more where features of several hundred cancel. Masks must stay as they are.
    "fp16": Limits(32, 0.999),
}
"""Limits of the floating-point files. The int8 file has the IoU budget instead."""

MAX_ACTIVATION: Final = 65504.0 / 2
"""Largest accepted activation of an fp16 file: half of half precision's largest number, to leave
room for images that were not seen here. A CPU runs these files in float32 and shows no overflow."""


@dataclass(frozen=True)
class Likeness:
    """How a file answers beside its reference on labelled images."""

    images: int
    iou_defective_reference: float
    """Against truth, of the reference."""
    iou_defective: float
    """Against truth, of the file."""
    agreement_iou: float
    """Overlap of the two's masks; 1.0 where neither finds anything."""
    verdict_flips: int
    """Parts whose verdict is not the reference's."""
    escapes: int
    """Defective parts that the reference stops and the file lets through."""
    max_difference_steps: int
    """Largest difference of a score, in steps of 1/255."""

    @property
    def iou_drop(self) -> float:
        """What iou_defective lost; negative where it won."""
        return self.iou_defective_reference - self.iou_defective

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def comparison_images(contract: Contract, folder: Path | None) -> list[Image]:
    """Up to ten images of a folder, or one synthetic image of each class.

    Raises:
        DataError: the folder holds no image of the contract's size.
    """
    if folder is None:
        side = max(64, contract.height, contract.width)
        crops = [
            synthetic.sample(class_id, 1, defective=True, size=side).image
            for class_id in synthetic.CLASSES
        ]
        return [crop[: contract.height, : contract.width] for crop in crops]
    paths = sorted(p for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES)
    images = [image for image in map(read_image, paths[:IMAGES]) if image.shape == _size(contract)]
    if not images:
        raise DataError(folder, f"holds no image of {contract.width}x{contract.height} pixels")
    return images


def checkpoint_scores(checkpoint: Artifact, images: Sequence[Image]) -> Batch:
    """Scores of the checkpoint in PyTorch: uint8 [N, 1, H, W]."""
    return scores(TorchBackend(checkpoint), images)


def compare(wanted: Batch, exported: Artifact, images: Sequence[Image]) -> dict[str, int | float]:
    """Hold a file against the scores of its checkpoint, one image and several at a time.

    Args:
        wanted: uint8 [N, 1, H, W].

    Returns:
        The figures of the worse of the two.

    Raises:
        GateFailed: over :data:`LIMITS`, which int8 files have none of here.
    """
    backend, sidecar = ONNXRuntimeBackend(exported), exported.sidecar
    steps, agreement, flips = 0, 1.0, 0
    for size in (1, 3):
        given = scores(backend, images, size)
        steps = max(steps, int(np.abs(given.astype(np.int16) - wanted).max()))
        agreement = min(agreement, agreement_iou(wanted, given, sidecar.threshold))
        flips = max(flips, _flips(wanted, given, sidecar.threshold, sidecar.min_area))
    if limits := LIMITS.get(sidecar.precision):
        broken = None
        if steps > limits.max_difference_steps:
            allowed = f"{limits.max_difference_steps} allowed"
            broken = f"scores differ from the checkpoint's by up to {steps} of 255, {allowed}"
        elif agreement < limits.agreement_iou:
            broken = (
                f"masks overlap with the checkpoint's by {agreement:.5f}, "
                f"{limits.agreement_iou} wanted"
            )
        elif flips:
            broken = f"{flips} of {len(images)} verdicts are not the checkpoint's"
        if broken:
            raise GateFailed(exported.path, broken, "nothing was written")
    return {
        "images": len(images),
        "max_difference_steps": steps,
        "agreement_iou": agreement,
        "verdict_flips": flips,
    }


def likeness(
    reference: Batch,
    given: Batch,
    truths: Sequence[tuple[Mask, bool]],
    threshold: float,
    min_area: int,
) -> Likeness:
    """Compare two sets of scores with each other and with the truth.

    Args:
        reference, given: uint8 [N, 1, H, W].
        truths: defect pixels, and whether the part is defective.
        threshold, min_area: the operating point.
    """
    ious, verdicts = [], []
    for batch in (reference, given):
        counts = [
            count_image(
                score,
                mask,
                name="",
                class_id=None,
                defective=defective,
                verdict=verdict(find_defects(score, threshold, min_area)),
                threshold=threshold,
            )
            for (score,), (mask, defective) in zip(batch, truths, strict=True)
        ]
        ious.append(summarize(counts, threshold).iou_defective)
        verdicts.append([image.verdict for image in counts])
    return Likeness(
        images=len(truths),
        iou_defective_reference=ious[0],
        iou_defective=ious[1],
        agreement_iou=agreement_iou(reference, given, threshold),
        verdict_flips=sum(a != b for a, b in zip(*verdicts, strict=True)),
        escapes=sum(
            defective and (before, after) == ("NG", "OK")
            for before, after, (_, defective) in zip(*verdicts, truths, strict=True)
        ),
        max_difference_steps=int(np.abs(given.astype(np.int16) - reference).max()),
    )


def agreement_iou(reference: Batch, given: Batch, threshold: float) -> float:
    """Intersection over union of two sets of masks, pixels of all images counted together."""
    limit = score_threshold(threshold)
    a, b = reference > limit, given > limit
    union = np.count_nonzero(a | b)
    return float(np.count_nonzero(a & b) / union) if union else 1.0


def fastest_backend(artifact: Artifact) -> Backend:
    """The artifact in OpenVINO, which computes in int8, or else in ONNX Runtime, which emulates."""
    if why_not("openvino") is None:
        from tinyunet_deploy.backends.openvino import OpenVINOBackend

        return OpenVINOBackend(artifact)
    return ONNXRuntimeBackend(artifact)


def scores(backend: Backend, images: Sequence[Image], size: int = 1) -> Batch:
    """Scores of images, ``size`` at a time: uint8 [N, 1, H, W]."""
    return np.concatenate([backend.run(part).score for part in _parts(images, size)])


def _flips(reference: Batch, given: Batch, threshold: float, min_area: int) -> int:
    verdicts = (
        [verdict(find_defects(score, threshold, min_area)) for (score,) in batch]
        for batch in (reference, given)
    )
    return sum(a != b for a, b in zip(*verdicts, strict=True))


def _parts(images: Sequence[Image], size: int) -> Iterator[Batch]:
    for start in range(0, len(images), size):
        yield np.stack(images[start : start + size])[:, None]


def _size(contract: Contract) -> tuple[int, int]:
    return contract.height, contract.width
