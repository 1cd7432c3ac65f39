"""The strips and tiles of a TIFF image: each is decompressed in full, or the file is refused."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from tinyunet_deploy.data.formats import jpeg
from tinyunet_deploy.data.formats.header import FormatError

__all__ = ["COMPRESSIONS", "JPEG", "PREDICTED", "Blocks", "decode_blocks"]

_NONE: Final = 1
_LZW: Final = 5
JPEG: Final = 7
"""Compression by JPEG, which changes values."""
_DEFLATE: Final = (8, 32946)
_PACKBITS: Final = 32773
PREDICTED: Final = (*_DEFLATE, _LZW)
"""Compressions that may store differences; decoders disagree on a predictor beside others."""
COMPRESSIONS: Final[dict[int, str | None]] = {
    _NONE: None, _LZW: None, JPEG: None, 8: None, 32946: None, _PACKBITS: None,
    2: "CCITT", 3: "CCITT T.4 fax", 4: "CCITT T.6 fax", 6: "old-style JPEG",
    32771: "CCITT", 32809: "ThunderScan", 33003: "JPEG 2000", 33004: "JPEG 2000",
    33005: "JPEG 2000", 34661: "JBIG", 34676: "SGI Log", 34677: "SGI Log", 34712: "JPEG 2000",
    34887: "LERC", 34892: "lossy raw JPEG", 34925: "LZMA", 50000: "zstd", 50001: "WebP",
    50002: "JPEG XL", 52546: "JPEG XL", 22610: "JPEG XR", 32766: "NeXT", 32895: "IT8",
    32896: "IT8", 32897: "IT8", 32898: "IT8", 32908: "Pixar", 32909: "Pixar", 32947: "Kodak DCS",
    34713: "Nikon raw", 34926: "zstd", 34927: "WebP", 34933: "PNG", 34934: "JPEG XR",
    50013: "Pixtiff", 65000: "Kodak DCR",
}  # fmt: skip
"""Compression code -> name of one that is not supported, None for a supported one."""


@dataclass(frozen=True, slots=True)
class Blocks:
    """Location of the strips or tiles of an image, and the layout of their samples."""

    offsets: NDArray[np.int64]
    sizes: NDArray[np.int64]
    """Bytes of each block in the file."""
    height: int
    width: int
    """Width of a block, pixels."""
    rows_in_last: int
    """Rows of the last block of a plane; fewer than ``height`` in the last strip."""
    per_plane: int
    channels: int
    """Samples of a pixel in a block; 1 if ``planar``."""
    planar: bool
    """True if each channel has its own blocks."""
    bits: int
    big_endian: bool
    predictor: int
    """Predictor; 2 means that samples are stored as differences from their left neighbours."""
    ycbcr: bool
    jpeg_tables: bytes

    def rows(self, index: int) -> int:
        """Return the rows that block ``index`` must have."""
        last = index % self.per_plane == self.per_plane - 1
        return self.rows_in_last if last else self.height

    @property
    def row_bytes(self) -> int:
        """Bytes of a row of a block, decompressed."""
        return (self.width * self.channels * self.bits + 7) // 8


def decode_blocks(data: bytes, blocks: Blocks, compression: int) -> Iterator[NDArray[Any]]:
    """Yield every block in the order of the file: uint8 or uint16 [rows, width, channels].

    Raises:
        EOFError: a block lies behind the end of the file.
        FormatError: a block does not decode to all of its pixels.
    """
    ends = blocks.offsets + blocks.sizes
    if (blocks.offsets < 8).any() or (blocks.sizes < 1).any():
        raise FormatError("corrupt", "lacks the data of a strip or tile")
    if (ends > len(data)).any() or (ends < 0).any():
        raise EOFError
    stored = (
        data[begin:end] for begin, end in zip(blocks.offsets.tolist(), ends.tolist(), strict=True)
    )
    if compression == JPEG:
        for index, block in enumerate(stored):
            yield _decode_jpeg(block, blocks, index)
    elif compression in (_LZW, _PACKBITS):
        yield from _decode_by_libtiff(list(stored), blocks, compression)
    else:
        for index, block in enumerate(stored):
            full = blocks.row_bytes * blocks.height
            values = _inflate(block, full, index) if compression in _DEFLATE else block
            if len(values) >= full + blocks.row_bytes:
                what = f"has a strip or tile {index} with more rows than its tags state"
                raise FormatError("corrupt", what, "save the image again")
            yield _samples(values, blocks, index, compression)


def _samples(values: bytes, blocks: Blocks, index: int, compression: int) -> NDArray[Any]:
    rows = blocks.rows(index)
    needed = rows * blocks.row_bytes
    if len(values) < needed:
        raise _incomplete(index, len(values), needed)
    stored = np.frombuffer(values, np.uint8, needed).reshape(rows, blocks.row_bytes)
    if blocks.bits < 8:
        return _unpack(stored, blocks)
    kind = np.dtype((">" if blocks.big_endian else "<") + f"u{blocks.bits // 8}")
    native = stored.view(kind).astype(kind.newbyteorder("="), copy=False)
    samples: NDArray[Any] = native.reshape(rows, blocks.width, blocks.channels)
    if blocks.predictor == 2 and compression in PREDICTED:
        return np.cumsum(samples, axis=1, dtype=samples.dtype)
    return samples


def _unpack(stored: NDArray[np.uint8], blocks: Blocks) -> NDArray[np.uint8]:
    """Return the 1, 2 or 4-bit samples of packed rows, one byte each, highest bits first."""
    bits = np.unpackbits(stored, axis=1)
    grouped = bits.reshape(stored.shape[0], -1, blocks.bits)[:, : blocks.width]
    weights = 1 << np.arange(blocks.bits - 1, -1, -1, dtype=np.uint8)
    samples: NDArray[np.uint8] = (grouped * weights).sum(axis=2, dtype=np.uint8)
    return samples[..., None]


def _inflate(block: bytes, full: int, index: int) -> bytes:
    """Decompress a block of at most ``full`` bytes to its very end, checksum included."""
    inflater = zlib.decompressobj()
    try:
        values = inflater.decompress(block, full)
        more = inflater.decompress(inflater.unconsumed_tail, 1)
    except zlib.error as error:
        raise FormatError("corrupt", f"has a strip or tile {index} that is damaged") from error
    if more or not inflater.eof:
        raise FormatError("corrupt", f"has a strip or tile {index} that does not end correctly")
    return values


def _decode_jpeg(block: bytes, blocks: Blocks, index: int) -> NDArray[Any]:
    """Decode a block that is a JPEG without its tables; RGB if it has three channels."""
    tables = blocks.jpeg_tables
    if not block.startswith(b"\xff\xd8") or (
        tables and tables[:2] + tables[-2:] != b"\xff\xd8\xff\xd9"
    ):
        raise FormatError("corrupt", f"has a strip or tile {index} that is damaged")
    # Adobe's marker says whether three components are RGB or YCbCr, which a decoder else guesses.
    adobe = struct.pack(">HH5sHHHB", 0xFFEE, 14, b"Adobe", 100, 0, 0, int(blocks.ycbcr))
    whole = b"\xff\xd8" + adobe + tables[2:-2] + block[2:]
    header = jpeg.read_header(whole)
    rows = blocks.rows(index)
    fits = header.width == blocks.width and rows <= header.height <= blocks.height
    if not fits or len(header.details.frame.components) != blocks.channels:
        raise FormatError("corrupt", f"has a strip or tile {index} of another size")
    decode = jpeg.decode_rgb if blocks.channels == 3 else jpeg.decode
    try:
        values = decode(whole, header)
    except EOFError as error:
        raise FormatError("corrupt", f"has a strip or tile {index} that lacks pixels") from error
    return values[:rows].reshape(rows, blocks.width, blocks.channels)


def _decode_by_libtiff(
    stored: list[bytes], blocks: Blocks, compression: int
) -> Iterator[NDArray[Any]]:
    """Decode LZW and PackBits blocks, a plane at a time, as the strips of a grey image of bytes.

    A file of our own around the stored bytes leaves libtiff no choice in how to read them. Unlike
    OpenCV, Pillow reports the strips that libtiff cannot decode in full.
    """
    from PIL.TiffImagePlugin import TiffImageFile

    if compression == _PACKBITS:
        for index, block in enumerate(stored):
            _require_packbits(block, blocks, index)
    for first in range(0, len(stored), blocks.per_plane):
        plane = stored[first : first + blocks.per_plane]
        rows = (len(plane) - 1) * blocks.height + blocks.rows_in_last
        wrapped = _grey_tiff(plane, rows, blocks.row_bytes, blocks.height, compression)
        try:
            with TiffImageFile(io.BytesIO(wrapped)) as picture:
                values = np.asarray(picture)
        except (OSError, ValueError, SyntaxError, RuntimeError) as error:
            raise FormatError(
                "corrupt", "has a strip or tile that does not decode in full"
            ) from error
        for index in range(len(plane)):
            strip = values[index * blocks.height : (index + 1) * blocks.height]
            yield _samples(strip.tobytes(), blocks, first + index, compression)


def _require_packbits(block: bytes, blocks: Blocks, index: int) -> None:
    """Require that the runs of a block fill its pixels exactly; libtiff ignores surplus data."""
    at = decoded = 0
    needed = blocks.rows(index) * blocks.row_bytes
    while at < len(block) and decoded <= needed:
        control = block[at]
        if control < 128:  # that many bytes and one more follow
            at, decoded = at + control + 2, decoded + control + 1
        elif control > 128:  # the next byte is repeated
            at, decoded = at + 2, decoded + 257 - control
        else:  # no operation
            at += 1
    if at != len(block) or decoded != needed:
        raise _incomplete(index, decoded, needed)


def _grey_tiff(
    strips: list[bytes], height: int, width: int, rows_per_strip: int, compression: int
) -> bytes:
    """Return a TIFF file of 8-bit grey values with the given compressed strips."""
    entries = 9
    tables = 8 + 2 + 12 * entries + 4
    begin = tables + 8 * len(strips)
    sizes = np.array([len(strip) for strip in strips], "<u4")
    offsets = (begin + np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)[:-1]])).astype("<u4")
    single = len(strips) == 1
    fields = [
        (256, 1, width), (257, 1, height), (258, 1, 8), (259, 1, compression), (262, 1, 1),
        (273, len(strips), int(offsets[0]) if single else tables), (277, 1, 1),
        (278, 1, min(rows_per_strip, height)),
        (279, len(strips), int(sizes[0]) if single else tables + 4 * len(strips)),
    ]  # fmt: skip
    directory = b"".join(struct.pack("<HHII", tag, 4, count, value) for tag, count, value in fields)
    head = b"II*\0" + struct.pack("<IH", 8, entries) + directory + bytes(4)
    return b"".join([head, offsets.tobytes(), sizes.tobytes(), *strips])


def _incomplete(index: int, decoded: int, needed: int) -> FormatError:
    return FormatError(
        "corrupt", f"has a strip or tile {index} that decodes to {decoded} of its {needed} bytes"
    )
