"""Decode the plainest PNG files faster than OpenCV: 8-bit grey, each row as it is or from the left.

OpenCV writes such files, and so do cameras that use it. The result is the same: what this module
does not take as whole and plain goes to OpenCV, which decodes or refuses it.
"""

from __future__ import annotations

import struct
import sys
import zlib
from collections.abc import Sequence
from typing import Final, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from tinyunet_deploy.contract import Image

try:
    import deflate
except ImportError:  # no wheel for this system: zlib takes longer
    deflate = None  # type: ignore[assignment]

__all__ = ["Chunk", "decode_rows", "has_more_than"]

_LARGEST: Final = 1 << 22
"""Most pixels, and most bytes of a file: of larger images the copies would cost memory."""
_PASSED_OVER: Final = {b"tIME", b"pHYs", b"tEXt", b"gAMA", b"sRGB", b"cHRM"}
"""Chunks that say nothing about grey values, before or after those of the pixels."""
_LONGEST: Final = 1 << 16
"""Longest chunk that is passed over, bytes; OpenCV has limits of its own for longer ones."""
_HEADER: Final = (8, 0, 0, 0, 0)
"""Bits, colour type, compression, filter method and interlacing of the files that are taken."""
_LARGEST_WINDOW: Final = 1 << 15
"""Bytes that a zlib stream may refer back at most; a stream can state that it keeps to fewer."""
_NONE: Final = 0
_SUB: Final = 1
"""Filter types of a row: values as they are, or differences from the value at the left."""
_STRIP: Final = 1 << 16
"""Pixels whose sums are in memory at a time; of 2^23, they would overflow 32 bits."""
_PIECE: Final = 1 << 14
"""Bytes that are inflated at a time to count them; they may become a thousand times as many."""
_PEEKED: Final = 4
"""Rows whose filters decide whether it is worth while to inflate all: encoders that choose the best
filter of each row seldom choose these for so many."""
_crc32 = zlib.crc32 if deflate is None else deflate.crc32
_LOW_BYTE: Final = 0 if sys.byteorder == "little" else 3


class Chunk(NamedTuple):
    """One chunk of a PNG file."""

    name: bytes
    at: int
    """Offset of its data in the file."""
    length: int
    """Bytes of its data."""


def decode_rows(data: bytes, chunks: Sequence[Chunk]) -> Image | None:
    """Decode the pixels of a plain file.

    The checksums of all chunks of pixels and of the whole stream are checked, and its length.

    Args:
        data: the file.
        chunks: all its chunks; the checksums of those without pixels are right.

    Returns:
        uint8 [H, W]; None if the file is not plain, or damaged.
    """
    width, height, *header = struct.unpack_from(">IIBBBBB", data, chunks[0].at)
    if tuple(header) != _HEADER or not 0 < width * height <= _LARGEST or len(data) > _LARGEST:
        return None
    stream = _stream(data, chunks)
    if stream is None or not _begins_plain(stream, width):
        return None
    raw = _inflate(stream, height * (width + 1))
    if raw is None:
        return None
    return _unfilter(np.frombuffer(raw, np.uint8).reshape(height, width + 1))


def has_more_than(size: int, data: bytes, chunks: Sequence[Chunk]) -> bool:
    """Return whether the pixels of a file, of any kind, take more than ``size`` bytes inflated.

    False also if they cannot be inflated: OpenCV decodes or refuses such a file.
    """
    places = [(at, length) for name, at, length in chunks if name == b"IDAT"]
    view = memoryview(data)
    if size <= _LARGEST and len(data) <= _LARGEST:
        stream = b"".join(view[at : at + length] for at, length in places)
        if _inflate(stream, size) is not None:
            return False
    inflater, inflated = zlib.decompressobj(), 0
    for at, length in places:
        for begin in range(at, at + length, _PIECE):
            piece = view[begin : min(begin + _PIECE, at + length)]
            try:
                inflated += len(inflater.decompress(piece))
            except zlib.error:
                return False
            if inflated > size:
                return True
    return False


def _stream(data: bytes, chunks: Sequence[Chunk]) -> bytes | None:
    """Return the compressed pixels, or None if a chunk is damaged, unknown or out of place."""
    first, *between, last = chunks
    if (first.name, first.length, last.name, last.length) != (b"IHDR", 13, b"IEND", 0):
        return None
    places = [place for place, chunk in enumerate(between) if chunk.name == b"IDAT"]
    if not places or places[-1] - places[0] != len(places) - 1:
        return None
    others = between[: places[0]] + between[places[-1] + 1 :]
    if any(chunk.name not in _PASSED_OVER or chunk.length > _LONGEST for chunk in others):
        return None
    view = memoryview(data)
    parts = []
    for _, at, length in between[places[0] : places[-1] + 1]:
        (checksum,) = struct.unpack_from(">I", data, at + length)
        if _crc32(view[at - 4 : at + length]) != checksum:
            return None
        parts.append(view[at : at + length])
    return b"".join(parts)


def _begins_plain(stream: bytes, width: int) -> bool:
    """Return whether the first rows have filters that :func:`_unfilter` knows."""
    try:
        start = zlib.decompressobj().decompress(stream, _PEEKED * (width + 1))
    except zlib.error:
        return False
    return max(start[:: width + 1], default=0) <= _SUB


def _inflate(stream: bytes, size: int) -> bytes | bytearray | None:
    """Return the ``size`` bytes of a zlib stream whose checksum is right; else None."""
    window = 256 << (stream[0] >> 4) if stream else 0
    if window < min(size, _LARGEST_WINDOW):
        return None  # neither library checks that such a stream keeps to its window; libpng does
    if deflate is not None:
        try:
            raw = deflate.zlib_decompress(stream, size)
        except deflate.DeflateError:
            return None
        return raw if len(raw) == size else None
    inflater = zlib.decompressobj()
    try:
        inflated = inflater.decompress(stream, size + 1)
    except zlib.error:
        return None
    return inflated if inflater.eof and len(inflated) == size else None


def _unfilter(rows: NDArray[np.uint8]) -> Image | None:
    """Return the values of rows that begin with their filter type; None if there are others."""
    filters, stored = rows[:, 0], rows[:, 1:]
    if filters.max() > _SUB:
        return None
    if not filters.any():
        return stored.copy()
    values = _sums_along_rows(stored)
    if not filters.all():
        plain = filters == _NONE
        values[plain] = stored[plain]
    return values


def _sums_along_rows(rows: NDArray[np.uint8]) -> Image:
    """Return the running sums of each row, modulo 256.

    OpenCV has sums over all pixels above and to the left, vectorised; the difference between two
    rows of them is the sum along one.
    """
    height, width = rows.shape
    values = np.empty((height, width), np.uint8)
    strip = max(_STRIP // width, 1)
    for top in range(0, height, strip):
        sums = cv2.integral(rows[top : top + strip], sdepth=cv2.CV_32S)
        in_bytes = sums.view(np.uint8).reshape(*sums.shape, 4)
        low = cv2.extractChannel(in_bytes, _LOW_BYTE)
        np.subtract(low[1:, 1:], low[:-1, 1:], out=values[top : top + strip])
    return values
