"""Check the scans of a JPEG file: all must be present, and each must have all of its pixels.

A decoder makes up missing pixels, and passes over surplus data, without reporting it.
Source: ITU-T T.81, 1992.
"""

from __future__ import annotations

import io
import re
import struct
from collections import Counter
from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np

from tinyunet_deploy.data.formats.header import FormatError, Samples
from tinyunet_deploy.data.formats.opencv import decode_grey, decodes

__all__ = ["Component", "Frame", "Scan", "read_frame", "read_scan", "require_all_pixels"]

SEQUENTIAL: Final = frozenset({0xC0, 0xC1, 0xC9})
"""Frame types in which each component has one scan, Huffman and arithmetic coding."""
_COEFFICIENTS: Final = 64
_RESTART: Final = re.compile(rb"\xff([\xd0-\xd7])")
_END_OF_DATA: Final = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
"""Next marker after the data of a scan: neither a stuffed byte nor a restart marker."""
_FILLING: Final = b"\x55\x2a\x91\x6c" * 32
"""Scan data that a decoder reads as pixels only if the file lacks some."""
_LARGEST_SURPLUS: Final = 16
"""Bytes that may follow the last pixel of a scan; encoders pad with a few."""
_MOST_INTERVALS: Final = 1 << 12
"""Most intervals between restarts that are looked at one by one, which takes 0.1 s."""
_LARGEST_SIDE: Final = 65500
"""Most pixels of a side that libjpeg decodes."""


class Component(NamedTuple):
    """Sampling factors of a component, 1..4."""

    across: int
    down: int


class Frame(NamedTuple):
    """The frame header."""

    kind: int
    """0xC0 to 0xCF."""
    height: int
    width: int
    components: dict[int, Component]


class Scan(NamedTuple):
    """One pass over the pixels."""

    components: tuple[int, ...]
    first: int
    last: int
    """Range of the coefficients, 0..63."""
    low_bit: int
    """Lowest bit of the coefficients that this pass gives."""
    begin: int
    end: int
    """Range of its data in the file."""
    restart_interval: int
    """Blocks between restart markers; 0: none."""


def read_frame(kind: int, segment: bytes) -> Frame:
    """Read a frame header, without its marker and length."""
    height, width, count = struct.unpack_from(">xHHB", segment)
    components = {}
    for index in range(count):
        name, sampling = struct.unpack_from(">BB", segment, 6 + 3 * index)
        component = Component(sampling >> 4, sampling & 15)
        if not all(1 <= factor <= 4 for factor in component) or name in components:
            raise FormatError("corrupt", "has a damaged frame header")
        components[name] = component
    return Frame(kind, height, width, components)


def read_scan(data: bytes, at: int, length: int, frame: Frame, restart_interval: int) -> Scan:
    """Read a scan header of ``length`` bytes at ``at``, and find the end of the scan's data.

    Raises:
        EOFError: there is no end.
    """
    count = data[at + 2] if at + 2 < len(data) else 0
    if length != 6 + 2 * count:
        raise FormatError("corrupt", "has a damaged scan header")
    names = tuple(data[at + 3 : at + 3 + 2 * count : 2])
    first, last, bits = data[at + length - 3 : at + length]
    known = set(names) <= frame.components.keys() and len(set(names)) == len(names) >= 1
    if not known or not first <= last < _COEFFICIENTS:
        raise FormatError("corrupt", "has a damaged scan header")
    end = _END_OF_DATA.search(data, at + length)
    if end is None:
        raise EOFError
    return Scan(names, first, last, bits & 15, at + length, end.start(), restart_interval)


def require_all_scans(frame: Frame, scans: Sequence[Scan]) -> None:
    """Refuse a file that lacks a scan, or has one twice.

    Raises:
        EOFError: a component has no scan, or not all bits of its coefficients.
    """
    if frame.kind in SEQUENTIAL:
        passes = Counter(name for scan in scans for name in scan.components)
        if max(passes.values(), default=0) > 1:
            raise FormatError("corrupt", "has a component twice")
        if passes.keys() != frame.components.keys():
            raise EOFError
        return
    missing = {name: set(range(_COEFFICIENTS)) for name in frame.components}
    for scan in scans:
        if scan.low_bit == 0:
            for name in scan.components:
                missing[name].difference_update(range(scan.first, scan.last + 1))
    if any(missing.values()):
        raise EOFError


def require_restarts(data: bytes, frame: Frame, scan: Scan) -> None:
    """Refuse a scan whose restart markers are wrong in number or order."""
    if not scan.restart_interval:
        if _RESTART.search(data, scan.begin, scan.end):
            raise FormatError("corrupt", "has a misplaced restart marker")
        return
    wanted = (_blocks(frame, scan) - 1) // scan.restart_interval
    count = 0
    for marker in _RESTART.finditer(data, scan.begin, scan.end):
        if marker[1][0] != 0xD0 + count % 8 or count == wanted:
            raise FormatError("corrupt", "has its restart markers out of order")
        count += 1
    if count < wanted:
        raise EOFError


