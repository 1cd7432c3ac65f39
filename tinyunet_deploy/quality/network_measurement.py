"""Measure what a file does not state: size multiple, reach and the grid of a network's pools."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from tinyunet_deploy.artifacts.facts import Layout, NetworkFacts
from tinyunet_deploy.clock import SYSTEM_CLOCK, Clock
from tinyunet_deploy.contract import Contract, Image
from tinyunet_deploy.errors import ArtifactError
from tinyunet_deploy.quality.adoption_proof import Original, values_as_nchw

__all__ = [
    "MeasurementTooLong",
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
_CLEARANCE: Final = 64
"""Rows beyond a known reach that must stay as they were if both sides of an image are changed: the
reach differs with the place by at most one cell of the pools, and cells of 64 are the largest."""
_USUAL_RUNS: Final = 35
"""Runs of a network whose reach is small beside its images: per content the image itself and
5 phases on 2 axes, and two more for the first phase of each axis."""
_TIMED_RUNS: Final = 3
"""Runs after which the time of all is estimated; the first one is slower than the others."""
_LONGEST_S: Final = 600.0
"""Longest accepted measurement; beyond it the user declares the reach."""


@dataclass(frozen=True)
class NetworkMeasurement:
    """Facts of a network, and where they come from."""

    facts: NetworkFacts
    size_multiple: int | None
    """Smallest number by which images may be larger, pixels; None if the size is fixed."""
    reach_from: Literal["measured", "declared", "whole image"]
    note: str | None = None
    """Why the reach was not measured; None if it was, or need not be."""


class MeasurementTooLong(Exception):
    """The reach of a network would take too long to measure."""

    def __init__(self, expected_s: float) -> None:
        super().__init__(
            f"not measured: it would take about {expected_s / 60:.0f} minutes, but must take at "
            f"most {_LONGEST_S / 60:.0f}; --reach PIXELS declares it"
        )


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
        try:
            pair = measured_reach(values, height, width, report)
        except MeasurementTooLong as error:
            facts = NetworkFacts("adopted", multiple)
            return NetworkMeasurement(facts, multiple, "whole image", str(error))
        report("measuring the grid of the pools")
        grid = None if pair is None else measured_grid(values, height, width, pair)
    elif reach != "whole":
        pair = reach, reach
        # where it cannot be seen, that of the largest cells: tiles then start at fewer places
        grid = measured_grid(values, height, width, pair)
        grid = grid or math.gcd(_LARGEST_MULTIPLE, height, width)
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


def measured_reach(
    values: Values,
    height: int,
    width: int,
    report: Callable[[str], None] = lambda _: None,
    clock: Clock = SYSTEM_CLOCK,
) -> tuple[int, int] | None:
    """Return how far before and after a pixel its score depends on the image, in rows or columns.

    One side of an image is replaced by another, and the farthest value on the other side that
    changes gives the reach. Dependence that leaves no trace in float32 does not count: of ``tiny``,
    103 and 118 of 107 and 122 pixels are seen. Once it is seen that the middle of the image stays
    as it was, both sides are replaced at once, which saves nearly half of the runs.

    Args:
        height, width: size of the images, pixels.
        report: called with a description of each run.

    Returns:
        Pixels before and after; None if values change right up to the edge of the image, so that a
        score may depend on all of it.

    Raises:
        MeasurementTooLong: by the time of the first runs, all would take more than ten minutes.
    """
    run = _timed(values, report, clock)
    random = np.random.default_rng(0)
    before = after = 0
    known: dict[int, tuple[int, int]] = {}
    for content in (_noise, _noise, _shades):
        image, other = content(random, height, width), content(random, height, width)
        base = run(image)
        for axis, length in enumerate((height, width)):
            changed = partial(_changed, run, base, image, other, axis)
            for phase in _PHASES:
                first = min(32, length // 128 * 32) + phase  # pixels before it change
                last = length - first  # pixels from it on change
                if not 0 < first <= last:
                    continue
                far = _beyond(changed, first, last, known.get(axis))
                if far is None:
                    return None
                known.setdefault(axis, far)
                before, after = max(before, far[0]), max(after, far[1])
    return before, after


def _timed(values: Values, report: Callable[[str], None], clock: Clock) -> Values:
    """Return a network that reports its runs, and raises if all of them would take too long."""
    began_s = clock.now_s()
    done = 0

    def run(image: Image) -> NDArray[Any]:
        nonlocal done
        if done >= _TIMED_RUNS:
            expected_s = (clock.now_s() - began_s) / done * _USUAL_RUNS
            if expected_s > _LONGEST_S:
                raise MeasurementTooLong(expected_s)
        done += 1
        report(f"measuring the reach, run {done} of about {_USUAL_RUNS}")
        return values(image)

    return run


def _beyond(
    changed: Callable[..., NDArray[np.bool_]],
    first: int,
    last: int,
    known: tuple[int, int] | None,
) -> tuple[int, int] | None:
    """Return how many rows behind a region at the beginning, and before one at the end, change.

    Args:
        changed: returns in which rows values change if some regions become another image's.
        first: number of rows of the region at the beginning.
        last: first row of the region at the end.
        known: result for other regions, which shows where the two must not meet; None changes one
            region after the other.

    Returns:
        None if values change up to the other edge of the image.
    """
    begin, end = slice(None, first), slice(last, None)
    if known is not None:
        middle = slice(first + known[0] + _CLEARANCE, last - known[1] - _CLEARANCE)
        if middle.start < middle.stop:
            rows = changed(begin, end)
            if not rows[middle].any():
                return _last(rows[: middle.start]) - (first - 1), last - _first(rows, middle.stop)
    rows = changed(begin)
    if rows[-1]:
        return None
    before = _last(rows) - (first - 1)
    rows = changed(end)
    return None if rows[0] else (before, last - _first(rows))


def _last(rows: NDArray[np.bool_]) -> int:
    """Return the index of the last changed row; -1 if none is."""
    return int(rows.nonzero()[0].max(initial=-1))


def _first(rows: NDArray[np.bool_], begin: int = 0) -> int:
    """Return the index of the first changed row from some row on; the number of rows if none is."""
    return begin + int(rows[begin:].nonzero()[0].min(initial=len(rows) - begin))


def _changed(
    values: Values, base: NDArray[Any], image: Image, other: Image, axis: int, *regions: slice
) -> NDArray[np.bool_]:
    """Return in which rows (or columns) values change if some regions become another image's."""
    replaced = image.copy()
    for region in regions:
        index = (region, slice(None)) if axis == 0 else (slice(None), region)
        replaced[index] = other[index]
    changed: NDArray[np.bool_] = (values(replaced) != base).any(axis=(0, 1, 3 - axis))
    return changed


