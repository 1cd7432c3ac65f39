"""Scans of JPEG files, described by hand or written byte by byte."""

from __future__ import annotations

import io
import struct

import numpy as np
import PIL.Image
import pytest

from tinyunet_deploy.data.formats import jpeg
from tinyunet_deploy.data.formats.header import FormatError
from tinyunet_deploy.data.formats.jpeg_scans import (
    Component,
    Frame,
    Scan,
    read_frame,
    read_scan,
    require_all_pixels,
    require_all_scans,
    require_restarts,
)

SEQUENTIAL = (0xC0, 0xC1, 0xC9)
PROGRESSIVE = (0xC2, 0xCA)


def frame(kind: int = 0xC0, width: int = 8, height: int = 8, **factors: tuple[int, int]) -> Frame:
    """A frame whose components have sampling factors ``c1=(2, 1)``; three of 1 x 1 by default."""
    factors = factors or {"c1": (1, 1), "c2": (1, 1), "c3": (1, 1)}
    components = {int(name[1:]): Component(*pair) for name, pair in factors.items()}
    return Frame(kind, height, width, components)


def scan(*components: int, first: int = 0, last: int = 63, low_bit: int = 0) -> Scan:
    return Scan(components, first, last, low_bit, 0, 0, 0)


def frame_header(*components: tuple[int, int], height: int = 300, width: int = 500) -> bytes:
    head = struct.pack(">BHHB", 8, height, width, len(components))
    return head + b"".join(struct.pack("BBB", *component, 0) for component in components)


def test_a_frame_header_gives_the_size_and_the_factors_of_its_components() -> None:
    header = frame_header((1, 0x41), (7, 0x14), (255, 0x23))
    factors = {1: (4, 1), 7: (1, 4), 255: (2, 3)}
    assert read_frame(0xC2, header) == (0xC2, 300, 500, factors)


@pytest.mark.parametrize("factors", [0x01, 0x10, 0x51, 0x15, 0x00, 0xFF])
def test_factors_are_one_to_four(factors: int) -> None:
    with pytest.raises(FormatError, match="damaged frame header") as caught:
        read_frame(0xC0, frame_header((1, 0x11), (2, factors)))
    assert caught.value.reason == "corrupt"


def test_a_component_stands_in_a_frame_once() -> None:
    with pytest.raises(FormatError, match="damaged frame header"):
        read_frame(0xC0, frame_header((1, 0x11), (1, 0x11)))


def scan_header(*names: int, first: int = 0, last: int = 63, bits: int = 0) -> bytes:
    """With its length, without its marker."""
    pairs = b"".join(bytes([name, 0]) for name in names)
    return struct.pack(">HB", 6 + 2 * len(names), len(names)) + pairs + bytes([first, last, bits])


@pytest.mark.parametrize("names", [(1,), (3, 1), (1, 2, 3)])
def test_a_scan_is_read_up_to_the_next_marker_that_ends_it(names: tuple[int, ...]) -> None:
    header = scan_header(*names, first=5, last=5, bits=0x32)
    pixels = b"abc\xff\0def\xff\xd0\xff\xff\0ghi\xff\xd7"
    data = b"before" + header + pixels + b"\xff\xc4"
    at, length = 6, len(header)
    begin, end = at + length, at + length + len(pixels)
    assert read_scan(data, at, length, frame(), 9) == (names, 5, 5, 2, begin, end, 9)
    with pytest.raises(EOFError):
        read_scan(data[:-1], at, length, frame(), 9)


@pytest.mark.parametrize(
    "header",
    [
        scan_header(),
        scan_header(4),
        scan_header(1, 4),
        scan_header(1, 1),
        scan_header(1, first=6, last=5),
        scan_header(1, first=0, last=64),
        scan_header(1, 2)[:-1],
        scan_header(1, 2) + b"\0",
    ],
)
def test_a_damaged_scan_header_is_refused(header: bytes) -> None:
    with pytest.raises(FormatError, match="damaged scan header") as caught:
        read_scan(header + b"pixels\xff\xd9", 0, len(header), frame(), 0)
    assert caught.value.reason == "corrupt"


def test_a_file_that_ends_in_a_scan_header_without_content_is_refused() -> None:
    with pytest.raises(FormatError, match="damaged scan header"):
        read_scan(b"\0\2", 0, 2, frame(), 0)


@pytest.mark.parametrize("kind", SEQUENTIAL)
def test_each_component_has_one_scan_of_a_sequential_frame(kind: int) -> None:
    whole = frame(kind)
    require_all_scans(whole, [scan(1, 2, 3)])
    require_all_scans(whole, [scan(3), scan(1), scan(2)])
    require_all_scans(whole, [scan(2, 3), scan(1)])
    for twice in ([scan(1, 2, 3), scan(2)], [scan(1), scan(1), scan(2), scan(3)]):
        with pytest.raises(FormatError, match="a component twice"):
            require_all_scans(whole, twice)
    for missing in ([], [scan(1)], [scan(1), scan(3)]):
        with pytest.raises(EOFError):
            require_all_scans(whole, missing)


