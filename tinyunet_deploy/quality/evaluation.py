"""How well an artifact finds the defects of a labelled data set."""

from __future__ import annotations

import dataclasses
import json
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar

import cv2
import numpy as np

from tinyunet_deploy import __version__
from tinyunet_deploy.artifacts.sidecar import digest
from tinyunet_deploy.backends.base import Backend
from tinyunet_deploy.contract import Image, Score, score_threshold
from tinyunet_deploy.data.dataset import Dataset, Item
from tinyunet_deploy.data.encoding import encode_png
from tinyunet_deploy.data.masks import read_mask
from tinyunet_deploy.errors import DataError, ImageError
from tinyunet_deploy.files import json_value, read_regular, write_atomic
from tinyunet_deploy.inspection.defects import (
    MATCHING,
    Findings,
    TrueDefect,
    compare_with_truth,
    recall_by_size,
    verdict,
)
from tinyunet_deploy.inspection.overlays import draw_miss
from tinyunet_deploy.inspection.pipeline import score_images
from tinyunet_deploy.quality.metrics import (
    BOUNDS,
    FORMULAS,
    NOTATION,
    ImageCounts,
    Ratios,
    Summary,
    count_image,
    mean_of,
    summarize,
)

T = TypeVar("T")

SCHEMA_VERSION: Final = 1


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation found, and of what."""

    dataset: Dataset
    model: str
    """File name of the artifact."""
    model_sha256: str
    precision: str
    backend: str
    device: str
    versions: dict[str, str]
    """Package -> version of what decodes, computes and counts."""
    threshold: float
    """The operating threshold, probability."""
    min_area: int
    """Pixels that a defect has at least."""
    images: tuple[ImageCounts, ...]
    """In the order of the data set, without the skipped ones; never empty."""
    skipped: dict[Path, ImageError]
    """Image file -> why it could not be used."""
    findings: tuple[Findings, ...]
    """The defects of each of ``images``, beside those of its truth."""
    tuned_on: int
    """Images among them that chose the artifact's operating point; figures of those flatter it."""

    @property
    def true_defects(self) -> list[TrueDefect]:
        """The defects in the truth of all images."""
        return [defect for found in self.findings for defect in found.truth]

    @property
    def false_defects(self) -> int:
        """Defects that were found where the truth has none."""
        return sum(len(found.false) for found in self.findings)

    @cached_property
    def classes(self) -> dict[int, Summary]:
        """Class -> figures; empty for images that have no class."""
        by_class: dict[int, list[ImageCounts]] = {}
        for image in self.images:
            if image.class_id is not None:
                by_class.setdefault(image.class_id, []).append(image)
        return {k: summarize(images, self.threshold) for k, images in sorted(by_class.items())}

    @property
    def mean(self) -> Ratios:
        """The mean of the classes' figures, which is what is published for DAGM2007."""
        return mean_of(list(self.classes.values()) or [self.all])

    @property
    def all(self) -> Summary:
        """The figures of all images together, whatever their class."""
        return summarize(self.images, self.threshold)

    def as_json(self) -> str:
        """The text of a result file; each image is one line of ``per_image``."""
        splits = {item.split for item in self.dataset.items}
        fields = {
            "schema_version": SCHEMA_VERSION,
            "tinyunet_deploy": __version__,
            "model": {
                "name": self.model,
                "sha256": self.model_sha256,
                "precision": self.precision,
            },
            "backend": self.backend,
            "device": self.device,
            "versions": self.versions,
            "dataset": {
                "name": self.dataset.root.resolve().name,
                "layout": self.dataset.layout,
                "classes": list(self.classes),
                "split": "all" if len(splits) > 1 else splits.pop(),
            },
            "threshold": self.threshold,
            "min_area_px": self.min_area,
            "images": len(self.images),
            "tuned_on_these_images": self.tuned_on > 0,
            "images_tuned_on": self.tuned_on,
            "skipped": [
                {"name": _name(self.dataset, path), "reason": error.reason, "what": error.what}
                for path, error in self.skipped.items()
            ],
            "notation": NOTATION,
            "formulas": {**FORMULAS, **BOUNDS},
            "classes": {k: summary.as_fields() for k, summary in self.classes.items()},
            "mean": dataclasses.asdict(self.mean),
            "all": self.all.as_fields(),
            "defects": {
                "matching": MATCHING,
                "truth": len(self.true_defects),
                "hit": sum(defect.hit for defect in self.true_defects),
                "missed": sum(not defect.hit for defect in self.true_defects),
                "false": self.false_defects,
                "by_size": [row._asdict() for row in recall_by_size(self.true_defects)],
            },
        }
        head = json.dumps(json_value(fields), indent=2, allow_nan=False).removesuffix("\n}")
        lines = ",\n".join(
            f"    {json.dumps(_image_fields(image, found))}"
            for image, found in zip(self.images, self.findings, strict=True)
        )
        return f'{head},\n  "per_image": [\n{lines}\n  ]\n}}\n'


