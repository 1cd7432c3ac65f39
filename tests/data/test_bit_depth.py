from __future__ import annotations

import logging
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyunet_deploy.data.bit_depth import (
    DEPTHS,
    BitDepth,
    depth_of,
    require_depth,
    shallow_value,
    to_8_bits,
)
from tinyunet_deploy.data.formats.header import FormatError, Header


@given(st.integers(8, 15), st.data())
def test_the_nearest_grey_value_is_taken(depth: int, data: st.DataObject) -> None:
    largest = (1 << depth) - 1
    value = data.draw(st.integers(0, largest))
    grey = int(to_8_bits(np.array([[value]], np.uint16), depth)[0, 0])
    assert abs(grey * largest - value * 255) * 2 <= largest
    ends = to_8_bits(np.array([[0, largest]], np.uint16), depth)
    assert ends.tolist() == [[0, 255]]


def test_all_16_bits_are_cut_to_8() -> None:
    values = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    assert np.array_equal(to_8_bits(values, None), values >> 8)


def test_colours_are_scaled_before_they_become_luminance() -> None:
    colours = np.array([[[4095, 4095, 4095], [4095, 0, 0], [0, 4095, 0], [0, 0, 4095]]], np.uint16)
    assert to_8_bits(colours, 12).tolist() == [[255, 76, 150, 29]]


def test_a_run_is_warned_once_whichever_thread_sees_it_first(
    caplog: pytest.LogCaptureFixture,
) -> None:
    depth = BitDepth()
    start = threading.Barrier(8)

    def see(number: int) -> None:
        start.wait()
        for _ in range(50):
            depth.on_shallow(Path(f"{number}.png"), 3987)

    threads = [threading.Thread(target=see, args=(number,)) for number in range(8)]
    with caplog.at_level(logging.WARNING):
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    (record,) = caplog.records
    said = (
        "at most 0.1 % of its 16-bit values above 3987, so that nearly all of it has 16 grey values"
    )
    assert said in record.getMessage()
    assert "--bits 12, or --bits 16" in record.getMessage()


@pytest.mark.parametrize(
    ("largest", "bits"),
    [(200, 8), (1000, 10), (1024, 12), (4095, 12), (4096, 14), (16383, 14), (16384, 15)],
)
def test_the_warning_names_a_depth_that_holds_the_values(
    largest: int, bits: int, caplog: pytest.LogCaptureFixture
) -> None:
    BitDepth().on_shallow(Path("a\x1b.png"), largest)
    assert "\x1b" not in caplog.text
    assert f"--bits {bits}, or --bits 16 " in caplog.text
    assert f"nearly all of it has {largest // 256 + 1} grey values at most" in caplog.text


@pytest.mark.parametrize(
    ("hot", "value"), [(0, 4000), (1, 4000), (10, 4000), (11, None), (10_000, None)]
)
def test_a_few_hot_pixels_do_not_hide_that_an_image_is_dark(hot: int, value: int | None) -> None:
    samples = np.full((100, 100), 4000, np.uint16)
    samples.flat[:hot] = 65535
    largest = int(samples.max())
    for header in (Header(100, 100, 16), Header(100, 100, 16, 16)):
        assert shallow_value(header, samples, largest) == value


def test_a_black_image_is_in_no_doubt() -> None:
    samples = np.zeros((100, 100), np.uint16)
    assert shallow_value(Header(100, 100, 16), samples, 0) is None
    samples[3, 4] = 65535
    assert shallow_value(Header(100, 100, 16), samples, 65535) is None


def test_depths_are_those_of_8_to_16_bits() -> None:
    assert list(DEPTHS) == [8, 9, 10, 11, 12, 13, 14, 15, 16]


@pytest.mark.parametrize("depth", [8, 12, 15])
def test_a_depth_holds_values_below_its_power_of_two(depth: int) -> None:
    assert require_depth(np.array([[(1 << depth) - 1]], np.uint16), depth) == (1 << depth) - 1
    for value in (1 << depth, (1 << depth) + 1):
        with pytest.raises(FormatError, match=f"more than {depth} bits"):
            require_depth(np.array([[value]], np.uint16), depth)
    assert require_depth(np.array([[65535]], np.uint16), None) == 65535


@pytest.mark.parametrize("stated", [10, 15])
def test_a_declared_depth_may_not_contradict_the_file(stated: int) -> None:
    samples = np.array([[1000]], np.uint16)
    assert depth_of(Header(1, 1, 16, stated), samples, None) == stated
    assert depth_of(Header(1, 1, 16, stated), samples, stated) == stated
    with pytest.raises(FormatError, match=f"states {stated}-bit values, but 12 bits were declared"):
        depth_of(Header(1, 1, 16, stated), samples, 12)


@pytest.mark.parametrize("stated", [None, 16])
def test_a_declared_depth_decides_where_the_file_says_nothing(stated: int | None) -> None:
    samples = np.array([[1000]], np.uint16)
    assert depth_of(Header(1, 1, 16, stated), samples, 12) == 12
    assert depth_of(Header(1, 1, 16, stated), samples, 16) is None
    assert depth_of(Header(1, 1, 16, stated), samples, None) is None
