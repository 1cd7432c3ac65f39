"""Score images of any size with a network of one size: whole, padded or in overlapping tiles.

An image smaller than the network's is extended by mirroring, at the right and at the bottom, and
its score is cut out again. A larger one is scored in overlapping tiles, without seams.

A pixel's score depends on the image up to the network's reach: for ``tiny``, 107 px before and 122
px after the pixel. A tile's score is exact (equal to the whole image's) where all pixels that it
depends on lie in the tile or outside the image. Only exact scores are used; where two tiles are
exact, one fades into the other. Tiles start at multiples of the network's size multiple, so that
its pooling grid is that of the whole image.

If tiles are too small for the reach (below 320 px for ``tiny``), or the reach is unknown, tiles
overlap by half and fade into each other over the whole overlap. Their scores then only approximate
those of the whole image.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import cache
from itertools import pairwise
from typing import Final, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tinyunet_deploy.contract import Contract, Image, Score

_USUAL_MULTIPLE: Final = 32
"""Size multiple used if the network's is unknown, pixels: enough for five 2x2 pools."""
_FADE: Final = 16
"""Largest width over which one exact tile fades into the next, pixels."""


Fit = Literal["whole", "padded", "tiled"]
"""How an image fits a network of another size: as it is, extended by mirroring, or in several tiles
(the last of which may reach into an extension, too)."""


def fit_of(shape: tuple[int, ...], contract: Contract) -> Fit:
    """Return how an image of shape (H, W) is scored by a network of the contract's size."""
    height, width = shape
    if height > contract.height or width > contract.width:
        return "tiled"
    return "whole" if (height, width) == (contract.height, contract.width) else "padded"


class Span(NamedTuple):
    """One tile along one axis, and the pixels of the image whose scores it contributes to."""

    start: int
    """First pixel of the tile."""
    first: int
    """First pixel to whose score the tile contributes."""
    weights: NDArray[np.float32]
    """[pixels]: weight of the tile in each score from ``first`` on; tiles' weights sum to 1."""

    @property
    def last(self) -> int:
        """Index after the last pixel to whose score the tile contributes."""
        return self.first + len(self.weights)

    @property
    def inside(self) -> slice:
        """The pixels ``first`` to ``last``, counted from the start of the tile."""
        return slice(self.first - self.start, self.last - self.start)


@cache
def spans(
    length: int, tile: int, size_multiple: int, reach: tuple[int, int] | None
) -> tuple[Span, ...]:
    """Spread tiles evenly along one axis, from the first pixel to the last.

    Args:
        length: length of the image, pixels; a multiple of ``size_multiple``, at least ``tile``.
        tile: length of a tile, pixels; a multiple of ``size_multiple``.
        size_multiple: grid on which tiles start, pixels.
        reach: how far before and after a pixel its score depends on the image, pixels; None if
            unknown.
    """
    before, after = reach or (0, 0)
    stride = _exact_stride(tile, size_multiple, reach)
    widest = _FADE
    if stride is None:
        before = after = 0
        stride = max(tile // 2 // size_multiple * size_multiple, size_multiple)
        widest = tile
    steps = -(-(length - tile) // stride)
    starts = [
        (length - tile) * step // max(steps, 1) // size_multiple * size_multiple
        for step in range(steps + 1)
    ]
    # Between two tiles: from where the later is exact to where the earlier no longer is.
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


def _exact_stride(tile: int, size_multiple: int, reach: tuple[int, int] | None) -> int | None:
    """Return the largest distance of tiles with exact scores, pixels; None if almost none is."""
    if reach is None:
        return None
    stride = (tile - sum(reach)) // size_multiple * size_multiple
    return None if stride < tile // 4 else stride


def tile_multiple(contract: Contract, size_multiple: int | None) -> int:
    """Return the grid on which tiles start, pixels: the network's size multiple, else a default."""
    return size_multiple or math.gcd(_USUAL_MULTIPLE, contract.height, contract.width)


def score_in_tiles(
    image: Image,
    score: Callable[[Image], Score],
    contract: Contract,
    size_multiple: int | None,
    reach: tuple[int, int] | None,
) -> Score:
    """Score one image of any size, tile after tile.

    Args:
        image: uint8 [H, W].
        score: scores one tile, uint8 of the contract's size.
        contract, size_multiple, reach: as for :class:`Mosaic`.

    Returns:
        uint8 [H, W].
    """
    mosaic = Mosaic(image, contract, size_multiple, reach)
    for tile in mosaic.tiles():
        mosaic.add(score(tile))
    return mosaic.score


class Mosaic:
    """The tiles of one image, and the image's score, composed from theirs.

    The image is extended by mirroring, at the right and at the bottom, to the size of a tile and to
    the size multiple.

    Args:
        image: uint8 [H, W] of any size.
        contract: size of a tile.
        size_multiple, reach: facts of the network; None if unknown.
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
        self._tile = contract.height, contract.width
        rest = [
            (0, max(tile - side, -side % multiple))
            for side, tile in zip(image.shape, self._tile, strict=True)
        ]
        self._image = np.pad(image, rest, "reflect") if any(more for _, more in rest) else image
        height, width = self._image.shape
        self._rows = spans(height, contract.height, multiple, reach)
        self._columns = spans(width, contract.width, multiple, reach)
        self.exact = all(
            len(tiles) == 1 or _exact_stride(tile, multiple, reach) is not None
            for tiles, tile in zip((self._rows, self._columns), self._tile, strict=True)
        )
        """True if the scores are those of the whole image, False if they approximate them."""
        self._score = np.empty((height, width), np.uint8)
        self._band = np.zeros((0, width), np.float32)
        """Weighted sum of scores, for the image rows that the current row of tiles covers."""
        self._added = 0

    def tiles(self) -> Iterator[Image]:
        """Yield the tiles, uint8 [tile height, tile width], row by row."""
        height, width = self._tile
        for row in self._rows:
            for column in self._columns:
                yield self._image[
                    row.start : row.start + height, column.start : column.start + width
                ]

    def add(self, score: Score) -> None:
        """Add the score of the next tile, in the order of :meth:`tiles`."""
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
        """True once the scores of all tiles were added."""
        return self._added == len(self._rows) * len(self._columns)

    @property
    def score(self) -> Score:
        """Score of the whole image, uint8 [H, W]; valid once :attr:`complete` is true."""
        height, width = self._shape
        return np.ascontiguousarray(self._score[:height, :width])
