"""Choose the images of a labelled data set, and score and measure each of them."""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Generic, Literal, NamedTuple, TypeVar

from tinyunet_deploy.artifacts.sidecar import digest
from tinyunet_deploy.backends.base import Backend
from tinyunet_deploy.contract import Image, Score
from tinyunet_deploy.data.bit_depth import BitDepth
from tinyunet_deploy.data.dataset import SPLITS, Dataset, Item, Split
from tinyunet_deploy.data.layouts import read_dataset
from tinyunet_deploy.errors import DataError, ImageError
from tinyunet_deploy.files import read_regular
from tinyunet_deploy.inspection.notes import ScoreTally, log_notes
from tinyunet_deploy.inspection.scoring import score_images

__all__ = [
    "ScoredDataset",
    "compared_images",
    "held_out",
    "image_digest",
    "missing_kinds",
    "read_evaluated",
    "score_dataset",
    "tuning_images",
]

T = TypeVar("T")


class ScoredDataset(NamedTuple, Generic[T]):
    """Measurements on the images of a data set."""

    measured: list[T]
    """Result of the measurement of each usable image, in the order of the data set."""
    skipped: dict[Path, ImageError]
    """Image file -> why it could not be used."""
    notes: tuple[str, ...]
    """Sentences of :func:`~tinyunet_deploy.inspection.notes.run_notes`."""


def read_evaluated(
    root: Path,
    *,
    classes: Collection[int] | None = None,
    split: Literal["train", "val", "test", "all"] | None = None,
) -> Dataset:
    """List the images of a labelled data set on which a model is measured.

    Args:
        root: the data set's folder.
        classes: use only these; None uses all.
        split: None takes the images of :func:`held_out`.

    Raises:
        DataError: the data set is damaged, or has no such images.
    """
    dataset = read_dataset(root, classes=classes, split=None if split == "all" else split)
    return held_out(dataset) if split is None else dataset


def held_out(dataset: Dataset) -> Dataset:
    """Return the test images of a data set with splits, or all images of one without.

    Raises:
        DataError: the data set has splits but no test images.
    """
    if all(item.split is None for item in dataset.items):
        return dataset
    test = _images_of(dataset, "test")
    if test is None:
        others = [split for split in SPLITS if _images_of(dataset, split) is not None]
        hint = f"choose --split {' or '.join(reversed(others))} to use the others"
        raise DataError(dataset.root, "has no test images", hint)
    return test


def tuning_images(dataset: Dataset) -> Dataset:
    """Return the val images of a data set, else its train images, else all images."""
    return _images_of(dataset, "val") or _images_of(dataset, "train") or dataset


def compared_images(dataset: Dataset) -> Dataset:
    """Return the images on which two models are compared: test, else val, else train, else all."""
    return _images_of(dataset, "test") or tuning_images(dataset)


def _images_of(dataset: Dataset, split: Split) -> Dataset | None:
    items = tuple(item for item in dataset.items if item.split == split)
    return dataclasses.replace(dataset, items=items) if items else None


def missing_kinds(defective: Sequence[bool]) -> tuple[str, ...]:
    """Return sentences about what cannot be shown without good or without defective images.

    They are logged, too.

    Args:
        defective: for each image whether it is defective.
    """
    notes = []
    if all(defective):
        notes.append("there are no good images, so overkill cannot be shown")
    if not any(defective):
        notes.append("there are no defective images, so escapes cannot be shown")
    log_notes(notes)
    return tuple(notes)


def image_digest(path: Path) -> str:
    """Return the 16 hex digits by which the sidecar of a tuned model names an image file."""
    return digest(read_regular(path))[:16]


def score_dataset(
    dataset: Dataset,
    backend: Backend,
    measure: Callable[[Item, Image, Score], T],
    *,
    batch_size: int,
    workers: int,
    tile: bool,
    bits: int | None,
    max_pixels: int | None,
    progress: Callable[[int], None] | None,
) -> ScoredDataset[T]:
    """Score the images of a data set and measure each score; log doubts about the scores.

    Args:
        measure: takes the item, its image and its score; called on a pool of ``workers`` threads.
        workers: threads that decode images, and as many that measure.
        tile: take images of any size; False skips those that are not of the network's size.
        max_pixels: largest accepted height x width of an image; None is 64 megapixels.
        bits: depth of 16-bit files, 8..16; None takes the one of the data set, else the sidecar's.
        progress: takes the number of images that are newly finished.

    Raises:
        DataError: no image is usable.
    """
    contract = backend.contract
    measured: list[T] = []
    skipped: dict[Path, ImageError] = {}
    pending: deque[Future[T]] = deque()
    tally = ScoreTally()
    bits = dataset.bits if bits is None else bits
    depth = BitDepth(backend.artifact.sidecar.bit_depth(bits))
    paths = [item.image for item in dataset.items]
    with ThreadPoolExecutor(workers) as pool:
        for scored in score_images(
            paths,
            backend,
            batch_size=batch_size,
            workers=workers,
            tile=tile,
            depth=depth,
            max_pixels=max_pixels,
        ):
            if scored.error is not None:
                skipped[scored.path] = scored.error
            else:
                assert scored.image is not None
                assert scored.score is not None
                tally.add(scored)
                # Pending images occupy memory: wait when they have the pixels of two batches.
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
    log_notes(tally.notes)
    return ScoredDataset(measured, skipped, tally.notes)
