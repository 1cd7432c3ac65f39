"""Size multiple, reach and grid of networks whose structure is known."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.virtual_clock import VirtualClock
from tinyunet_deploy.contract import Image
from tinyunet_deploy.errors import ArtifactError
from tinyunet_deploy.quality.network_measurement import (
    MeasurementTooLong,
    measured_grid,
    measured_reach,
    measured_size_multiple,
)

Values = Callable[[Image], NDArray[Any]]


def shifted_sum(before: int, after: int) -> Values:
    """A network whose score depends on the pixels so far up or left, and so far down or right."""

    def values(image: Image) -> NDArray[Any]:
        grey = image.astype(np.float64)
        for axis in (0, 1):
            size = grey.shape[axis]
            padded = np.pad(grey, [(before, after) if a == axis else (0, 0) for a in (0, 1)])
            parts = [np.take(padded, range(k, k + size), axis) for k in (0, before, before + after)]
            grey = sum(parts[1:], parts[0])
        return grey[None, None]

    return values


def pooled(cell: int, *, strict: bool) -> Values:
    """A network with one pool; a strict one takes only multiples of it."""

    def values(image: Image) -> NDArray[Any]:
        height, width = image.shape
        if strict and (height % cell or width % cell):
            raise ArtifactError("net.onnx", "cannot be run")
        padded = np.pad(image, [(0, -height % cell), (0, -width % cell)])
        cells = padded.reshape(padded.shape[0] // cell, cell, -1, cell).max(axis=(1, 3))
        up = np.repeat(np.repeat(cells, cell, 0), cell, 1)[:height, :width]
        return up[None, None].astype(np.float32)

    return values


@pytest.mark.parametrize(("before", "after"), [(0, 0), (3, 1), (1, 20), (17, 5)])
def test_the_reach_is_measured_on_both_sides(before: int, after: int) -> None:
    assert measured_reach(shifted_sum(before, after), 96, 64) == (before, after)


@pytest.mark.parametrize(("before", "after"), [(0, 0), (40, 3), (9, 70)])
def test_both_sides_are_measured_at_once_where_the_image_is_large_enough(
    before: int, after: int
) -> None:
    network = shifted_sum(before, after)
    runs = []

    def values(image: Image) -> NDArray[Any]:
        runs.append(image)
        return network(image)

    assert measured_reach(values, 384, 416) == (before, after)
    assert len(runs) == 35
    runs.clear()
    assert measured_reach(values, 256, 192) == (before, after)
    assert before + after == 0 or 35 < len(runs) <= 63


def test_what_mirrors_the_image_has_no_reach() -> None:
    """Its scores at one end depend on the pixels at the other, and on none between."""
    assert measured_reach(lambda image: image[None, None, ::-1], 512, 512) is None


def test_a_reach_that_differs_with_the_place_is_not_cut_off_at_the_first_one() -> None:
    """A change of the last row of a region of 63 rows is seen 200 rows on, and of no other."""

    def values(image: Image) -> NDArray[Any]:
        grey = image.astype(np.int64)
        grey[262] += grey[62]
        return grey[None, None]

    reach = measured_reach(values, 512, 512)
    assert reach is not None and reach[0] == 200


def test_a_measurement_that_would_take_too_long_is_given_up_early() -> None:
    clock = VirtualClock()
    reports: list[str] = []

    def slow(image: Image) -> NDArray[Any]:
        clock.sleep(18.0)
        return image[None, None]

    with pytest.raises(MeasurementTooLong, match=r"about 10 minutes.*--reach PIXELS declares it"):
        measured_reach(slow, 512, 512, reports.append, clock)
    assert reports[-1] == "measuring the reach, run 3 of about 35"


def test_a_score_that_depends_on_the_whole_image_has_no_reach() -> None:
    assert measured_reach(lambda image: image[None, None] - image.mean(), 64, 64) is None


@pytest.mark.parametrize("turn", [1, -1])
def test_a_reach_without_end_on_one_side_is_seen(turn: int) -> None:
    def values(image: Image) -> NDArray[Any]:
        turned = image[::turn, ::turn].astype(np.float64)
        return turned.cumsum(0).cumsum(1)[None, None, ::turn, ::turn]

    assert measured_reach(values, 64, 64) is None


@pytest.mark.parametrize("cell", [1, 2, 4, 8, 16])
def test_the_grid_of_a_pool_is_seen_even_where_any_size_runs(cell: int) -> None:
    loose = pooled(cell, strict=False)
    reach = measured_reach(loose, 128, 128)
    assert reach is not None and max(reach) == cell - 1
    assert measured_grid(loose, 128, 128, reach) == cell
    assert measured_size_multiple(loose, 128, 128) == 1
    assert measured_size_multiple(pooled(cell, strict=True), 128, 128) == cell


def test_a_multiple_that_is_no_power_of_two_is_found() -> None:
    assert measured_size_multiple(pooled(14, strict=True), 112, 112) == 14


def test_a_network_of_one_size_has_no_multiple() -> None:
    def values(image: Image) -> NDArray[Any]:
        if image.shape != (64, 64):
            raise ArtifactError("net.onnx", "cannot be run")
        return image[None, None]

    assert measured_size_multiple(values, 64, 64) is None


def test_scores_that_depend_on_the_place_have_no_grid() -> None:
    places = np.arange(64.0)[None, None, None]
    assert measured_grid(lambda image: image[None, None] * places, 64, 64, (0, 0)) is None


def test_the_grid_is_seen_however_little_the_pool_weighs() -> None:
    pool = pooled(16, strict=False)

    def values(image: Image) -> NDArray[Any]:
        return image[None, None].astype(np.float64) + 1e-3 * pool(image)

    assert measured_grid(values, 128, 128, (15, 15)) == 16


def test_the_grid_is_seen_where_noise_gives_one_value_everywhere() -> None:
    """As of a trained network, whose defects are unlike noise."""
    pool = pooled(8, strict=False)

    def values(image: Image) -> NDArray[Any]:
        return np.clip(pool(image), 0, 200)  # 64 pixels of noise nearly all have a brighter one

    assert values(np.random.default_rng(0).integers(0, 256, (96, 96), np.uint8)).min() == 200
    assert measured_grid(values, 128, 128, (7, 7)) == 8
    reach = measured_reach(values, 128, 128)
    assert reach is not None and max(reach) == 7

    def beside_the_image(image: Image) -> NDArray[Any]:
        return image[None, None].astype(np.float64) + values(image)  # noise shows a grid of 1

    assert measured_grid(beside_the_image, 128, 128, (7, 7)) == 8


def test_values_that_nothing_changes_show_no_grid() -> None:
    assert measured_grid(lambda image: np.zeros((1, 1, *image.shape)), 128, 128, (7, 7)) is None
