"""Choose the images by which files are made and tested; the three sets of int8 never overlap."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from tinyunet_deploy.artifacts.sidecar import digest
from tinyunet_deploy.contract import Contract, Image, Mask
from tinyunet_deploy.data import synthetic
from tinyunet_deploy.data.bit_depth import BitDepth
from tinyunet_deploy.data.dataset import Item
from tinyunet_deploy.data.decoding import read_image, require_content
from tinyunet_deploy.data.layouts import read_dataset
from tinyunet_deploy.data.masks import read_mask
from tinyunet_deploy.data.tiles import Mosaic, Tiling, fit_of
from tinyunet_deploy.errors import DataError, ImageError

__all__ = [
    "ImageSets",
    "Labelled",
    "best_tile",
    "images_digest",
    "read_image_sets",
    "read_training_images",
    "synthetic_image",
]

SEED: Final = 0
"""Seed of the order in which training images are drawn."""
CALIBRATION_IMAGES: Final = 32
"""Largest number of calibration images."""
MEASURE_IMAGES: Final = 40
"""Largest number of selection images, and of gate images."""
SYNTHETIC_IMAGES: Final = 20
"""Images in each set without data: one defective and one defect-free image of each class."""
SMALLEST_SYNTHETIC: Final = 64
"""Smallest side that the synthetic generator draws, pixels."""


@dataclass(frozen=True)
class Labelled:
    """One image and its defect pixels."""

    name: str
    image: Image
    """uint8 [H, W]."""
    truth: Mask
    """uint8 [H, W], a defect where it is not 0."""
    class_id: int | None
    defective: bool


@dataclass(frozen=True)
class ImageSets:
    """Images for three purposes; no image is in two sets."""

    source: str
    """``training images`` or ``synthetic images``."""
    calibration: tuple[Labelled, ...]
    """Images on which the ranges of the activations are measured."""
    selection: tuple[Labelled, ...]
    """Images on which the calibration, and the convolutions to keep in float32, are chosen."""
    gate: tuple[Labelled, ...]
    """Images on which the choice is tested."""

    def as_dict(self) -> dict[str, Any]:
        """Return the fields of a sidecar."""
        sets = {
            "calibration": self.calibration,
            "selection": self.selection,
            "gate": self.gate,
        }
        return {
            "source": self.source,
            "seed": SEED,
            **{
                name: {"images": len(images), "sha256": images_digest(images)}
                for name, images in sets.items()
            },
        }


def images_digest(images: Iterable[Labelled]) -> str:
    """Return the sha256 over the pixels of images and masks, in order."""
    parts = [digest(image.image.tobytes() + image.truth.tobytes()) for image in images]
    return digest("".join(parts).encode())


def read_image_sets(
    folders: Sequence[Path], contract: Contract, bits: int | None = None
) -> ImageSets:
    """Draw three sets from the training images of data folders, or make synthetic images.

    Each set takes the classes, and defective and defect-free images, in turns. A quarter of the
    images calibrates; the others are halved between selection and gate. Of an image of another size
    than the contract's, the tile of :func:`best_tile` is taken.

    Args:
        folders: labelled data sets; synthetic images are drawn if there are none.
        bits: depth of 16-bit files, 8..16; None leaves it to the files.

    Raises:
        DataError: there are too few images, none with a defect, or one has a single grey value
            throughout.
    """
    if not folders:
        starts = (0, SYNTHETIC_IMAGES, 2 * SYNTHETIC_IMAGES)
        sets = [
            tuple(_synthetic(contract, start + index) for index in range(SYNTHETIC_IMAGES))
            for start in starts
        ]
        return ImageSets("synthetic images", *sets)
    items = _training_items(folders)
    calibration = min(CALIBRATION_IMAGES, len(items) // 4)
    measure = min(MEASURE_IMAGES, (len(items) - calibration) // 2)
    ends = (calibration, calibration + measure, calibration + 2 * measure)
    parts = (items[: ends[0]], items[ends[0] : ends[1]], items[ends[1] : ends[2]])
    for part in parts:
        if not any(item.defective for item in part):
            raise DataError(
                folders[0],
                f"gives {len(items)} training images, too few with a defect to calibrate "
                "and measure on",
                "at least 12 images, 6 of them with a defect",
            )
    depth = BitDepth(bits)
    return ImageSets(
        "training images",
        *(tuple(_read(item, contract, depth) for item in part) for part in parts),
    )


def read_training_images(
    folders: Sequence[Path], contract: Contract, most: int, bits: int | None = None
) -> tuple[Labelled, ...]:
    """Read training images of data folders: classes, and defective and good images, in turns.

    Of an image of another size than the contract's, the tile of :func:`best_tile` is taken.

    Args:
        most: largest number of images.
        bits: depth of 16-bit files, 8..16; None leaves it to the files.

    Raises:
        DataError: there are no training images, or one is unusable.
    """
    items = _training_items(folders)
    if not items:
        raise DataError(folders[0], "has no training images")
    depth = BitDepth(bits)
    return tuple(_read(item, contract, depth) for item in items[:most])


def synthetic_image(contract: Contract, class_id: int, index: int, *, defective: bool) -> Labelled:
    """Draw a synthetic image of the contract's size, cut around its defect if it is not square."""
    height, width = contract.height, contract.width
    side = max(SMALLEST_SYNTHETIC, -(-max(height, width) // 16) * 16)  # the generator's grid
    sample = synthetic.sample(class_id, index, defective=defective, size=side)
    truth = np.zeros((side, side), np.uint8) if sample.label is None else sample.label
    rows, columns = np.nonzero(truth)
    top = _start(rows, height, side)
    left = _start(columns, width, side)
    cut = np.s_[top : top + height, left : left + width]
    return Labelled(
        f"class{class_id}-{index}",
        np.ascontiguousarray(sample.image[cut]),
        np.ascontiguousarray(truth[cut]),
        class_id,
        bool(truth[cut].any()),
    )


def best_tile(image: Image, truth: Mask, contract: Contract) -> tuple[Image, Mask]:
    """Return what a network sees of an image of any size, and the defects in it.

    Returns:
        uint8 of the contract's size: the image and its truth as they are, or padded by mirroring;
        of a larger image the tile with the most defect pixels, then with the most contrast.
    """
    if fit_of(image.shape, contract) == "whole":
        return image, truth
    tiling = Tiling(contract)
    tiles = zip(Mosaic(image, tiling).tiles(), Mosaic(truth, tiling).tiles(), strict=True)
    tile, its_truth = max(tiles, key=lambda pair: (np.count_nonzero(pair[1]), pair[0].std()))
    return np.ascontiguousarray(tile), np.ascontiguousarray(its_truth)


def _start(places: NDArray[np.intp], length: int, side: int) -> int:
    """Return the start of a cut that is centred on the defect, if possible."""
    middle = int(places.mean()) if len(places) else 0
    return min(max(middle - length // 2, 0), side - length)


def _training_items(folders: Sequence[Path]) -> list[Item]:
    items = (item for folder in folders for item in read_dataset(folder).items)
    return _shuffled(item for item in items if item.split != "test")


def _shuffled(items: Iterable[Item]) -> list[Item]:
    """Return all items in an order that takes one of each class and kind in turns."""
    kinds: dict[tuple[int, bool], list[Item]] = defaultdict(list)
    for item in items:
        kinds[item.class_id or 0, not item.defective].append(item)
    generator = np.random.default_rng(SEED)
    turns: list[tuple[int, int, Item]] = []
    for place, (_, members) in enumerate(sorted(kinds.items())):
        order = generator.permutation(len(members))
        turns += [(turn, place, members[index]) for turn, index in enumerate(order)]
    return [item for _, _, item in sorted(turns, key=lambda entry: entry[:2])]


def _read(item: Item, contract: Contract, depth: BitDepth) -> Labelled:
    try:
        image = read_image(item.image, bits=depth.bits, on_shallow=depth.on_shallow)
    except ImageError as error:
        raise DataError(error.where, error.what) from error
    require_content(image, item.image)
    height, width = image.shape
    tile, truth = best_tile(image, read_mask(item, (height, width)), contract)
    return Labelled(item.image.name, tile, truth, item.class_id, item.defective)


def _synthetic(contract: Contract, number: int) -> Labelled:
    """Draw one of the synthetic images: all classes in turn, then all again defect-free."""
    classes = len(synthetic.CLASSES)
    class_id, turn = synthetic.CLASSES[number % classes], number // classes
    return synthetic_image(contract, class_id, turn, defective=turn % 2 == 0)
