"""Decode JPEG files with OpenCV; refuse incomplete files, which OpenCV would accept."""

from __future__ import annotations

import re
import struct
from typing import Final, NamedTuple

from tinyunet_deploy.data.formats.following import require_alone
from tinyunet_deploy.data.formats.header import FormatError, Header, Samples, several_images
from tinyunet_deploy.data.formats.jpeg_scans import (
    Frame,
    Scan,
    read_frame,
    read_scan,
    require_all_pixels,
    require_all_scans,
    require_restarts,
)
from tinyunet_deploy.data.formats.opencv import decode_colour, decode_grey, require_shape

__all__ = ["SIGNATURE", "Structure", "decode", "decode_labels", "decode_rgb", "read_header"]

SIGNATURE: Final = b"\xff\xd8\xff"
_END: Final = 0xD9
_SCAN: Final = 0xDA
_RESTART_INTERVAL: Final = 0xDD
_APP2: Final = 0xE2
_WITHOUT_LENGTH: Final = frozenset({0x01, *range(0xD0, 0xDA)})
_FRAMES: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_FOREIGN_FRAMES: Final = {
    0xC3: "lossless", 0xC5: "hierarchical", 0xC6: "hierarchical", 0xC7: "hierarchical lossless",
    0xCB: "lossless arithmetic", 0xCD: "hierarchical", 0xCE: "hierarchical",
    0xCF: "hierarchical lossless", 0xF7: "JPEG-LS",
}  # fmt: skip
"""Frame types that libjpeg-turbo does not decode."""
_PADDING: Final = re.compile(rb"\xff+")
"""Padding of any length before a marker's code."""
_MAX_SEGMENTS: Final = 10_000
"""Largest number of segments; an ICC profile or EXIF data take a few hundred at most."""
_MAX_SCANS: Final = 200
"""Largest number of passes over the pixels; a progressive file has about ten."""
_MAX_SCANNED: Final = 32 * 64 * 1024 * 1024
"""Largest number of pixels over all passes: seconds of work for the largest accepted image."""


class Structure(NamedTuple):
    """The frame header of a file, and its scans in their order."""

    frame: Frame
    scans: tuple[Scan, ...]


def read_header(data: bytes) -> Header:
    """Walk over the segments of the file's own JPEG, from its start to its end.

    Thumbnails, comments, and a second JPEG after a truncated one contain end markers, too; those do
    not count.
    """
    at, restart_interval = 2, 0
    frame: Frame | None = None
    scans: list[Scan] = []
    for _ in range(_MAX_SEGMENTS):
        padding = _PADDING.match(data, at)
        if padding is None or padding.end() == len(data):
            if frame is None and at < len(data):
                raise FormatError("not-an-image", "is not a JPEG image: it has no frame header")
            raise EOFError
        code, at = data[padding.end()], padding.end() + 1
        if code == _END and frame is not None:
            require_alone(data, at)
            structure = Structure(frame, tuple(scans))
            return Header(frame.height, frame.width, lossy=True, details=structure)
        if code in _WITHOUT_LENGTH:
            raise EOFError
        (length,) = struct.unpack_from(">H", data, at)
        if at + length > len(data):
            raise EOFError
        segment = data[at + 2 : at + length]
        if code in _FRAMES or code in _FOREIGN_FRAMES:
            if frame is not None:
                raise FormatError("corrupt", "has two frame headers")
            if not segment:
                raise FormatError("corrupt", "has a damaged frame header")
            _require_readable(code, segment[0])
            frame = read_frame(code, segment)
            if not frame.height:
                raise FormatError(
                    "unsupported", "is a JPEG that states its height behind its pixels",
                    "convert it to PNG",
                )  # fmt: skip
        elif code == _RESTART_INTERVAL:
            (restart_interval,) = struct.unpack_from(">H", segment)
        elif code == _APP2 and segment.startswith(b"MPF\0") and frame is None:
            _require_one_picture(segment[4:])
        if code == _SCAN:
            if frame is None:
                raise EOFError
            scans.append(read_scan(data, at, length, frame, restart_interval))
            at = scans[-1].end
            if len(scans) > _MAX_SCANS or len(scans) * frame.height * frame.width > _MAX_SCANNED:
                raise FormatError("corrupt", f"asks for {len(scans)} passes over its pixels")
        else:
            at += length
    raise FormatError("corrupt", f"has more than {_MAX_SEGMENTS} segments")


def decode(data: bytes, header: Header) -> Samples:
    """Decode to luminance, uint8 [H, W]; a file that lacks pixels is refused."""
    frame, scans = header.details
    require_all_scans(frame, scans)
    for scan in scans:
        require_restarts(data, frame, scan)
    grey = require_shape(decode_grey(data), header)
    require_all_pixels(data, frame, scans, grey)
    return grey


def decode_labels(data: bytes, header: Header) -> Samples:
    """Decode to luminance, as :func:`decode` does."""
    return decode(data, header)


def decode_rgb(data: bytes, header: Header) -> Samples:
    """Decode to RGB, uint8 [H, W, 3]; a file that lacks pixels is refused."""
    decode(data, header)
    return require_shape(decode_colour(data), header)


def _require_readable(frame: int, precision: int) -> None:
    variant = _FOREIGN_FRAMES.get(frame)
    if variant is None and precision != 8:
        variant = f"{precision}-bit"
    if variant is not None:
        raise FormatError(
            "unsupported", f"is a {variant} JPEG", "convert it to PNG, or to 8-bit baseline JPEG"
        )


def _require_one_picture(index: bytes) -> None:
    """Refuse a multi-picture file (CIPA DC-007), unless its other pictures are previews.

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