def held_out(dataset: Dataset) -> Dataset:
    """The test images of a data set that is split, all images of one that is not.

    Raises:
        DataError: it is split and has no test images.
    """
    if all(item.split is None for item in dataset.items):
        return dataset
    test = tuple(item for item in dataset.items if item.split == "test")
    if not test:
        raise DataError(
            dataset.root, "has no test images", "choose --split train to use the others"
        )
    return dataclasses.replace(dataset, items=test)


def measure_images(
    dataset: Dataset,
    backend: Backend,
    measure: Callable[[Item, Image, Score], T],
    *,
    batch_size: int,
    workers: int,
    tile: bool,
    progress: Callable[[int], None] | None,
) -> tuple[list[T], dict[Path, ImageError]]:
    """Score the images of a data set and measure each on a pool of ``workers`` threads.

    Args:
        tile: take images larger than the network's, too, and run them in overlapping tiles.
        progress: takes the number of images that are newly finished.

    Returns:
        What ``measure`` gave for each usable image, in their order, and why others were skipped.

    Raises:
        DataError: no image is usable.
    """
    contract = backend.contract
    measured: list[T] = []
    skipped: dict[Path, ImageError] = {}
    pending: deque[Future[T]] = deque()
    paths = [item.image for item in dataset.items]
    with ThreadPoolExecutor(workers) as pool:
        for scored in score_images(
            paths, backend, batch_size=batch_size, workers=workers, tile=tile
        ):
            if scored.error is not None:
                skipped[scored.path] = scored.error
            else:
                assert scored.image is not None
                assert scored.score is not None
                # Bounds memory: each holds an image and a score.
                usual = 2 * batch_size * contract.height * contract.width
                while len(pending) > usual // scored.score.size:
                    measured.append(pending.popleft().result())
                item = dataset.items[scored.index]
                pending.append(pool.submit(measure, item, scored.image, scored.score))
            if progress is not None:
                progress(1)
        measured.extend(future.result() for future in pending)
    if not measured:
        first = next(iter(skipped.values()))
        raise DataError(dataset.root, "has no usable image", f"the first is skipped: {first}")
    return measured, skipped


def evaluate(
    dataset: Dataset,
    backend: Backend,
    *,
    threshold: float,
    min_area: int,
    batch_size: int,
    workers: int,
    tile: bool = False,
    misses: Path | None = None,
    progress: Callable[[int], None] | None = None,
) -> Evaluation:
    """Score every image of a data set and count what was found. An unusable image is skipped.

    Args:
        threshold: the operating threshold, probability in [0, 1].
        min_area: smaller defects do not count for the verdict, pixels.
        workers: threads that decode images, and as many that compare scores with masks.
        tile: take images larger than the network's, too, and run them in overlapping tiles.
        misses: folder for a picture of each defect that was missed; made if it is not there.
        progress: takes the number of images that are newly finished.

    Raises:
        DataError: a mask is unusable, or every image is.
    """
    score_threshold(threshold)

    tuned_on = set(backend.artifact.sidecar.inherited.get("tuned", {}).get("images", ()))

    def count(item: Item, image: Image, score: Score) -> _Counted:
        name = _name(dataset, item.image)
        truth = read_mask(item, (score.shape[0], score.shape[1]))
        findings = compare_with_truth(score, truth, threshold, min_area)
        if misses is not None:
            for number, missed in enumerate(findings.missed, start=1):
                picture = misses / f"{name}-{number}.png"
                picture.parent.mkdir(parents=True, exist_ok=True)
                write_atomic(picture, encode_png(draw_miss(image, score, truth, missed.bbox)))
        counts = count_image(
            score,
            truth,
            name=name,
            class_id=item.class_id,
            defective=item.defective,
            verdict=verdict(findings.found),
            threshold=threshold,
        )
        return _Counted(counts, findings, bool(tuned_on) and image_digest(item.image) in tuned_on)

    counted, skipped = measure_images(
        dataset,
        backend,
        count,
        batch_size=batch_size,
        workers=workers,
        tile=tile,
        progress=progress,
    )
    sidecar = backend.artifact.sidecar
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
        images=tuple(one.counts for one in counted),
        skipped=skipped,
        findings=tuple(one.findings for one in counted),
        tuned_on=sum(one.tuned_on for one in counted),
    )


def image_digest(path: Path) -> str:
    """What an image file is known by in the sidecar of a model that was tuned on it."""
    return digest(read_regular(path))[:16]


class _Counted(NamedTuple):
    counts: ImageCounts
    findings: Findings
    tuned_on: bool


def _name(dataset: Dataset, path: Path) -> str:
    return path.relative_to(dataset.root).as_posix()


def _image_fields(image: ImageCounts, found: Findings) -> dict[str, Any]:
    return {
        "name": image.name,
        "class": image.class_id,
        "defective": image.defective,
        "truth_px": image.truth_px,
        "max_score": image.max_score,
        "verdict": image.verdict,
        "predicted_px": {str(t): pixels.predicted for t, pixels in image.pixels.items()},
        "intersection_px": {str(t): pixels.intersection for t, pixels in image.pixels.items()},
        "true_defects": [dataclasses.asdict(defect) for defect in found.truth],
        "false_defects": [defect.as_fields() for defect in found.false],
    }
