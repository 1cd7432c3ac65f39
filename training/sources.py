"""The images of a run, decoded into memory, and split into training and validation images."""

from __future__ import annotations

import functools
import logging
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from tinyunet_deploy.artifacts.sidecar import digest
from tinyunet_deploy.contract import Image, Mask, Score
from tinyunet_deploy.data.bit_depth import BitDepth
from tinyunet_deploy.data.dataset import Item
from tinyunet_deploy.data.decoding import read_image
from tinyunet_deploy.data.layouts import read_training_parts
from tinyunet_deploy.data.masks import read_mask
from tinyunet_deploy.errors import DataError, ImageError, TinyUNetError, printable
from tinyunet_deploy.host import processor_count
from tinyunet_deploy.inspection.walk import no_images, walk_images
from training.recipe import Recipe

__all__ = [
    "LARGEST_SIDE",
    "Example",
    "Source",
    "defect_pixels",
    "different_sources",
    "model_size",
    "read_source",
    "read_unlabelled",
    "sources_digest",
    "validation_images",
]

log = logging.getLogger("training")

LARGEST_SIDE: Final = 512
"""Largest height and width of a model that is not given its size, pixels: that of DAGM2007, more
than twice the reach of ``tiny``, so that tiles are exact and little is computed twice."""
_LISTED: Final = 20
"""Largest number of unusable files that are listed one by one."""
_DEFECT_PIXELS = 256
"""Approximate number of pixels of each defect that are kept, evenly spaced, to place crops on."""


@dataclass(frozen=True)
class Example:
    """One decoded image with its truth."""

    item: Item
    image: Image
    mask: Mask
    """uint8 [H, W], {0, 255}."""
    defect_yx: NDArray[np.int32] | None
    """int32 [K, 2], some pixels of the defect; None for a defect-free image."""
    score: Score | None = None
    """uint8 [H, W], score of the teacher; None without a teacher."""


@dataclass(frozen=True)
class Source:
    """The images of one data folder."""

    name: str
    """The folder's own name."""
    defective: tuple[Example, ...]
    defect_free: tuple[Example, ...]
    validation: tuple[Example, ...]
    """Defective and defect-free images that are kept out of training."""
    bits: int | None = None
    """Depth of the camera whose values 16-bit files contain; None leaves it to the files."""
    unlabelled: tuple[Example, ...] = ()
    """Images for which only a teacher says what is a defect; a source with some has no others."""

    @property
    def trained(self) -> tuple[Example, ...]:
        """The images that train the weights."""
        return (*self.defective, *self.defect_free, *self.unlabelled)


def read_source(
    root: Path, classes: Sequence[int] | None, recipe: Recipe, bits: int | None = None
) -> Source:
    """Decode the train and val parts of a data folder into memory, or all of one without splits.

    A folder without good images gets a note in the log.

    The val part is for validation; without one, the recipe's share of the others is kept apart.

    Args:
        bits: depth of 16-bit files, 8..16; None takes the one that the folder describes, if any.

    Raises:
        DataError: there is no usable training image, or a mask is bad.
    """
    dataset = read_training_parts(root, classes=classes)
    items = dataset.items
    bits = dataset.bits if bits is None else bits
    with ThreadPoolExecutor(processor_count()) as pool:
        read = functools.partial(_read_example, depth=BitDepth(bits))
        examples = _all_usable(root, list(pool.map(read, items)))
    kept_out = {item for item in items if item.split == "val"}
    kept_out = kept_out or set(_kept_out(items, recipe.data.validation))
    training = [example for example in examples if example.item not in kept_out]
    defective = tuple(example for example in training if example.item.defective)
    defect_free = tuple(example for example in training if not example.item.defective)
    if not defective:
        hint = "tinyunet data init makes train images of defects that only test has"
        raise DataError(root, "contains no defective image to train on", hint)
    if recipe.data.defect_free and not defect_free:
        log.info(
            "note: %s contains no good image to train on, so every crop is of a defective one "
            "(the recipe's defect_free = %g is not used); evaluate it on good parts, too",
            printable(str(root)), recipe.data.defect_free,
        )  # fmt: skip
    validation = tuple(example for example in examples if example.item in kept_out)
    return Source(root.resolve().name, defective, defect_free, validation, bits)


