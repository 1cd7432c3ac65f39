"""Find files of a data set that are unusable, doubtful or stray, before it is trusted."""

from __future__ import annotations

import contextlib
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

from tinyunet_deploy.contract import DEFAULT_SIZE, Mask
from tinyunet_deploy.data.bit_depth import shallow_text
from tinyunet_deploy.data.dataset import Dataset, Item
from tinyunet_deploy.data.decoding import decode_image, stored_bits
from tinyunet_deploy.data.description import DESCRIPTION
from tinyunet_deploy.data.mask_survey import (
    ignored_by_rule,
    look_at_mask,
    looks_inverted,
    shown_values,
)
from tinyunet_deploy.data.masks import read_mask
from tinyunet_deploy.data.orientation import UPRIGHT, exif_orientation
from tinyunet_deploy.errors import DataError, ImageError
from tinyunet_deploy.files import read_regular

__all__ = ["Check", "Oddity", "OddityKind", "check_dataset"]

_TINY_MASK: Final = 20
"""Masks with fewer pixels are listed."""
_LARGE_MASK: Final = 0.5
"""Masks that cover more than this share of the image are listed."""
_SAME_SIZE: Final = (2, 3, 4)
"""EXIF orientations that do not exchange rows and columns."""

OddityKind = Literal[
    "unusable-image",
    "unusable-mask",
    "duplicate",
    "image-size",
    "bit-depth",
    "turned-image",
    "inverted-mask",
    "large-mask",
    "ignored-mask",
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


class Check(NamedTuple):
    """What a look at every image and mask of a data set has found."""

    oddities: list[Oddity]
    """Sorted by kind, and within a kind in the order of the items."""
    sizes: Counter[tuple[int, int]]
    """(height, width) -> usable images."""
    depths: Counter[int]
    """Stored bits of a sample -> usable images."""
    mask_values: Counter[str]
    """Values of a mask in words, such as ``0, 255`` -> masks that can be decoded."""


class _Inspection(NamedTuple):
    """Findings from one pass over the bytes of an image and its mask."""

    digest: str
    """SHA-256 of the image file; empty if it cannot be read."""
    shape: tuple[int, int] | None
    """Size of the image: rows, columns; None if it cannot be decoded."""
    bits: int
    """Stored bits of a sample of the image; 0 if it cannot be decoded."""
    mask_values: str | None
    """Values of the mask in words; None without a mask or if it cannot be decoded."""
    oddities: list[Oddity]


def check_dataset(
    dataset: Dataset,
    progress: Callable[[int], None] | None = None,
    *,
    bits: int | None = None,
) -> Check:
    """Decode every image and mask, list the oddities and count sizes, depths and mask values.

    Oddities are images and masks that cannot be used; sizes other than 512x512 (outside DAGM2007:
    other than the most frequent); 16-bit images with hardly any value above 16383; images with a
    mask that fits them as stored and as viewers turn them by their EXIF; masks that look inverted,
    that cover more than half of their image, or fewer than 20 pixels of it; masks with values of
    which the rule in dataset.toml counts none as defect; masks of more than one piece, in DAGM2007
    only, as elsewhere these are usual; images with the same bytes as another; files that belong to
    no image.

    Args:
        progress: called with 1 after each image.
        bits: depth of the camera whose values 16-bit files contain, as for ``read_image``.
    """
    bits = dataset.bits if bits is None else bits
    digests: dict[str, Item] = {}
    shapes: Counter[tuple[int, int]] = Counter()
    depths: Counter[int] = Counter()
    mask_values: Counter[str] = Counter()
    sized: list[tuple[Item, tuple[int, int]]] = []
    oddities: list[Oddity] = []
    users_images = dataset.layout not in ("released", "development")
    with ThreadPoolExecutor() as pool:
        inspections = pool.map(partial(_inspect, pieces=not users_images, bits=bits), dataset.items)
        for item, inspection in zip(dataset.items, inspections, strict=True):
            digest, shape, oddities_of_item = (
                inspection.digest,
                inspection.shape,
                inspection.oddities,
            )
            oddities += oddities_of_item
            if inspection.mask_values is not None:
                mask_values[inspection.mask_values] += 1
            twin = digests.setdefault(digest, item)
            if digest and twin is not item:
                leak = ", in another split" if twin.split != item.split else ""
                oddities.append(
                    Oddity("duplicate", item.image, f"is the same file as {twin.image}{leak}")
                )
            if shape is not None:
                shapes[shape] += 1
                depths[inspection.bits] += 1
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
    oddities.sort(key=lambda oddity: kinds.index(oddity.kind))
    return Check(oddities, shapes, depths, mask_values)


def _inspect(item: Item, *, pieces: bool, bits: int | None) -> _Inspection:
    """Read one image and its mask; ``pieces`` also lists masks of several pieces."""
    try:
        data = read_regular(item.image)
        digest = hashlib.sha256(data).hexdigest()
    except OSError as error:
        problem = Oddity("unusable-image", item.image, str(error.strerror or error))
        return _Inspection("", None, 0, None, [problem])
    oddities: list[Oddity] = []

    def note_shallow(path: Path, value: int) -> None:
        hint = "declare the camera's depth with --bits; 16 if the image is as it should be"
        what = f"{shallow_text(value)} ({hint})"
        oddities.append(Oddity("bit-depth", path, what))

    try:
        shape = decode_image(data, item.image, bits=bits, on_shallow=note_shallow).shape
    except ImageError as error:
        return _Inspection(
            digest, None, 0, None, [Oddity("unusable-image", item.image, error.what)]
        )
    stored = stored_bits(data)
    values = None
    if item.mask is not None:
        with contextlib.suppress(DataError):  # named below, if anything reads it
            values = shown_values(look_at_mask(item.mask))
    size = shape[0], shape[1]
    try:
        mask = read_mask(item, size)
    except DataError as error:
        oddities.append(Oddity("unusable-mask", item.mask or item.image, error.what))
        return _Inspection(digest, size, stored, values, oddities)
    if item.defective:
        oddities += _mask_oddities(item.mask or item.image, mask, pieces)
        if item.mask is not None:
            oddities += _turned(item.image, data, size)
    elif values is not None and item.mask is not None and ignored_by_rule(item.mask, item.rule):
        what = f"has the values {values}, none of which dataset.toml counts as defect"
        oddities.append(Oddity("ignored-mask", item.mask, what))
    return _Inspection(digest, size, stored, values, oddities)


def _turned(image: Path, data: bytes, size: tuple[int, int]) -> Iterator[Oddity]:
    """Yield an oddity if viewers turn an image without changing its size."""
    orientation = exif_orientation(data)
    if orientation != UPRIGHT and (orientation in _SAME_SIZE or size[0] == size[1]):
        what = (
            f"has the EXIF orientation {orientation}, by which viewers turn it, but not this "
            "toolkit: is its mask drawn on the image as stored?"
        )
        yield Oddity("turned-image", image, what)


def _mask_oddities(label: Path, mask: Mask, pieces: bool) -> list[Oddity]:
    oddities: list[Oddity] = []
    area = np.count_nonzero(mask)
    border = np.concatenate([mask[0], mask[-1], mask[:, 0], mask[:, -1]])
    if looks_inverted(mask):
        share = np.count_nonzero(border) / border.size
        what = f"marks {100 * share:.0f} % of the border, so it looks inverted"
        oddities.append(Oddity("inverted-mask", label, what))
    elif area > _LARGE_MASK * mask.size:
        what = f"marks {100 * area / mask.size:.0f} % of the image"
        oddities.append(Oddity("large-mask", label, what))
    if area < _TINY_MASK:
        oddities.append(Oddity("tiny-mask", label, f"marks {area} px"))
    count = cv2.connectedComponents(mask, connectivity=8)[0] - 1
    if pieces and count > 1:
        oddities.append(Oddity("fragmented-mask", label, f"is in {count} pieces"))
    return oddities


def _strays(dataset: Dataset) -> Iterator[Path]:
    """Yield files beside images and masks that are not an image, a mask or a label list."""
    used = {path for item in dataset.items for path in (item.image, item.mask) if path}
    for folder in sorted({path.parent for path in used}):
        with os.scandir(folder) as entries:
            paths = sorted(Path(entry.path) for entry in entries if entry.is_file())
        for path in paths:
            if path not in used and path.name.lower() not in ("labels.txt", DESCRIPTION):
                yield path
