"""Contact sheet of a data set: its images with their truth, as a picture and a page."""

from __future__ import annotations

import base64
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from tinyunet_deploy.contract import Image, Mask
from tinyunet_deploy.data.dataset import Dataset, Item, Split
from tinyunet_deploy.data.decoding import read_image
from tinyunet_deploy.data.encoding import encode_jpeg, encode_png
from tinyunet_deploy.data.masks import read_mask
from tinyunet_deploy.errors import DataError, ImageError
from tinyunet_deploy.inspection.html_page import render_page
from tinyunet_deploy.inspection.overlays import TRUTH, outline

__all__ = ["MOST", "PAGE", "PICTURE", "draw_picture", "page_of", "shown_parts"]

PAGE: Final = "contact-sheet.html"
"""File name of the page."""
PICTURE: Final = "contact-sheet.png"
"""File name of the picture."""
MOST: Final = 48
"""Largest number of images on a sheet."""

_SIDE: Final = 240
"""Longer side of a small image, pixels."""
_COLUMNS: Final = 6
_GAP: Final = 12
_CAPTION: Final = 26
"""Height of the caption below a small image of the picture, pixels."""
_TINT: Final = 0.25
"""Share of green in a marked pixel, so that an inverted mask stands out from a plain one."""
_PAPER: Final = 255
_INK: Final = (40, 40, 40)

_Picture = NDArray[np.uint8]
"""[H, W, 3] BGR."""


@dataclass(frozen=True)
class ShownPart:
    """A small image of a part with its truth."""

    name: str
    """Path of the image below the data set's folder."""
    split: Split | None
    product: str
    """Name of the product, or ``class`` and its number; empty without classes."""
    defective: bool
    marked: float
    """Share of the image that the mask marks, 0..1."""
    size: tuple[int, int]
    """Height and width of the image."""
    picture: _Picture
    """The image, marked pixels tinted and outlined in green; at most 240 pixels a side."""

    @property
    def caption(self) -> str:
        """Return the truth in words."""
        return f"defect, {100 * self.marked:.2g} % marked" if self.defective else "good"

    @property
    def source(self) -> str:
        """Return the small image as the address of a picture in a page."""
        return f"data:image/jpeg;base64,{base64.b64encode(encode_jpeg(self.picture)).decode()}"


def shown_parts(dataset: Dataset, bits: int | None = None, most: int = MOST) -> list[ShownPart]:
    """Draw some images of each class, split and kind, in the order of the data set.

    Unusable images and masks are left out; :func:`~tinyunet_deploy.data.check.check_dataset` names
    them.

    Args:
        bits: depth of 16-bit files, 8..16; None takes the one of the data set.
    """
    drawn = partial(_draw, dataset, bits=dataset.bits if bits is None else bits)
    with ThreadPoolExecutor() as pool:
        parts = pool.map(drawn, _chosen(dataset.items, most))
        return [part for part in parts if part is not None]


def _chosen(items: Sequence[Item], most: int) -> list[Item]:
    """Return at most so many items: each class, split and kind in turns, evenly spaced."""
    groups: dict[tuple[int | None, Split | None, bool], list[int]] = defaultdict(list)
    for number, item in enumerate(items):
        groups[item.class_id, item.split, not item.defective].append(number)
    turns = [
        (turn, place, number)
        for place, group in enumerate(groups.values())
        for turn, number in enumerate(_spread(group))
    ]
    return [items[number] for number in sorted(number for _, _, number in sorted(turns)[:most])]


def _spread(numbers: Sequence[int]) -> list[int]:
    """Return all numbers in an order whose beginnings are spread evenly over them."""
    order = sorted(range(len(numbers)), key=lambda place: int(f"{place:032b}"[::-1], 2))
    return [numbers[place] for place in order]


def _draw(dataset: Dataset, item: Item, *, bits: int | None) -> ShownPart | None:
    try:
        image = read_image(item.image, bits=bits)
        mask = read_mask(item, (image.shape[0], image.shape[1]))
    except (DataError, ImageError):
        return None
    number = item.class_id
    product = "" if number is None else dataset.class_names.get(number, f"class {number}")
    return ShownPart(
        name=item.image.relative_to(dataset.root).as_posix(),
        split=item.split,
        product=product,
        defective=item.defective,
        marked=float(np.count_nonzero(mask) / mask.size),
        size=(image.shape[0], image.shape[1]),
        picture=_small(image, mask),
    )


def _small(image: Image, mask: Mask) -> _Picture:
    """Return a small image whose marked pixels are tinted and outlined, however small they are."""
    height, width = image.shape
    factor = _SIDE / max(height, width)
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    how = cv2.INTER_AREA if factor < 1 else cv2.INTER_NEAREST
    small = np.asarray(cv2.resize(image, size, interpolation=how), np.uint8)
    if factor < 1:  # a marked pixel must not vanish
        reach = int(np.ceil(1 / factor))
        mask = np.asarray(cv2.dilate(mask, np.ones((reach, reach), np.uint8)), np.uint8)
    marks = np.asarray(cv2.resize(mask, size, interpolation=cv2.INTER_NEAREST), np.uint8)
    picture = outline(small, marks, TRUTH)
    tinted = (1 - _TINT) * picture + _TINT * np.array(TRUTH)
    return np.where(marks[..., None] != 0, np.rint(tinted), picture).astype(np.uint8)


def draw_picture(parts: Sequence[ShownPart]) -> bytes:
    """Draw the parts in rows, as a PNG file; the captions have their places on the page."""
    cells = [_cell(number, part) for number, part in enumerate(parts, start=1)]
    height, width = _SIDE + _CAPTION + _GAP, _SIDE + _GAP
    rows = -(-len(cells) // _COLUMNS)
    sheet = np.full((rows * height + _GAP, _COLUMNS * width + _GAP, 3), _PAPER, np.uint8)
    for number, cell in enumerate(cells):
        top = _GAP + number // _COLUMNS * height
        left = _GAP + number % _COLUMNS * width
        sheet[top : top + cell.shape[0], left : left + cell.shape[1]] = cell
    return encode_png(sheet)


def _cell(number: int, part: ShownPart) -> _Picture:
    cell = np.full((_SIDE + _CAPTION, _SIDE, 3), _PAPER, np.uint8)
    height, width = part.picture.shape[:2]
    cell[:height, :width] = part.picture
    text = f"{number}: {part.split or ''} {part.caption}".replace(":  ", ": ")
    place = (0, height + _CAPTION - 9)
    cv2.putText(cell, text, place, cv2.FONT_HERSHEY_SIMPLEX, 0.45, _INK, 1, cv2.LINE_AA)
    return cell


def page_of(dataset: Dataset, parts: Sequence[ShownPart], facts: Sequence[str]) -> bytes:
    """Return the page: one file, without scripts; names in it are text, never markup.

    Args:
        facts: sentences at the head of the page.

    Raises:
        RuntimeUnavailable: jinja2 is not installed.
    """
    return render_page(
        Path(__file__).with_name("contact_sheet.html.j2"),
        title=dataset.root.resolve().name,
        layout=dataset.layout,
        images=len(dataset.items),
        facts=facts,
        parts=parts,
    )
