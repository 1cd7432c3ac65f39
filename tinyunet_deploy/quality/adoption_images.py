"""Images on which an adopted file is compared with its original."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np

from tinyunet_deploy.artifacts.golden import golden_images
from tinyunet_deploy.contract import Contract, Image
from tinyunet_deploy.data.bit_depth import BitDepth
from tinyunet_deploy.data.decoding import read_image
from tinyunet_deploy.data.tiles import mirrored_window
from tinyunet_deploy.quality.parity_inputs import find_images

__all__ = ["adoption_images"]

_MOST: Final = 10
"""Largest number of images that are read from a folder."""


def adoption_images(contract: Contract, folder: Path | None, bits: int | None) -> list[Image]:
    """Return images of the contract's size: synthetic parts, extremes, and up to ten of a folder.

    Args:
        folder: a labelled data set, whose held-out images are used, or a folder of images; each is
            cut at, or mirrored to, the size. None takes none.
        bits: depth of 16-bit files, 8..16; None leaves it to the files.

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
        depth = BitDepth(bits)
        for place in places[:: -(-len(places) // _MOST)]:
            image = read_image(place.path, bits=depth.bits, on_shallow=depth.on_shallow)
            images.append(np.ascontiguousarray(mirrored_window(image, 0, 0, *size)))
    return images
