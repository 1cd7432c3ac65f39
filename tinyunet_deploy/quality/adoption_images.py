"""Images that an adoption needs: to compare with the original, to calibrate and to compare int8."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np

from tinyunet_deploy.artifacts.golden import golden_images
from tinyunet_deploy.contract import Contract, Image
from tinyunet_deploy.data.bit_depth import BitDepth
from tinyunet_deploy.data.decoding import read_image
from tinyunet_deploy.data.description_file import described_bits
from tinyunet_deploy.data.encoding import write_png
from tinyunet_deploy.data.layouts import UnknownLayout, read_dataset
from tinyunet_deploy.data.tiles import Mosaic, Tiling, mirrored_window
from tinyunet_deploy.errors import DataError
from tinyunet_deploy.inspection.walk import walk_images
from tinyunet_deploy.quality.dataset_scoring import image_digest
from tinyunet_deploy.quality.parity_inputs import find_images

__all__ = [
    "adoption_images",
    "calibration_paths",
    "calibration_tiles",
    "require_apart",
    "write_synthetic",
]

_CALIBRATION_IMAGES: Final = 32
"""Largest number of images, or of their tiles, that calibrate."""
_MOST: Final = 10
"""Largest number of images that are read from a folder."""


def adoption_images(contract: Contract, folder: Path | None, bits: int | None) -> list[Image]:
    """Return images of the contract's size: synthetic parts, extremes, and up to ten of a folder.

    Args:
        folder: a labelled data set, whose held-out images are used, or a folder of images; each is
            cut at, or mirrored to, the size. None takes none.
        bits: depth of 16-bit files, 8..16; None takes the data set's, else leaves it to the files.

    Returns:
        uint8 [H, W] each.

    Raises:
        DataError: there is no image.
        ImageError: an image cannot be read.
    """
    size = contract.height, contract.width
    images = [image[0] for image in golden_images(contract)]
    images += [np.full(size, grey, np.uint8) for grey in (0, 255)]
    images.append(np.random.default_rng(0).integers(0, 256, size, np.uint8))
    if folder is not None:
        places = find_images(folder)
        depth = BitDepth(described_bits([folder], bits))
        for place in places[:: -(-len(places) // _MOST)]:
            image = read_image(place.path, bits=depth.bits, on_shallow=depth.on_shallow)
            images.append(np.ascontiguousarray(mirrored_window(image, 0, 0, *size)))
    return images


def calibration_paths(folder: Path) -> list[Path]:
    """Return up to 32 evenly spaced training images of a data set, or images of a folder."""
    try:
        items = read_dataset(folder).items
    except UnknownLayout:
        paths = list(walk_images([folder]))
    else:
        paths = [item.image for item in items if item.split == "train"]
        paths = paths or [item.image for item in items]
    if not paths:
        raise DataError(folder, "contains no images")
    return paths[:: -(-len(paths) // _CALIBRATION_IMAGES)]


def require_apart(calibration: Sequence[Path], folder: Path) -> None:
    """Refuse to test on images that calibrated, or on copies of them under other names.

    Raises:
        DataError: an image would do both, or a file cannot be read.
    """
    tested = {_digest(image.path): image.path for image in find_images(folder)}
    for path in calibration:
        copy = tested.get(_digest(path))
        if copy is not None:
            raise DataError(
                folder,
                f"would calibrate int8 and test it with the same images: {copy.name} is "
                f"{path.name} of {path.parent}",
                "--images FOLDER with other images",
            )


def _digest(path: Path) -> str:
    try:
        return image_digest(path)
    except OSError as error:
        raise DataError(path, f"cannot be read: {error.strerror}") from error


def calibration_tiles(tiling: Tiling, paths: Sequence[Path], depth: BitDepth) -> list[Image]:
    """Read calibration images, those of another size in tiles: uint8 of the contract's size."""
    tiles: list[Image] = []
    for path in paths:
        image = read_image(path, bits=depth.bits, on_shallow=depth.on_shallow)
        tiles += Mosaic(image, tiling).tiles()
    return tiles[:: -(-len(tiles) // _CALIBRATION_IMAGES)]


def write_synthetic(folder: Path, contract: Contract) -> Path:
    """Write the synthetic images of an adoption that are not of one grey value."""
    folder.mkdir()
    pictures = adoption_images(contract, None, None)
    for number, image in enumerate(picture for picture in pictures if np.ptp(picture)):
        write_png(folder / f"{number}.png", image)
    return folder
