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
from dataclasses import dataclass
from functools import cache
from itertools import islice, pairwise
from typing import Final, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tinyunet_deploy.contract import Contract, Image, Score

__all__ = [
    "Fit",
    "Mosaic",
    "Place",
    "Span",
    "Tiling",
    "fit_of",
    "mirrored_window",
    "score_in_tiles",
    "spans",
]

_USUAL_MULTIPLE: Final = 32
"""Size multiple used if the network's is unknown, pixels: enough for five 2x2 pools."""
_FADE: Final = 16
"""Largest width over which one exact tile fades into the next, pixels."""


Fit = Literal["whole", "padded", "tiled"]
"""How an image fits a network of another size: as it is, extended by mirroring, or in several tiles
(the last of which may reach into an extension, too)."""


Place = tuple[slice, slice]
"""Rows and columns of some pixels of an image, or of a tile."""


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


def mirrored_window(image: Image, top: int, left: int, height: int, width: int) -> Image:
    """Cut a window out of an image that is extended by mirroring, at the right and at the bottom.

    The pixels beyond an edge are those before it in reverse order, without the edge's own, as in
    ``numpy.pad(image, ..., "reflect")``; the extended image itself is never made.

    Args:
        image: uint8 [H, W].
        top, left: first row and column of the window, inside the image.
        height, width: size of the window, pixels.

    Returns:
        uint8 [height, width]; a view of the image if the window lies inside it.
    """
    rows, columns = image.shape
    if top + height <= rows and left + width <= columns:
        return image[top : top + height, left : left + width]
    return image[_mirrored(top, height, rows)[:, None], _mirrored(left, width, columns)]


def _mirrored(first: int, length: int, side: int) -> NDArray[np.intp]:
    """Return the places in an axis of ``side`` pixels that mirroring puts at ``first`` onwards."""
    period = max(2 * (side - 1), 1)
    places = np.arange(first, first + length) % period
    return np.minimum(places, period - places)


@dataclass(frozen=True)
class Tiling:
    """How images of any size are given to a network that takes one size."""

    contract: Contract
    """Size of a tile."""
    size_multiple: int | None = None
    """Number that divides the sides of the network's images; None if unknown."""
    reach: tuple[int, int] | None = None
    """How far before and after a pixel its score depends on the image, pixels; None if unknown."""

    @property
    def grid(self) -> int:
        """Grid on which tiles start, pixels: the network's size multiple, else a usual one."""
        usual = math.gcd(_USUAL_MULTIPLE, self.contract.height, self.contract.width)
        return self.size_multiple or usual

    def tile_count(self, shape: tuple[int, ...]) -> int:
        """Return the number of tiles, which are inputs of the network, of an image (H, W)."""
        return math.prod(len(tiles) for tiles in self.axes(shape))

    def axes(self, shape: tuple[int, ...]) -> tuple[tuple[Span, ...], tuple[Span, ...]]:
        """Return the tiles of an image (H, W) along its height and along its width."""
        tile = self.contract.height, self.contract.width
        rows, columns = (
            spans(length, tile, self.grid, self.reach)
            for length, tile in zip(self.extended(shape), tile, strict=True)
        )
        return rows, columns

    def extended(self, shape: tuple[int, ...]) -> tuple[int, int]:
        """Return the height and width to which mirroring extends an image (H, W), pixels."""
        height, width = (
            max(tile, -(-side // self.grid) * self.grid)
            for side, tile in zip(shape, (self.contract.height, self.contract.width), strict=True)
        )
        return height, width

    def places(self, shape: tuple[int, ...]) -> Iterator[tuple[Place, Place]]:
        """Yield which pixels of an image (H, W) each tile scores, in the order of the tiles.

        Yields:
            The place of these pixels in the image, and their place in the tile.
        """
        rows, columns = self.axes(shape)
        height, width = shape
        for row in rows:
            for column in columns:
                bottom, right = min(row.last, height), min(column.last, width)
                yield (
                    (slice(row.first, bottom), slice(column.first, right)),
                    (
                        slice(row.first - row.start, bottom - row.start),
                        slice(column.first - column.start, right - column.start),
                    ),
                )

    def tile(self, image: Image, number: int) -> Image:
        """Return one tile of an image, uint8 of the contract's size, contiguous in memory.

        Args:
            image: uint8 [H, W].
            number: place of the tile in :meth:`Mosaic.tiles`, from 0.
        """
        return np.ascontiguousarray(next(islice(Mosaic(image, self).tiles(), number, None)))

    def tile_of_largest(self, values: Image) -> int:
        """Return the number of the tile in which uint8 values [H, W] of an image are largest."""
        return int(np.argmax([tile.max() for tile in Mosaic(values, self).tiles()]))


def score_in_tiles(image: Image, score: Callable[[Image], Score], tiling: Tiling) -> Score:
    """Score one image of any size, tile after tile; one of the contract's size is its only tile.

    Args:
        image: uint8 [H, W].
        score: scores one tile, uint8 of the contract's size.

    Returns:
        uint8 [H, W].
    """
    if fit_of(image.shape, tiling.contract) == "whole":
        return score(image)
    mosaic = Mosaic(image, tiling)
    for tile in mosaic.tiles():
        mosaic.add(score(tile))
    return mosaic.score


class Mosaic:
    """The tiles of one image, and the image's score, composed from theirs.

    The image is extended by mirroring, at the right and at the bottom, to the size of a tile and to
    the size multiple. Beside the image and its score, a mosaic occupies only one row of tiles.

    Args:
        image: uint8 [H, W] of any size.
    """

    def __init__(self, image: Image, tiling: Tiling) -> None:
        self._image = image
        self._tile = tiling.contract.height, tiling.contract.width
        self._rows, self._columns = tiling.axes(image.shape)
        self.exact = all(
            len(tiles) == 1 or _exact_stride(tile, tiling.grid, tiling.reach) is not None
            for tiles, tile in zip((self._rows, self._columns), self._tile, strict=True)
        )
        """True if the scores are those of the whole image, False if they approximate them."""
        self._score = np.empty(image.shape, np.uint8)
        self._band = np.zeros((0, self._columns[-1].last), np.float32)
        """Weighted sum of scores, for the image rows that the current row of tiles covers."""
        self._added = 0

    def tiles(self) -> Iterator[Image]:
        """Yield the tiles, uint8 [tile height, tile width], row by row."""
        for row in self._rows:
            for column in self._columns:
                yield mirrored_window(self._image, row.start, column.start, *self._tile)

    def add(self, score: Score) -> None:
        """Add the score of the next tile, in the order of :meth:`tiles`."""
        at, place = divmod(self._added, len(self._columns))
        row, column = self._rows[at], self._columns[place]
        if place == 0:
            begun = self._band
            self._band = np.zeros((len(row.weights), self._columns[-1].last), np.float32)
            self._band[: len(begun)] = begun
        part = score[row.inside, column.inside]
        weights = row.weights[:, None] * column.weights
        self._band[:, column.first : column.last] += weights * part
        self._added += 1
        if place == len(self._columns) - 1:
            done = self._rows[at + 1].first if at + 1 < len(self._rows) else row.last
            finished = self._band[: done - row.first]
            height, width = self._score[row.first : done].shape
            self._score[row.first : done] = np.rint(finished, out=finished)[:height, :width]
            self._band = self._band[done - row.first :]

    @property
    def complete(self) -> bool:
        """True once the scores of all tiles were added."""
        return self._added == len(self._rows) * len(self._columns)

    @property
    def score(self) -> Score:
        """Score of the whole image, uint8 [H, W]; valid once :attr:`complete` is true."""
        return self._score