@pytest.mark.parametrize("kind", PROGRESSIVE)
def test_the_scans_of_a_progressive_frame_give_all_bits_of_all_coefficients(kind: int) -> None:
    one = frame(kind, c1=(1, 1))
    steady, changing = scan(1, last=0), scan(1, first=1)
    require_all_scans(one, [steady, changing])
    require_all_scans(one, [steady, scan(1, first=1, low_bit=1), changing])
    require_all_scans(one, [steady, scan(1, first=1, last=5), scan(1, first=6)])
    for scans in (
        [steady],
        [changing],
        [steady, scan(1, first=2)],
        [steady, scan(1, first=1, last=62)],
        [steady, scan(1, first=1, low_bit=1)],
        [steady, scan(1, first=1, last=5), scan(1, first=7)],
    ):
        with pytest.raises(EOFError):
            require_all_scans(one, scans)
    two = frame(kind, c1=(1, 1), c2=(1, 1))
    with pytest.raises(EOFError):
        require_all_scans(two, [scan(1, 2, last=0), changing])
    require_all_scans(two, [scan(1, 2, last=0), changing, scan(2, first=1)])


WIDE = frame(width=33, height=17, c1=(2, 1), c2=(1, 1))
HIGH = frame(width=33, height=17, c1=(1, 2), c2=(1, 1))
EVEN = frame(width=32, height=16, c1=(2, 2), c2=(1, 1))
ODD = frame(width=50, height=33, c1=(3, 2), c2=(2, 1))


@pytest.mark.parametrize(
    ("shape", "components", "blocks"),
    [
        (frame(c1=(1, 1)), (1,), 1),
        (frame(width=9, c1=(1, 1)), (1,), 2),
        (frame(height=9, c1=(1, 1)), (1,), 2),
        (frame(width=16, height=24, c1=(1, 1)), (1,), 6),
        (frame(width=57, height=113, c1=(1, 1), c2=(1, 1)), (1, 2), 8 * 15),
        (frame(width=64, height=72, c1=(1, 1), c2=(1, 1)), (1, 2), 8 * 9),
        (WIDE, (1, 2), 3 * 3),
        (WIDE, (1,), 5 * 3),
        (WIDE, (2,), 3 * 3),
        (HIGH, (1, 2), 5 * 2),
        (HIGH, (1,), 5 * 3),
        (HIGH, (2,), 5 * 2),
        (EVEN, (1, 2), 2),
        (EVEN, (1,), 8),
        (EVEN, (2,), 2),
        (ODD, (1, 2), 3 * 3),
        (ODD, (1,), 7 * 5),
        (ODD, (2,), 5 * 3),
    ],
)
@pytest.mark.parametrize("interval", [1, 4])
def test_a_restart_stands_between_intervals_of_the_blocks_of_a_scan(
    shape: Frame, components: tuple[int, ...], blocks: int, interval: int
) -> None:
    """A block of one component is 8 x 8 of its samples; one of several has all their factors."""

    def require(count: int) -> None:
        data = b"before" + b"".join(b"x\xff" + bytes([0xD0 + i % 8]) for i in range(count)) + b"x"
        require_restarts(data, shape, Scan(components, 0, 63, 0, 6, len(data), interval))

    wanted = -(-blocks // interval) - 1
    require(wanted)
    with pytest.raises(FormatError, match="out of order"):
        require(wanted + 1)
    if wanted:
        with pytest.raises(EOFError):
            require(wanted - 1)


def saved(**options: bool) -> bytes:
    values = np.random.default_rng(0).integers(0, 256, (40, 48), np.uint8)
    file = io.BytesIO()
    PIL.Image.fromarray(values).save(file, "JPEG", quality=90, **options)
    return file.getvalue()


def test_a_sequential_scan_that_lacks_its_end_is_cut_off() -> None:
    data = saved()
    jpeg.decode(data, jpeg.read_header(data))
    for lost in (5, 20, 300):
        shorter = data[: -2 - lost] + b"\xff\xd9"
        with pytest.raises(EOFError):
            jpeg.decode(shorter, jpeg.read_header(shorter))


def test_a_file_that_the_second_decoder_refuses_is_corrupt() -> None:
    data = saved(progressive=True)
    header = jpeg.read_header(data)
    grey = jpeg.decode(data, header)
    assert grey.dtype == np.uint8
    (structure, scans) = header.details
    for damaged in (b"no JPEG", data[: scans[0].begin + 9]):
        with pytest.raises(FormatError, match="cannot be decoded") as caught:
            require_all_pixels(damaged, structure, scans, np.asarray(grey, np.uint8))
        assert caught.value.reason == "corrupt"
