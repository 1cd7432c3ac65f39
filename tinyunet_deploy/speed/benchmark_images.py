"""The images of a benchmark, and the scores that the reference gives them."""

from __future__ import annotations

import hashlib
import math
import statistics
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tinyunet_deploy.backends.base import Backend
from tinyunet_deploy.contract import Batch
from tinyunet_deploy.data import synthetic
from tinyunet_deploy.data.bit_depth import BitDepth
from tinyunet_deploy.data.decoding import read_image, require_content
from tinyunet_deploy.data.encoding import write_png
from tinyunet_deploy.errors import DataError
from tinyunet_deploy.files import scratch_folder
from tinyunet_deploy.inspection.scoring import score_images
from tinyunet_deploy.inspection.walk import common_root, walk_images
from tinyunet_deploy.quality.parity_inputs import ComparedImage, find_images
from tinyunet_deploy.quality.stored_scores import StoredScores
from tinyunet_deploy.speed.benchmark_result import MeasuredImages

__all__ = ["BenchmarkImages", "open_benchmark_images"]


@dataclass(frozen=True)
class BenchmarkImages:
    """Images to measure with, and the answers of the reference."""

    images: list[ComparedImage]
    scores: StoredScores
    """The reference's scores, in the order of the images."""
    threshold: float
    """Threshold of the reference, a probability."""
    min_area: int
    facts: MeasuredImages
    bits: int | None = None
    """Depth of 16-bit files; None leaves it to the files."""

    def batch(self, indices: Iterable[int]) -> Batch:
        """Read and decode images, uint8 [N, 1, H, W]."""
        return np.stack([read_image(self.images[index].path, bits=self.bits) for index in indices])[
            :, None
        ]


@contextmanager
def open_benchmark_images(
    sources: Sequence[Path],
    reference: Backend,
    *,
    count: int,
    workers: int,
    bits: int | None = None,
) -> Iterator[BenchmarkImages]:
    """Find or generate images and have the reference score them.

    Args:
        sources: image files and folders; empty generates synthetic images. From a labelled data set
            the held-out images are taken.
        reference: backend that scores the images; they have the size that it takes.
        count: largest number of images; if there are more, evenly spaced ones are used.
        workers: decoding threads.
        bits: depth of 16-bit files, 8..16; None takes the one in the reference's sidecar.

    Raises:
        DataError: there is no usable image, or one has a single grey value throughout.
    """
    with scratch_folder() as scratch, StoredScores() as scores:
        if sources:
            images, folder = _find_images(sources), common_root(sources).name
        else:
            contract = reference.contract
            images, folder = _synthesize(scratch, contract.height, contract.width, count), ""
        count = min(count, len(images))
        images = [images[number * len(images) // count] for number in range(count)]
        source = "files" if sources else "synthetic"
        yield _score(
            images,
            reference,
            scores,
            source,
            folder,
            workers,
            reference.artifact.sidecar.bit_depth(bits),
        )


def _find_images(sources: Sequence[Path]) -> list[ComparedImage]:
    if len(sources) == 1 and sources[0].is_dir():
        return find_images(sources[0])
    root = common_root(sources)
    images = [
        ComparedImage(path, path.relative_to(root).as_posix(), None)
        for path in walk_images(sources)
    ]
    if not images:
        raise DataError(root, "contains no images")
    return images


def _synthesize(folder: Path, height: int, width: int, count: int) -> list[ComparedImage]:
    """Write images of all classes in turn, every other one defective."""
    images = []
    for index in range(count):
        class_id = synthetic.CLASSES[index % len(synthetic.CLASSES)]
        sample = synthetic.sample(
            class_id, index, defective=index % 2 == 1, size=max(height, width)
        )
        path = folder / f"{index:04}.png"
        write_png(path, np.ascontiguousarray(sample.image[:height, :width]))
        images.append(ComparedImage(path, path.name, None))
    return images


def _score(
    images: Sequence[ComparedImage],
    reference: Backend,
    scores: StoredScores,
    source: str,
    folder: str,
    workers: int,
    bits: int | None,
) -> BenchmarkImages:
    """Score the images, leave out those that cannot be used, and describe the others."""
    usable, errors = [], []
    checksum = hashlib.sha256()
    means, squares = [], []
    paths = [image.path for image in images]
    for scored in score_images(
        paths, reference, batch_size=1, workers=workers, depth=BitDepth(bits)
    ):
        if scored.image is None or scored.score is None:
            errors.append(str(scored.error))
            continue
        require_content(scored.image, scored.path)
        usable.append(images[scored.index])
        scores.append(scored.score)
        checksum.update(scored.image.tobytes())
        means.append(float(scored.image.mean()))
        squares.append(float(np.square(scored.image, dtype=np.float64).mean()))
    if not usable:
        raise DataError(images[0].path, "and the others cannot be used", errors[0])
    mean = statistics.fmean(means)
    facts = MeasuredImages(
        source=source,
        folder=folder,
        images=len(usable),
        sha256=checksum.hexdigest(),
        image_px=(reference.contract.height, reference.contract.width),
        mean=mean,
        standard_deviation=math.sqrt(max(statistics.fmean(squares) - mean**2, 0.0)),
        skipped=tuple(errors),
    )
    sidecar = reference.artifact.sidecar
    return BenchmarkImages(usable, scores, sidecar.threshold, sidecar.min_area, facts, bits)