def measured_grid(values: Values, height: int, width: int, reach: tuple[int, int]) -> int | None:
    """Return the smallest shift, a power of 2 up to 64, by which scores move with the image.

    It is the cell of a network's pools. Tiles that start on its multiples get the scores of the
    whole image. Of several images the largest shift counts: on noise, which no line shows, a
    trained network may give the same value everywhere, and every shift fits.

    Args:
        reach: of the network, pixels; values that the edge of the image can change do not count.

    Returns:
        None if no shift does, or the images are too small or the values too alike to tell.
    """
    random = np.random.default_rng(1)
    grids: list[int] = []
    for content in (_noise, _shades):
        larger = content(random, height + 64, width + 64)
        differences, spread = _differences(values, larger, height, width, reach)
        if not spread:
            continue
        # The largest shift shows what rounding alone does. A smaller one that differs by more is no
        # shift of the grid, however little the deep layers of an untrained network weigh.
        rounding = next(reversed(differences.values()))
        if rounding > 1e-4 * spread:
            return None
        most = max(4.0 * rounding, 1e-6 * spread)
        grids.append(next(shift for shift, value in differences.items() if value <= most))
    return max(grids, default=None)


def _differences(
    values: Values, larger: Image, height: int, width: int, reach: tuple[int, int]
) -> tuple[dict[int, float], float]:
    """Return by how much values change beyond moving if the image moves, and how far they spread.

    Args:
        larger: uint8 [height + 64, width + 64], of which the images are cut.

    Returns:
        Shift, pixels -> largest difference, of the shifts that leave something to compare; and the
        largest value less the smallest, of those that the edge of the image cannot change.
    """
    # more than was seen: what the edge of the image changes must not count as another grid
    before, after = (pixels + max(4, pixels // 8) for pixels in reach)
    base = values(larger[:height, :width]).astype(np.float64)
    inner = base[:, :, before : height - after, before : width - after]
    differences: dict[int, float] = {}
    for shift in (1, 2, 4, 8, 16, 32, 64):
        expected = inner[:, :, shift:, shift:]
        if not expected.size:
            break
        moved = values(larger[shift : shift + height, shift : shift + width]).astype(np.float64)
        same = moved[:, :, before : height - after - shift, before : width - after - shift]
        differences[shift] = float(np.abs(same - expected).max())
    return differences, float(np.ptp(inner)) if differences else 0.0


def _noise(random: np.random.Generator, height: int, width: int) -> Image:
    """Draw noise of all grey values, uint8 [height, width]: no other image changes more values."""
    return random.integers(0, 256, (height, width), np.uint8)


def _shades(random: np.random.Generator, height: int, width: int) -> Image:
    """Draw soft shades with a faint grain, uint8 [height, width]: nearer to what a line shows."""
    coarse = random.normal(128.0, 40.0, (height // 32 + 2, width // 32 + 2))
    shades = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    grain = random.normal(0.0, 8.0, (height, width))
    return np.clip(np.rint(shades + grain), 0, 255).astype(np.uint8)


def _takes(values: Values, height: int, width: int) -> bool:
    """Return whether a network gives a value for each pixel of an image of a size."""
    try:
        return values(np.zeros((height, width), np.uint8)).shape[2:] == (height, width)
    except ArtifactError:
        return False
