"""WebP files with one image, lossy or lossless, by OpenCV."""

from __future__ import annotations

import struct
from typing import Final

from tinyunet_deploy.data.formats.following import require_alone
from tinyunet_deploy.data.formats.header import FormatError, Header, Samples, several_images
from tinyunet_deploy.data.formats.opencv import decode_grey, decode_unchanged, require_shape

__all__ = ["SIGNATURE", "decode", "decode_labels", "read_header"]

SIGNATURE: Final = b"RIFF"
"""Followed by the file's size and ``WEBP``."""
_MAX_CHUNKS: Final = 10_000
_ANIMATED: Final = 0x02
_LOSSLESS_SIGNATURE: Final = 0x2F
_SIDE_BITS: Final = 14
"""Bits of a width or height."""


def read_header(data: bytes) -> Header:
    """Read the size of the image from its first chunk, and walk over all chunks."""
    end = 8 + struct.unpack_from("<I", data, 4)[0]
    if end > len(data):
        raise EOFError
    size: tuple[int, int] | None = None
    animated, lossy, stills, frames, at = False, False, 0, 0, 12
    for _ in range(_MAX_CHUNKS):
        if at >= end:
            break
        name, length = struct.unpack_from("<4sI", data, at)
        if at + 8 + length > end:
            raise EOFError
        if name == b"VP8X":
            flags, *sides = struct.unpack_from("<B3xHBHB", data, at + 8)
            size = size or (sides[2] + (sides[3] << 16) + 1, sides[0] + (sides[1] << 16) + 1)
            animated = bool(flags & _ANIMATED)
        elif name == b"VP8 ":
            lossy, stills = True, stills + 1
            width, height = struct.unpack_from("<HH", data, at + 14)
            size = size or (height % (1 << _SIDE_BITS), width % (1 << _SIDE_BITS))
        elif name == b"VP8L":
            signature, sides_bits = struct.unpack_from("<BI", data, at + 8)
            if signature != _LOSSLESS_SIGNATURE:
                raise FormatError("corrupt", "has a damaged header")
            stills += 1
            width, height = sides_bits, sides_bits >> _SIDE_BITS
            size = size or (height % (1 << _SIDE_BITS) + 1, width % (1 << _SIDE_BITS) + 1)
        elif name == b"ANMF":
            frames += 1
        at += 8 + length + length % 2
    else:
        raise FormatError("corrupt", f"has more than {_MAX_CHUNKS} chunks")
    if at != end:
        raise FormatError("corrupt", "has chunks that do not fill it")
    hint = "save each frame of the animation as a file of its own"
    if frames + stills > 1 or frames == 1:
        raise several_images(frames + stills, hint)
    if size is None:
        raise EOFError
    if not stills:
        raise FormatError("corrupt", "contains no image")
    if animated:
        raise FormatError("corrupt", "is an animation without frames")
    require_alone(data, end)
    return Header(*size, lossy=lossy, details=end)


def decode(data: bytes, header: Header) -> Samples:
    """Decode to luminance, uint8 [H, W]."""
    return require_shape(decode_grey(data[: header.details]), header)


def decode_labels(data: bytes, header: Header) -> Samples:
    """Decode to the stored channels, uint8 [H, W, C]."""
    return require_shape(decode_unchanged(data[: header.details]), header)
