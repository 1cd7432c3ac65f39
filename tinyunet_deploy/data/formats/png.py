"""PNG files, by OpenCV; plain grey ones by :mod:`.png_rows`, palettes of masks by Pillow."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Final, NamedTuple

import numpy as np

from tinyunet_deploy.data.formats.following import require_alone
from tinyunet_deploy.data.formats.header import (
    FormatError,
    Header,
    Samples,
    require_colours,
    several_images,
)
from tinyunet_deploy.data.formats.opencv import decode_grey, decode_unchanged, require_shape
from tinyunet_deploy.data.formats.png_rows import Chunk, decode_rows, has_more_than

__all__ = ["SIGNATURE", "decode", "decode_labels", "read_header"]

SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
_MAX_CHUNKS: Final = 200_000
"""Largest number of chunks: libpng writes one for each 8 KiB of compressed data."""
_PALETTE: Final = 3
"""Colour type of an image of palette indices."""
_COLOUR: Final = (2, 6)
"""Colour types with red, green and blue samples: without and with transparency."""
_CHANNELS: Final = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
"""Colour type -> samples of a pixel."""
_WHOLE: Final = ((0, 0, 1, 1),)
_ADAM7: Final = (
    (0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2),
    (0, 1, 1, 2),
)  # fmt: skip
"""Passes over the pixels: first column and row, then steps across and down."""
_CHANNELS_OF_SBIT: Final = {0: 1, 2: 3, 4: 1, 6: 3}
"""Colour type that may have 16 bits -> entries of sBIT that are not about transparency."""


class _Details(NamedTuple):
    colour_type: int
    colours: int
    """Entries of the palette."""
    interlaced: bool
    chunks: list[Chunk]


def read_header(data: bytes) -> Header:
    """Read the header and walk over all chunks to the end of the image.

    OpenCV takes up to 2 GiB of memory for a chunk before it finds that the file is shorter.
    """
    name, width, height, bits, colour_type = struct.unpack_from(">4sIIBB", data, 12)
    if name != b"IHDR":
        raise FormatError("corrupt", "does not begin with an IHDR chunk")
    channels = _CHANNELS_OF_SBIT.get(colour_type, 0)
    depth, frames, at = None, 1, len(SIGNATURE)
    animated, controls, stills = False, 0, 0
    colours = 0
    chunks = []
    for _ in range(_MAX_CHUNKS):
        length, name = struct.unpack_from(">I4s", data, at)
        chunks.append(Chunk(name, at + 8, length))
        if name == b"acTL":
            (frames,) = struct.unpack_from(">I", data, at + 8)
            animated = True
        elif name == b"fcTL":
            controls += 1
        elif name == b"IDAT" and not controls:
            stills = 1  # the image is no frame of the animation
        elif name == b"PLTE":
            colours = length // 3
        elif name == b"sBIT" and bits == 16 and length >= channels:
            depth = max(data[at + 8 : at + 8 + channels], default=None)
        if name != b"IDAT":  # decoding does that for the pixels; libpng lets others pass
            _require_checksum(data, at, length)
        at += 12 + length
        if name == b"IEND":
            break
    else:
        raise FormatError("corrupt", f"has more than {_MAX_CHUNKS} chunks")
    if at > len(data):
        raise EOFError
    if animated:
        frames = max(frames, controls + stills)
    require_alone(data, at)
    if frames > 1:
        raise several_images(frames, "save each frame of the animation as a file of its own")
    if depth is not None and not 8 < depth <= 16:
        depth = None
    return Header(
        height,
        width,
        bits,
        depth,
        left_justified=True,
        colour=colour_type in _COLOUR,
        indirect=colour_type == _PALETTE,
        details=_Details(colour_type, colours, bool(data[28]), chunks),
    )


def _require_checksum(data: bytes, at: int, length: int) -> None:
    (checksum,) = struct.unpack_from(">I", data, at + 8 + length)
    if zlib.crc32(data[at + 4 : at + 8 + length]) != checksum:
        raise FormatError("corrupt", "has a chunk that is damaged")


def decode(data: bytes, header: Header) -> Samples:
    """Decode to luminance, [H, W]; PNG is lossless, so grey values are exact."""
    details: _Details = header.details
    values = decode_rows(data, details.chunks)
    if values is not None:
        return values
    _require_no_more_rows(data, header)
    if details.colour_type == _PALETTE and details.colours < 1 << header.bits:
        _indices(data, header)
    return require_shape(decode_grey(data, deep=header.bits == 16), header)


def decode_labels(data: bytes, header: Header) -> Samples:
    """Decode to the stored values: palette indices [H, W], else the channels [H, W(, C)]."""
    _require_no_more_rows(data, header)
    samples = require_shape(decode_unchanged(data), header)
    return samples if header.details.colour_type != _PALETTE else _indices(data, header)


def _require_no_more_rows(data: bytes, header: Header) -> None:
    """Refuse pixels that are more than the header says; libpng passes over the surplus."""
    channels = _CHANNELS.get(header.details.colour_type, 0)
    size = 0
    for left, top, across, down in _ADAM7 if header.details.interlaced else _WHOLE:
        width = (header.width - left + across - 1) // across
        height = (header.height - top + down - 1) // down
        if width > 0 and height > 0:
            size += height * (1 + (width * channels * header.bits + 7) // 8)
    if has_more_than(size, data, header.details.chunks):
        raise FormatError(
            "corrupt", "has more pixels than its header states", "save the image again"
        )


def _indices(data: bytes, header: Header) -> Samples:
    """Return palette indices, uint8 [H, W]; refuse one without a colour, which would be black."""
    from PIL.PngImagePlugin import PngImageFile

    try:
        with PngImageFile(io.BytesIO(data)) as picture:
            indices = np.asarray(picture)
    except (OSError, ValueError, SyntaxError) as error:
        raise FormatError("corrupt", "cannot be decoded") from error
    require_colours(indices, header.details.colours)
    return require_shape(indices, header)
