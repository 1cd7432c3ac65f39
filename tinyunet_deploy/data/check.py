"""Find files of a data set that are unusable, doubtful or stray, before it is trusted."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, Literal, NamedTuple, get_args

import cv2
import numpy as np

from tinyunet_deploy.contract import DEFAULT_SIZE
from tinyunet_deploy.data.dataset import Dataset, Item
from tinyunet_deploy.data.decoding import decode_image
from tinyunet_deploy.data.masks import read_mask
from tinyunet_deploy.errors import DataError, ImageError
from tinyunet_deploy.files import read_regular

__all__ = ["Oddity", "OddityKind", "find_oddities"]

_TINY_MASK: Final = 20
"""Masks with fewer pixels are listed."""
_LARGE_MASK: Final = 0.5
"""Masks that cover more than this share of the image are listed."""
_INVERTED_BORDER: Final = 0.75
"""Masks with good pixels that mark more than this share of the border are listed as inverted."""

OddityKind = Literal[
    "unusable-image",
    "unusable-mask",
    "duplicate",
    "image-size",
    "bit-depth",
    "inverted-mask",
    "large-mask",
    "tiny-mask",
    "fragmented-mask",
    "stray-file",
]
"""Kinds of oddities, in the order in which they are listed."""


@dataclass(frozen=True, slots=True)
class Oddity:
    """A reason to look at a file before the data set is trusted."""

    kind: OddityKind
    path: Path
    what: str
    """The oddity in words, to be read after the path."""

    @property
    def fatal(self) -> bool:
        """True if training or evaluation would stop at this file."""
        return self.kind in ("unusable-image", "unusable-mask")


class _Inspection(NamedTuple):
    """Findings from one pass over the bytes of an image and its mask."""

    digest: str
    """SHA-256 of the image file; empty if it cannot be read."""
    shape: tuple[int, int] | None
    """Size of the image: rows, columns; None if it cannot be decoded."""
    oddities: list[Oddity]


def find_oddities(
    dataset: Dataset,
    progress: Callable[[int], None] | None = None,
    *,
    bits: int | None = None,
) -> list[Oddity]:
    """Decode every image and mask and list the oddities.

    Oddities are images and masks that cannot be used; sizes other than 512x512 (outside DAGM2007:
    other than the most frequent); 16-bit images without any value above 4095; masks that look
    inverted, that cover more than half of their image, or fewer than 20 pixels of it; masks of more
    than one piece, in DAGM2007 only, as elsewhere these are usual; images with the same bytes as
    another; files that belong to no image.

    Args:
        progress: called with 1 after each image.
        bits: depth of the camera whose values 16-bit files contain, as for ``read_image``.

    Returns:
        Oddities sorted by kind, and within a kind in the order of the items.
    """
    bits = dataset.bits if bits is None else bits
    digests: dict[str, Item] = {}
    shapes: Counter[tuple[int, int]] = Counter()
    sized: list[tuple[Item, tuple[int, int]]] = []
    oddities: list[Oddity] = []
    users_images = dataset.layout not in ("released", "development")
    with ThreadPoolExecutor() as pool:
        inspections = pool.map(partial(_inspect, pieces=not users_images, bits=bits), dataset.items)
        for item, inspection in zip(dataset.items, inspections, strict=True):
            digest, shape, item_oddities = inspection
            oddities += item_oddities
            twin = digests.setdefault(digest, item)
            if digest and twin is not item:
                leak = ", in another split" if twin.split != item.split else ""
                oddities.append(
                    Oddity("duplicate", item.image, f"is the same file as {twin.image}{leak}")
                )
            if shape is not None:
                shapes[shape] += 1
                sized.append((item, shape))
            if progress is not None:
                progress(1)
    usual = shapes.most_common(1)[0][0] if users_images and shapes else (DEFAULT_SIZE, DEFAULT_SIZE)
    oddities += [
        Oddity("image-size", item.image, f"is {w}x{h} pixels, not {usual[1]}x{usual[0]}")
        for item, (h, w) in sized
        if (h, w) != usual
    ]
    oddities += [
        Oddity("stray-file", path, "belongs to no image of this data set")
        for path in _strays(dataset)
    ]
    kinds = get_args(OddityKind)
    return sorted(oddities, key=lambda oddity: kinds.index(oddity.kind))


def _inspect(item: Item, *, pieces: bool, bits: int | None) -> _Inspection:
    """Read one image and its mask; ``pieces`` also lists masks of several pieces."""
    try:
        data = read_regular(item.image)
        digest = hashlib.sha256(data).hexdigest()
    except OSError as error:
        problem = Oddity("unusable-image", item.image, str(error.strerror or error))
        return _Inspection("", None, [problem])
    oddities: list[Oddity] = []

    def note_shallow(path: Path, largest: int) -> None:
        what = f"has 16-bit values up to {largest} only (declare the camera's depth with --bits)"
        oddities.append(Oddity("bit-depth", path, what))

    try:
        shape = decode_image(data, item.image, bits=bits, on_shallow=note_shallow).shape
    except ImageError as error:
        return _Inspection(digest, None, [Oddity("unusable-image", item.image, error.what)])
    height, width = shape
    if not item.defective:
        return _Inspection(digest, (height, width), oddities)
    label = item.mask or item.image
    try:
        mask = read_mask(item, (height, width))
    except DataError as error:
        unusable = Oddity("unusable-mask", label, error.what)
        return _Inspection(digest, (height, width), [*oddities, unusable])
    area = np.count_nonzero(mask)
    border = np.concatenate([mask[0], mask[-1], mask[:, 0], mask[:, -1]])
    along_border = np.count_nonzero(border) / border.size
    if along_border > _INVERTED_BORDER and area < mask.size:
        what = f"marks {100 * along_border:.0f} % of the border, so it looks inverted"
        oddities.append(Oddity("inverted-mask", label, what))
    elif area > _LARGE_MASK * mask.size:
        what = f"marks {100 * area / mask.size:.0f} % of the image"
        oddities.append(Oddity("large-mask", label, what))
    if area < _TINY_MASK:
        oddities.append(Oddity("tiny-mask", label, f"marks {area} px"))
    count = cv2.connectedComponents(mask, connectivity=8)[0] - 1
    if pieces and count > 1:
        oddities.append(Oddity("fragmented-mask", label, f"is in {count} pieces"))
    return _Inspection(digest, (height, width), oddities)


def _strays(dataset: Dataset) -> Iterator[Path]:
    """Yield files beside images and masks that are not an image, a mask or a label list."""
    used = {path for item in dataset.items for path in (item.image, item.mask) if path}
    for folder in sorted({path.parent for path in used}):
        with os.scandir(folder) as entries:
            paths = sorted(Path(entry.path) for entry in entries if entry.is_file())
        for path in paths:
            if path not in used and path.name.lower() != "labels.txt":
                yield path
