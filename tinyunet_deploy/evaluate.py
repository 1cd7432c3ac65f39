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
from typing import Any, Final

import cv2
import numpy as np

from tinyunet_deploy import __version__
from tinyunet_deploy.backends import Backend
from tinyunet_deploy.contract import Score, score_threshold
from tinyunet_deploy.dagm2007 import Dataset, Item, read_mask
from tinyunet_deploy.defects import find_defects, verdict
from tinyunet_deploy.errors import DataError, ImageError
from tinyunet_deploy.files import json_value
from tinyunet_deploy.metrics import (
    FORMULAS,
    NOTATION,
    ImageCounts,
    Ratios,
    Summary,
    count_image,
    mean_of,
    summarize,
)
from tinyunet_deploy.pipeline import score_images

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
            "skipped": [
                {"name": _name(self.dataset, path), "reason": error.reason, "what": error.what}
                for path, error in self.skipped.items()
            ],
            "notation": NOTATION,
            "formulas": FORMULAS,
            "classes": {k: dataclasses.asdict(summary) for k, summary in self.classes.items()},
            "mean": dataclasses.asdict(self.mean),
            "all": dataclasses.asdict(self.all),
        }
        head = json.dumps(json_value(fields), indent=2, allow_nan=False).removesuffix("\n}")
        lines = ",\n".join(f"    {json.dumps(_image_fields(image))}" for image in self.images)
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


def evaluate(
    dataset: Dataset,
    backend: Backend,
    *,
    threshold: float,
    min_area: int,
    batch_size: int,
    workers: int,
    progress: Callable[[int], None] | None = None,
) -> Evaluation:
    """Score every image of a data set and count what was found. An unusable image is skipped.

    Args:
        threshold: the operating threshold, probability in [0, 1].
        min_area: smaller defects do not count for the verdict, pixels.
        workers: threads that decode images, and as many that compare scores with masks.
        progress: takes the number of images that are newly finished.

    Raises:
        DataError: a mask is unusable, or every image is.
    """
    score_threshold(threshold)

    def count(item: Item, score: Score) -> ImageCounts:
        return count_image(
            score,
            read_mask(item, (score.shape[0], score.shape[1])),
            name=_name(dataset, item.image),
            class_id=item.class_id,
            defective=item.defective,
            verdict=verdict(find_defects(score, threshold, min_area)),
            threshold=threshold,
        )

    images: list[ImageCounts] = []
    skipped: dict[Path, ImageError] = {}
    pending: deque[Future[ImageCounts]] = deque()
    paths = [item.image for item in dataset.items]
    with ThreadPoolExecutor(workers) as pool:
        for scored in score_images(paths, backend, batch_size=batch_size, workers=workers):
            if scored.error is not None:
                skipped[scored.path] = scored.error
            else:
                assert scored.score is not None
                pending.append(pool.submit(count, dataset.items[scored.index], scored.score))
            if len(pending) > 2 * batch_size:  # bounds memory: each holds a score
                images.append(pending.popleft().result())
            if progress is not None:
                progress(1)
        images.extend(future.result() for future in pending)
    if not images:
        first = next(iter(skipped.values()))
        raise DataError(dataset.root, "has no usable image", f"the first is skipped: {first}")
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
        images=tuple(images),
        skipped=skipped,
    )


def _name(dataset: Dataset, path: Path) -> str:
    return path.relative_to(dataset.root).as_posix()


def _image_fields(image: ImageCounts) -> dict[str, Any]:
    return {
        "name": image.name,
        "class": image.class_id,
        "defective": image.defective,
        "truth_px": image.truth_px,
        "max_score": image.max_score,
        "verdict": image.verdict,
        "predicted_px": {str(t): pixels.predicted for t, pixels in image.pixels.items()},
        "intersection_px": {str(t): pixels.intersection for t, pixels in image.pixels.items()},
    }
