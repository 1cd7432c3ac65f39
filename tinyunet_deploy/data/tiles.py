"""Images larger than the network's: overlapping tiles in, one score without a seam out.

A pixel's score depends on the pixels around it, as far as the network reaches; ``tiny`` reaches
107 px before it and 122 px after it. A tile's own scores are used only where all pixels that they
depend on lie in the tile or outside the image, so they are those of the whole image; where two
tiles are right, one fades into the other. Tiles start at multiples of the network's size multiple,
where the grid of its pools is that of the whole image.

Where tiles are too small for the reach (below 320 px for ``tiny``), or the reach is unknown, they
overlap by half, fade into each other across all of the overlap, and only approximate the scores of
the whole image.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tinyunet_deploy.contract import Contract, Image, Score

_USUAL_MULTIPLE: Final = 32
"""Grid of five 2x2 pools, more than most networks have; used where the network's is unknown."""
_FADE: Final = 16
"""Widest stretch over which one tile fades into the next where both are right, pixels."""


class Span(NamedTuple):
    """One tile along one axis, and the pixels of the image whose scores it contributes to."""

    start: int
    """First pixel of the tile."""
    first: int
    """First pixel whose score it contributes to."""
    weights: NDArray[np.float32]
    """[pixels]: share of this tile in each score from ``first`` on; those of all tiles sum to 1."""

    @property
    def last(self) -> int:
        """Index after the last pixel whose score it contributes to."""
        return self.first + len(self.weights)

    @property
    def inside(self) -> slice:
        """The same pixels, counted in the tile."""
        return slice(self.first - self.start, self.last - self.start)


@cache
def spans(
    length: int, tile: int, size_multiple: int, reach: tuple[int, int] | None
) -> tuple[Span, ...]:
    """Spread tiles evenly along one axis, from the first pixel to the last.

    Args:
        length: pixels of the image, a multiple of ``size_multiple``, ``tile`` at least.
        tile: pixels of a tile, a multiple of ``size_multiple``.
        size_multiple: grid on which tiles start, pixels.
        reach: pixels before and after a pixel on which its score depends; None if unknown.
    """
    before, after = reach or (0, 0)
    stride = (tile - before - after) // size_multiple * size_multiple
    widest = _FADE
    if reach is None or stride < tile // 4:  # hardly a place is right
        before = after = 0
        stride = max(tile // 2 // size_multiple * size_multiple, size_multiple)
        widest = tile
    steps = -(-(length - tile) // stride)
    starts = [
        (length - tile) * step // max(steps, 1) // size_multiple * size_multiple
        for step in range(steps + 1)
    ]
    # Between two tiles: from where the later is right to where the earlier no longer is.
    places = [(later + before, earlier + tile - after) for earlier, later in pairwise(starts)]
    fade = max(min([widest, *(end - begin - 1 for begin, end in places)]), 1)
    pixels = np.arange(length) + 0.5
    share = [np.ones(length)]  # of all tiles from this one on
    share += [np.clip((pixels - (b + e) // 2) / fade + 0.5, 0.0, 1.0) for b, e in places]
    share.append(np.zeros(length))
    tiles = []
    for start, (this, later) in zip(starts, pairwise(share), strict=True):
        weights = (this - later).astype(np.float32)
        (used,) = weights.nonzero()
        tiles.append(Span(start, int(used[0]), weights[used[0] : used[-1] + 1]))
    return tuple(tiles)


def tile_multiple(contract: Contract, size_multiple: int | None) -> int:
    """Return the grid on which tiles start: the network's, or a usual one if that is unknown."""
    return size_multiple or math.gcd(_USUAL_MULTIPLE, contract.height, contract.width)


class Mosaic:
    """One image on its way through the network, tile by tile.

    A side that is not a multiple of the size multiple is extended by its mirror image, at the right
    and at the bottom.

    Args:
        image: uint8 [H, W], nowhere smaller than a tile.
        contract: the size of a tile.
        size_multiple, reach: facts of the network; None where they are unknown.
    """

    def __init__(
        self,
        image: Image,
        contract: Contract,
        size_multiple: int | None,
        reach: tuple[int, int] | None,
    ) -> None:
        self._shape = image.shape
        multiple = tile_multiple(contract, size_multiple)
        rest = [(0, -side % multiple) for side in image.shape]
        self._image = np.pad(image, rest, "reflect") if any(more for _, more in rest) else image
        self._tile = contract.height, contract.width
        height, width = self._image.shape
        self._rows = spans(height, contract.height, multiple, reach)
        self._columns = spans(width, contract.width, multiple, reach)
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
        """Add the score of the next tile."""
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
        """Whether the scores of all tiles were added."""
        return self._added == len(self._rows) * len(self._columns)

    @property
    def score(self) -> Score:
        """uint8 [H, W], once it is complete."""
        height, width = self._shape
        return np.ascontiguousarray(self._score[:height, :width])