def read_unlabelled(root: Path, bits: int | None = None) -> Source:
    """Decode all images below a folder into memory; labels beside them are ignored.

    Args:
        bits: depth of 16-bit files, 8..16; None leaves it to the files.

    Raises:
        DataError: an image is unusable.
        RefusedError: the folder contains no images.
    """
    items = [Item(path, False, None, None, None, None) for path in walk_images([root])]
    if not items:
        raise no_images(root)
    with ThreadPoolExecutor(processor_count()) as pool:
        read = functools.partial(_read_example, depth=BitDepth(bits))
        examples = _all_usable(root, list(pool.map(read, items)))
    return Source(root.resolve().name, (), (), (), bits, tuple(examples))


def _all_usable(root: Path, examples: Sequence[Example | TinyUNetError]) -> list[Example]:
    """Return the examples if all of them could be read, else log every file that could not.

    Raises:
        DataError: a file is unusable; it names the file if there is only one.
    """
    errors = [error for error in examples if isinstance(error, TinyUNetError)]
    if len(errors) == 1:
        (error,) = errors
        raise DataError(error.where, error.what, error.hint) from error
    if errors:
        for error in errors[:_LISTED]:
            log.error("%s", error)
        if len(errors) > _LISTED:
            log.error("... and %d more", len(errors) - _LISTED)
        raise DataError(
            root,
            f"contains {len(errors)} unusable files",
            f"mend or remove them; tinyunet data check {root} lists them, too",
        )
    return [example for example in examples if isinstance(example, Example)]


def _read_example(item: Item, depth: BitDepth) -> Example | TinyUNetError:
    """Decode one image and its mask; return the error if one of them is unusable."""
    try:
        image = read_image(item.image, bits=depth.bits, on_shallow=depth.on_shallow)
        mask = read_mask(item, image.shape)
    except (ImageError, DataError) as error:
        return error
    return Example(item, image, mask, defect_pixels(mask) if item.defective else None)


def defect_pixels(mask: Mask) -> NDArray[np.int32] | None:
    """Return int32 [K, 2], some of the pixels of a mask, evenly spaced; None if it is empty."""
    yx = np.argwhere(mask).astype(np.int32)
    return yx[:: max(1, len(yx) // _DEFECT_PIXELS)] if len(yx) else None


def _kept_out(items: Sequence[Item], share: float) -> list[Item]:
    """Choose the same share of each class, defective and defect-free.

    The files' names decide, so that the choice is the same for every order of the items.
    """
    groups: dict[tuple[int | None, bool], list[Item]] = defaultdict(list)
    for item in items:
        groups[item.class_id, item.defective].append(item)
    chosen = []
    for group in groups.values():
        shuffled = sorted(group, key=lambda item: digest(item.image.name.encode()))
        chosen += shuffled[: round(share * len(group))]
    return chosen


def model_size(sources: Sequence[Source], multiple: int) -> tuple[int, int]:
    """Choose the height and width of the model for images of these sizes, pixels.

    Each is that of the largest training image, rounded up to the network's size multiple, but at
    most :data:`LARGEST_SIDE`: larger images are inspected in tiles, smaller ones are padded. A
    smaller model would inspect more images in tiles, too small for exact scores.
    """
    shapes = [example.image.shape for source in sources for example in source.trained]
    height, width = (max(sides) for sides in zip(*shapes, strict=True))
    largest = LARGEST_SIDE // multiple * multiple
    return min(-(-height // multiple) * multiple, largest), min(
        -(-width // multiple) * multiple, largest
    )


def different_sources(sources: Sequence[Source]) -> list[Source]:
    """Return each source once, even if it takes several turns."""
    return list({id(source): source for source in sources}.values())


def validation_images(sources: Sequence[Source]) -> list[Example]:
    """Return the images that are kept out of training, each once."""
    return [example for source in different_sources(sources) for example in source.validation]


def sources_digest(sources: Sequence[Source]) -> str:
    """Return the sha256 over the pixels of all images and masks, in order."""
    digests = {
        id(source): "".join(
            digest(example.image.tobytes() + example.mask.tobytes())
            for example in (*source.trained, *source.validation)
        )
        for source in different_sources(sources)
    }
    return digest("".join(digests[id(source)] for source in sources).encode())
