"""JPEG files, by OpenCV, which accepts half a file: completeness is checked here."""

from __future__ import annotations

import re
import struct
from typing import Final, NamedTuple

import numpy as np

from tinyunet_deploy.data.formats.header import FormatError, Header, Samples, several_images
from tinyunet_deploy.data.formats.opencv import decode_colour, decode_grey, require_shape

__all__ = ["SIGNATURE", "decode", "decode_labels", "decode_rgb", "read_header"]

SIGNATURE: Final = b"\xff\xd8\xff"
_END: Final = 0xD9
_SCAN: Final = 0xDA
_APP2: Final = 0xE2
_FRAMES: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_SEQUENTIAL: Final = frozenset({0xC0, 0xC1})
_FOREIGN_FRAMES: Final = {
    0xC3: "lossless", 0xC5: "hierarchical", 0xC6: "hierarchical", 0xC7: "hierarchical lossless",
    0xCB: "lossless arithmetic", 0xCD: "hierarchical", 0xCE: "hierarchical",
    0xCF: "hierarchical lossless", 0xF7: "JPEG-LS",
}  # fmt: skip
"""Frame types that libjpeg-turbo does not decode."""
_PADDING: Final = re.compile(rb"\xff+")
"""Any number of these may precede a marker's code."""
_SCAN_END: Final = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
"""The next marker after a scan, which is neither a stuffed byte of it nor a restart."""
_MAX_SEGMENTS: Final = 10_000
"""Most segments of a file; an ICC profile or EXIF data take a few hundred at most."""
_MAX_SCANS: Final = 200
"""Most passes over the pixels that a JPEG may ask for; a progressive one has about ten."""
_MAX_SCANNED: Final = 32 * 64 * 1024 * 1024
"""Most pixels over all passes: seconds of work for the largest accepted image."""
_FILLING: Final = b"\x55\x2a\x91\x6c" * 32
"""Scan data that a decoder only reads as pixels if the file lacks some.

Without it a decoder makes the missing pixels up, and an end marker behind half a JPEG hides that.
"""


class _Structure(NamedTuple):
    frame: int
    """Type of the frame header, 0xC0 to 0xCF."""
    components: int
    scan_ends: tuple[int, ...]
    """Positions after each scan."""


def read_header(data: bytes) -> Header:
    """Walk over the segments from the start to the end of this very JPEG.

    Thumbnails, comments, and another JPEG behind half a one have ends of their own.
    """
    at, size, frame, components = 2, None, 0, 0
    scan_ends: list[int] = []
    for _ in range(_MAX_SEGMENTS):
        padding = _PADDING.match(data, at)
        if padding is None or padding.end() == len(data):
            if size is None and at < len(data):
                raise FormatError("not-an-image", "is not a JPEG image: it has no frame header")
            raise EOFError
        code, at = data[padding.end()], padding.end() + 1
        if code == _END and size is not None:
            structure = _Structure(frame, components, tuple(scan_ends))
            return Header(*size, lossy=True, details=structure)
        if code == 0xD8 or 0xD0 <= code <= _END:
            raise EOFError
        (length,) = struct.unpack_from(">H", data, at)
        if code in _FRAMES or code in _FOREIGN_FRAMES:
            precision, *size_found, components = struct.unpack_from(">BHHB", data, at + 2)
            if size is not None:
                raise FormatError("corrupt", "has two frame headers")
            _require_readable(code, precision)
            size, frame = (size_found[0], size_found[1]), code
        elif code == _APP2 and data.startswith(b"MPF\0", at + 2) and size is None:
            _require_one_picture(data[at + 6 : at + length])
        at += length
        if code == _SCAN:
            if size is None:
                raise EOFError
            scan_end = _SCAN_END.search(data, at)
            if scan_end is None:
                raise EOFError
            at = scan_end.start()
            scan_ends.append(at)
            if len(scan_ends) > _MAX_SCANS or len(scan_ends) * size[0] * size[1] > _MAX_SCANNED:
                raise FormatError(
                    "corrupt", f"asks for {len(scan_ends)} or more passes over its pixels"
                )
    raise FormatError("corrupt", f"has more than {_MAX_SEGMENTS} segments")


def decode(data: bytes, header: Header) -> Samples:
    """Decode to luminance, uint8 [H, W]; a file that lacks pixels is refused."""
    samples = require_shape(decode_grey(data), header)
    _require_all_pixels(data, header, samples)
    return samples


def decode_labels(data: bytes, header: Header) -> Samples:
    """Decode to luminance, as :func:`decode` does."""
    return decode(data, header)


def decode_rgb(data: bytes, header: Header) -> Samples:
    """Decode to RGB, uint8 [H, W, 3]; a file that lacks pixels is refused."""
    samples = decode_colour(data)
    _require_all_pixels(data, header, require_shape(decode_grey(data), header))
    return require_shape(samples, header)


def _require_readable(frame: int, precision: int) -> None:
    variant = _FOREIGN_FRAMES.get(frame)
    if variant is None and precision != 8:
        variant = f"{precision}-bit"
    if variant is not None:
        raise FormatError(
            "unsupported", f"is a {variant} JPEG", "convert it to PNG, or to 8-bit baseline JPEG"
        )


def _require_all_pixels(data: bytes, header: Header, samples: Samples) -> None:
    """Refuse a JPEG of one pass that lacks data, so that the decoder made up some of its pixels."""
    structure: _Structure = header.details
    if len(structure.scan_ends) != 1 or structure.frame not in _SEQUENTIAL:
        return
    filled = decode_grey(data[: structure.scan_ends[0]] + _FILLING)
    if filled is None or not np.array_equal(samples, filled):
        raise EOFError


def _require_one_picture(index: bytes) -> None:
    """Refuse a multi-picture file (CIPA DC-007), but for previews of its one image.

    Args:
        index: the APP2 segment behind its identifier: a TIFF structure whose tag 0xB002 lists an
            entry of 16 bytes per picture, with its type in the low 24 bits of the first word.
    """
    try:
        order = "<" if index[:2] == b"II" else ">"
        (at,) = struct.unpack_from(order + "I", index, 4)
        (fields,) = struct.unpack_from(order + "H", index, at)
        for field in range(fields):
            tag, _kind, size, entries = struct.unpack_from(
                order + "HHII", index, at + 2 + 12 * field
            )
            if tag == 0xB002:
                words = [
                    struct.unpack_from(order + "I", index, entries + 16 * picture)[0]
                    for picture in range(min(size // 16, 1000))
                ]
                pictures = sum((word >> 16) & 0xFF != 1 for word in words)  # 1: a preview
                if pictures > 1:
                    raise several_images(pictures, "save each picture as a file of its own")
    except struct.error:
        return  # a damaged index is no reason to refuse the image before it