def require_all_pixels(data: bytes, frame: Frame, scans: Sequence[Scan], grey: Samples) -> None:
    """Refuse a file whose decoder made up pixels, by decoding it with other data at each end.

    Args:
        grey: what OpenCV decodes ``data`` to.

    Raises:
        EOFError: a scan, or an interval between restarts, lacks data.
        FormatError: the only scan, or such an interval of it, has more data than its pixels take.
    """
    (scan, *more) = scans
    if not more and not scan.restart_interval and frame.kind in SEQUENTIAL:
        filled = decode_grey(data[: scan.end] + _FILLING)
        if filled is None or not np.array_equal(grey, filled):
            raise EOFError
        _require_no_surplus(data[: scan.begin], data[scan.begin : scan.end])
        return
    # Pillow, since OpenCV writes a line to stderr for every marker behind other data.
    pieces, at = [], 0
    for scan in scans:
        ends = [marker.start() for marker in _RESTART.finditer(data, scan.begin, scan.end)]
        for end in (*ends, scan.end):
            pieces += [data[at:end], _FILLING]
            at = end
    if not np.array_equal(_by_pillow(data), _by_pillow(b"".join([*pieces, data[at:]]))):
        raise EOFError
    if not more and frame.kind in SEQUENTIAL:
        _require_no_surplus_of_intervals(data, frame, scan)


def _require_no_surplus(head: bytes, stored: bytes) -> None:
    """Refuse data of a scan that has all its pixels before its last bytes.

    Damage in the middle makes a decoder read pixels out of step, so that data is left over; so does
    a frame header with too small a size. Without the end of a whole scan, OpenCV decodes nothing.

    Args:
        head: the file up to the data.
        stored: the data.
    """
    stored = stored.rstrip(b"\xff")
    if decodes(head + stored[: max(0, len(stored) - _LARGEST_SURPLUS)]):
        raise FormatError(
            "corrupt", "has more data than its pixels take: its middle or its header is damaged",
            "copy the file again, or save the image again",
        )  # fmt: skip


def _require_no_surplus_of_intervals(data: bytes, frame: Frame, scan: Scan) -> None:
    """Refuse surplus data before a restart marker, with each interval as an image of its own."""
    count = _blocks(frame, scan)
    ends = [marker.start() for marker in _RESTART.finditer(data, scan.begin, scan.end)]
    if len(ends) >= _MOST_INTERVALS:
        return
    begin = scan.begin
    for index, end in enumerate((*ends, scan.end)):
        blocks = min(scan.restart_interval, count - index * scan.restart_interval)
        head = _head_of_interval(data[: scan.begin], frame, scan, blocks)
        if head is not None:
            _require_no_surplus(head, data[begin:end])
        begin = end + 2


def _head_of_interval(head: bytes, frame: Frame, scan: Scan, blocks: int) -> bytes | None:
    """Return the file up to its pixels for an image of so many blocks; None if it is too wide."""
    factors = frame.components.values()
    across, down = (max(component[axis] for component in factors) for axis in (0, 1))
    if len(scan.components) == 1:
        across = down = 1
    rows, rest = divmod(blocks, -(-frame.width // (8 * across)))
    height, width = (8 * down, 8 * across * blocks) if rest else (8 * down * rows, frame.width)
    size = struct.pack(">HH", frame.height, frame.width)
    at = head.find(size, head.rfind(bytes([0xFF, frame.kind])))
    if max(height, width) > _LARGEST_SIDE or at < 0:
        return None
    return head[:at] + struct.pack(">HH", height, width) + head[at + 4 :]


def _by_pillow(data: bytes) -> Samples:
    from PIL.JpegImagePlugin import JpegImageFile

    try:
        with JpegImageFile(io.BytesIO(data)) as picture:
            return np.asarray(picture)
    except (OSError, ValueError, SyntaxError) as error:
        raise FormatError("corrupt", "cannot be decoded") from error


def _blocks(frame: Frame, scan: Scan) -> int:
    """Return the number of minimum coded units of a scan."""
    factors = frame.components.values()
    across, down = (max(component[axis] for component in factors) for axis in (0, 1))
    if len(scan.components) > 1:
        return -(-frame.width // (8 * across)) * -(-frame.height // (8 * down))
    component = frame.components[scan.components[0]]
    width = -(-frame.width * component.across // across)
    height = -(-frame.height * component.down // down)
    return -(-width // 8) * -(-height // 8)
