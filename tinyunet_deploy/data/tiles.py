"""Images larger than the network's: overlapping tiles in, one score without a seam out.

A pixel's score depends on the pixels around it, as far as the network reaches: at most 107 px
before it and 122 px after it (:func:`reach`). A tile's own scores are used only where all that they
depend on lies in the tile or outside the image, so they are those of the whole image; where two
tiles are right, one fades into the other. Tiles start at multiples of 16, where the grid of the
four 2x2 pools is that of the whole image.

A network that takes less than 320 px has hardly such a place in its tiles: they overlap by half,
fade into each other across all of the overlap, and are only near the scores of the whole image.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tinyunet_deploy.contract import SIZE_MULTIPLE, Contract, Image, Score

_POOLS: Final = 4
_FADE: Final = 16
"""Widest stretch over which one tile fades into the next where both are right, pixels."""


@cache
def reach() -> tuple[int, int]:
    """How far before and after a pixel its score depends on the image, pixels.

    Computed back through the layers of TinyUNet: pairs of 3x3 convolutions, 2x2 pools, nearest x2
    with a 2x2 convolution that is padded at the end only.
    """
    spans = [_depends_on(pixel, pixel) for pixel in range(SIZE_MULTIPLE)]
    before = max(pixel - first for pixel, (first, _) in enumerate(spans))
    after = max(last - pixel for pixel, (_, last) in enumerate(spans))
    return before, after


def _depends_on(first: int, last: int, level: int = 0) -> tuple[int, int]:
    """What a decoder block's pixels ``first..last`` need of what enters the encoder block beside.

    Args:
        level: pools above the block; the bottleneck is the lowest.
    """
    first, last = first - 2, last + 2  # a pair of 3x3
    if level == _POOLS:
        return first, last
    below = _depends_on(first // 2, (last + 1) // 2, level + 1)
    return min(first, 2 * below[0]) - 2, max(last, 2 * below[1] + 1) + 2


class Span(NamedTuple):
    """One tile along one axis, and the pixels of the image to which it gives scores."""

    start: int
    """First pixel of the tile."""
    first: int
    """First pixel that it gives a score to."""
    weights: NDArray[np.float32]
    """[pixels]: share of this tile in each score from ``first`` on; those of all tiles sum to 1."""

    @property
    def last(self) -> int:
        """One behind the last pixel that it gives a score to."""
        return self.first + len(self.weights)

    @property
    def inside(self) -> slice:
        """The same pixels, counted in the tile."""
        return slice(self.first - self.start, self.last - self.start)


@cache
def spans(length: int, tile: int) -> tuple[Span, ...]:
    """Tiles along one axis, from the first pixel to the last, spread evenly.

    Args:
        length: pixels of the image, a multiple of 16, ``tile`` at least.
        tile: pixels of a tile, a multiple of 16.
    """
    before, after = reach()
    stride = (tile - before - after) // SIZE_MULTIPLE * SIZE_MULTIPLE
    widest = _FADE
    if stride < tile // 4:  # hardly a place is right
        before = after = 0
        stride = max(tile // 2 // SIZE_MULTIPLE * SIZE_MULTIPLE, SIZE_MULTIPLE)
        widest = tile
    steps = -(-(length - tile) // stride)
    starts = [
        (length - tile) * step // max(steps, 1) // SIZE_MULTIPLE * SIZE_MULTIPLE
        for step in range(steps + 1)
    ]
    # Between two tiles: from where the later is right to where the earlier no longer is.
    places = [(later + before, earlier + tile - after) for earlier, later in pairwise(starts)]
    fade = max(min([widest, *(end - begin - 1 for begin, end in places)]), 1)
    pixels = np.arange(length) + 0.5
    share = [np.ones(length)]  # of all tiles from this one on
    share += [np.clip((pixels - (b + e) // 2) / fade + 0.5, 0.0, 1.0) for b, e in places]
    share.append(np.zeros(length))
    found = []
    for start, (here, next_) in zip(starts, pairwise(share), strict=True):
        weights = (here - next_).astype(np.float32)
        (used,) = weights.nonzero()
        found.append(Span(start, int(used[0]), weights[used[0] : used[-1] + 1]))
    return tuple(found)


class Mosaic:
    """One image on its way through the network, tile by tile.

    A side that is no multiple of 16 is mirrored on, at the right and at the bottom.

    Args:
        image: uint8 [H, W], nowhere smaller than a tile.
        contract: the size of a tile.
    """

    def __init__(self, image: Image, contract: Contract) -> None:
        self._shape = image.shape
        rest = [(0, -side % SIZE_MULTIPLE) for side in image.shape]
        self._image = np.pad(image, rest, "reflect") if any(more for _, more in rest) else image
        self._tile = contract.height, contract.width
        height, width = self._image.shape
        self._rows, self._columns = spans(height, contract.height), spans(width, contract.width)
        self._score = np.empty((height, width), np.uint8)
        self._band = np.zeros((0, width), np.float32)
        """Weighted scores of the rows that the present row of tiles gives scores to."""
        self._added = 0

    def tiles(self) -> Iterator[Image]:
        """uint8 [tile height, tile width], row by row."""
        height, width = self._tile
        for row in self._rows:
            for column in self._columns:
                yield self._image[
                    row.start : row.start + height, column.start : column.start + width
                ]

    def add(self, score: Score) -> None:
        """Take in the score of the next tile."""
        at, place = divmod(self._added, len(self._columns))
        row, column = self._rows[at], self._columns[place]
        if place == 0:
            begun = self._band
            self._band = np.zeros((len(row.weights), self._score.shape[1]), np.float32)
            self._band[: len(begun)] = begun
        part = score[row.inside, column.inside]
        weights = row.weights[:, None] * column.weights
        self._band[:, column.first : column.last] += weights * part
        self._added += 1
        if place == len(self._columns) - 1:
            done = self._rows[at + 1].first if at + 1 < len(self._rows) else row.last
            finished = self._band[: done - row.first]
            self._score[row.first : done] = np.rint(finished, out=finished)
            self._band = self._band[done - row.first :]

    @property
    def complete(self) -> bool:
        """Whether the scores of all tiles are in."""
        return self._added == len(self._rows) * len(self._columns)

    @property
    def score(self) -> Score:
        """uint8 [H, W], once it is complete."""
        height, width = self._shape
        return np.ascontiguousarray(self._score[:height, :width])
