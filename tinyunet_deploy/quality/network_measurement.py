"""Measure what a file does not state: size multiple, reach and the grid of a network's pools."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from tinyunet_deploy.artifacts.facts import Layout, NetworkFacts
from tinyunet_deploy.contract import Contract, Image
from tinyunet_deploy.errors import ArtifactError
from tinyunet_deploy.quality.adoption_proof import Original, values_as_nchw

__all__ = [
    "NetworkMeasurement",
    "measure_network",
    "measured_grid",
    "measured_reach",
    "measured_size_multiple",
]

Values = Callable[[Image], NDArray[Any]]
"""Function that returns a network's output for uint8 [H, W], as [N, C, H, W]."""

_LARGEST_MULTIPLE: Final = 64
"""Largest size multiple that is tried: six halvings of the image."""
_PHASES: Final = (0, 1, 15, 16, 31)
"""Distances from a multiple of 32 at which images are changed: the reach differs with the place in
the pooling grid, and is largest at a cell's first or last pixel."""
_CONTENTS: Final = 2
"""Number of different changes for each place."""


@dataclass(frozen=True)
class NetworkMeasurement:
    """Facts of a network, and where they come from."""

    facts: NetworkFacts
    size_multiple: int | None
    """Smallest number by which images may be larger, pixels; None if the size is fixed."""
    reach_from: Literal["measured", "declared", "whole image"]


def measure_network(
    original: Original,
    layout: Layout,
    contract: Contract,
    reach: int | Literal["whole"] | None = None,
    report: Callable[[str], None] = lambda _: None,
) -> NetworkMeasurement:
    """Measure the facts of a network that tiles rest on.

    A reach counts only if tiles can start on the grid of the network's pools; otherwise their
    scores would not be those of the whole image, and the reach is that of the whole image.

    Args:
        layout: of the network's output.
        contract: size of the images.
        reach: the user's, pixels in each direction; None measures it.
        report: called with a description of each task.
    """

    def values(image: Image) -> NDArray[Any]:
        return values_as_nchw(original.values(image), layout)

    height, width = contract.height, contract.width
    multiple = None
    if original.source.height is None or original.source.width is None:
        report("measuring the size multiple")
        multiple = measured_size_multiple(values, height, width)
    pair: tuple[int, int] | None = None
    grid = None
    if reach is None:
        report("measuring the reach")
        pair = measured_reach(values, height, width)
        grid = None if pair is None else measured_grid(values, height, width, pair)
    elif reach != "whole":
        pair = reach, reach
        grid = measured_grid(values, height, width, pair) or 1
    both = None if grid is None else math.lcm(grid, multiple or 1)
    if pair is None or both is None or height % both or width % both:
        return NetworkMeasurement(NetworkFacts("adopted", multiple), multiple, "whole image")
    come_from: Literal["measured", "declared"] = "measured" if reach is None else "declared"
    if reach is None:  # one cell more, for what float32 rounds away at the rim
        pair = (pair[0] // both + 1) * both, (pair[1] // both + 1) * both
    return NetworkMeasurement(NetworkFacts("adopted", both, *pair), multiple, come_from)


def measured_size_multiple(values: Values, height: int, width: int) -> int | None:
    """Return the smallest number by which images may be larger, from 1 to 64, by running them.

    Args:
        height, width: a size that the network takes, pixels.

    Returns:
        None if the network takes no other size.
    """
    for multiple in range(1, _LARGEST_MULTIPLE + 1):
        if height % multiple or width % multiple:
            continue
        if all(
            _takes(values, height + more, width + aside)
            for more, aside in ((multiple, 0), (0, multiple), (multiple, 3 * multiple))
        ):
            return multiple
    return None


def measured_reach(values: Values, height: int, width: int) -> tuple[int, int] | None:
    """Return how far before and after a pixel its score depends on the image, in rows or columns.

    One side of an image is replaced by noise, and the farthest value on the other side that changes
    gives the reach. Dependence that leaves no trace in float32 does not count: of ``tiny``, 103 and
    118 of 107 and 122 pixels are seen.

    Args:
        height, width: size of the images, pixels.

    Returns:
        Pixels before and after; None if values change right up to the edge of the image, so that a
        score may depend on all of it.
    """
    random = np.random.default_rng(0)
    before = after = 0
    for _ in range(_CONTENTS):
        image, noise = random.integers(0, 256, (2, height, width), np.uint8)
        base = values(image)
        for axis, length in enumerate((height, width)):
            for phase in _PHASES:
                first = min(32, length // 128 * 32) + phase  # pixels before it change
                last = length - first  # pixels from it on change
                if not 0 < first <= last:
                    continue
                changed = _changed(values, base, image, noise, axis, slice(None, first))
                if changed[-1]:
                    return None
                before = max(before, int(changed.nonzero()[0].max(initial=-1)) - (first - 1))
                changed = _changed(values, base, image, noise, axis, slice(last, None))
                if changed[0]:
                    return None
                after = max(after, last - int(changed.nonzero()[0].min(initial=length)))
    return before, after


def _changed(
    values: Values, base: NDArray[Any], image: Image, noise: Image, axis: int, region: slice
) -> NDArray[np.bool_]:
    """Return in which rows (or columns) values change if those of a region become noise."""
    replaced = image.copy()
    index = (region, slice(None)) if axis == 0 else (slice(None), region)
    replaced[index] = noise[index]
    changed: NDArray[np.bool_] = (values(replaced) != base).any(axis=(0, 1, 3 - axis))
    return changed


def measured_grid(values: Values, height: int, width: int, reach: tuple[int, int]) -> int | None:
    """Return the smallest shift, a power of 2 up to 64, by which scores move with the image.

    It is the cell of a network's pools. Tiles that start on its multiples get the scores of the
    whole image.

    Args:
        reach: of the network, pixels; values that the edge of the image can change do not count.

    Returns:
        None if no shift does, or the image is too small to tell.
    """
    # more than was seen: what the edge of the image changes must not count as another grid
    before, after = (pixels + max(4, pixels // 8) for pixels in reach)
    random = np.random.default_rng(1)
    larger = random.integers(0, 256, (height + 64, width + 64), np.uint8)
    base = values(larger[:height, :width])
    differences: dict[int, float] = {}
    for shift in (1, 2, 4, 8, 16, 32, 64):
        rows = slice(before + shift, height - after)
        columns = slice(before + shift, width - after)
        expected = base[:, :, rows, columns]
        if not expected.size:
            break
        moved = values(larger[shift : shift + height, shift : shift + width])
        given = moved[:, :, before : height - after - shift, before : width - after - shift]
        difference = np.abs(given.astype(np.float64) - expected.astype(np.float64))
        differences[shift] = float(difference.max())
    # The largest shift shows what rounding alone does. A smaller one that differs by more is no
    # shift of the grid, however little the deep layers of an untrained network weigh.
    spread = float(np.ptp(base.astype(np.float64)))
    rounding = next(reversed(differences.values()), math.inf)
    if rounding > 1e-4 * spread:
        return None
    most = max(4.0 * rounding, 1e-6 * spread)
    return next(shift for shift, difference in differences.items() if difference <= most)


def _takes(values: Values, height: int, width: int) -> bool:
    """Return whether a network gives a value for each pixel of an image of a size."""
    try:
        return values(np.zeros((height, width), np.uint8)).shape[2:] == (height, width)
    except ArtifactError:
        return False
