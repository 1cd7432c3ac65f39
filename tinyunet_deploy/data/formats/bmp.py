"""BMP files of Windows and OS/2, by OpenCV; palettes of masks by Pillow."""

from __future__ import annotations

import io
import struct
from typing import Final, NamedTuple

import numpy as np

from tinyunet_deploy.data.formats.following import require_alone
from tinyunet_deploy.data.formats.header import (
    FormatError,
    Header,
    Samples,
    require_colours,
)
from tinyunet_deploy.data.formats.opencv import decode_grey, decode_unchanged, require_shape

__all__ = ["SIGNATURE", "decode", "decode_labels", "read_header"]

SIGNATURE: Final = b"BM"
_OS2_HEADER: Final = 12
_WINDOWS_HEADERS: Final = (40, 52, 56, 64, 108, 124)
"""Sizes of the known headers, which begin alike; 64 is that of OS/2 2."""
_FULL_HEADER: Final = 40
_PLAIN: Final = (0, 3)
"""Codes of uncompressed pixels; 3 gives masks of the colours."""
_MASKED: Final = 3
_RUN_LENGTH: Final = (1, 2)
_MASKS: Final = {
    16: ((0x7C00, 0x3E0, 0x1F), (0xF800, 0x7E0, 0x1F)),
    32: ((0xFF0000, 0xFF00, 0xFF),),
}
"""Bits of a pixel -> masks of red, green and blue that OpenCV reads right with any header."""
_BYTES: Final = frozenset({0xFF, 0xFF00, 0xFF0000, 0xFF000000})
"""Masks of whole bytes; OpenCV reads them in any order if the header has room for a fourth mask."""
_HEADER_WITH_ALPHA: Final = 56
_HEADER_WITH_PROFILE: Final = 124
_END_OF_LINE: Final = 0
_DELTA: Final = 2
"""Second byte of an escape in run-length pixels; a larger one is a number of literal pixels."""
_FOREIGN: Final = {4: "JPEG", 5: "PNG", 6: "alpha masks", 11: "CMYK", 12: "CMYK", 13: "CMYK"}


class _Details(NamedTuple):
    bits: int
    """Bits of a pixel."""
    compression: int
    first: int
    """Position of the pixels, behind a full header."""
    top_down: bool


def read_header(data: bytes) -> Header:
    """Read the header, and require the uncompressed pixels to be there."""
    data = _with_full_header(data)
    first, header_size = struct.unpack_from("<II", data, 10)
    if header_size == _OS2_HEADER:
        width, height, planes, bits = struct.unpack_from("<HHHH", data, 18)
        compression = 0
    elif header_size in _WINDOWS_HEADERS:
        width, height, planes, bits, compression = struct.unpack_from("<iiHHI", data, 18)
    else:
        raise FormatError("not-an-image", "is not a BMP image: its header size is unknown")
    if width < 0 or planes != 1:
        raise FormatError("corrupt", "has a damaged header")
    if compression in _FOREIGN or (header_size == 64 and compression not in (0, *_RUN_LENGTH)):
        name = _FOREIGN.get(compression, "Huffman or 24-bit run-length")
        raise FormatError("unsupported", f"is a BMP with {name} compression", "convert it to PNG")
    if bits in (2, 64):
        raise FormatError("unsupported", f"is a BMP of {bits} bits a pixel", "convert it to PNG")
    if bits not in (1, 4, 8, 16, 24, 32):
        raise FormatError("corrupt", "has a damaged header")
    if first < 14 + header_size + _table_size(data, header_size, bits, compression):
        raise FormatError("corrupt", "has pixels where its palette must be")
    if compression == _MASKED:
        _require_masks(data, header_size, bits)
    if compression in _PLAIN:
        row = (bits * width + 31) // 32 * 4
        stored = first + row * abs(height)
        if stored > len(data) and abs(height) * width <= len(data) * 8:
            raise EOFError
        require_alone(data, stored)
        if 0 < row <= min(len(data), _stated_end(data, first, header_size)) - stored:
            raise FormatError(
                "corrupt", "has more rows than its header states", "save the image again"
            )
    elif compression not in _RUN_LENGTH:
        raise FormatError("corrupt", "has a damaged header")
    details = _Details(bits, compression, first, top_down=height < 0)
    return Header(abs(height), width, bits=min(bits, 8), indirect=bits <= 8, details=details)


def _stated_end(data: bytes, first: int, header_size: int) -> int:
    """Return where the pixels end by the size that the file gives for them, else for itself."""
    if header_size == _OS2_HEADER:
        return int.from_bytes(data[2:6], "little")
    size = int.from_bytes(data[34:38], "little")
    if size:
        return first + size
    profile = data[130:134] if header_size == _HEADER_WITH_PROFILE else b""
    return int.from_bytes(data[2:6], "little") - int.from_bytes(profile, "little")


def _require_masks(data: bytes, header_size: int, bits: int) -> None:
    """Refuse masks of the colours that OpenCV would take for others."""
    masks = struct.unpack_from("<III", data, 54)
    if masks in _MASKS.get(bits, ()):
        return
    whole_bytes = _BYTES.issuperset(masks) and len(set(masks)) == len(masks)
    if bits != 32 or header_size < _HEADER_WITH_ALPHA or not whole_bytes:
        red, green, blue = masks
        raise FormatError(
            "unsupported", f"is a BMP with the colour masks {red:#x}, {green:#x} and {blue:#x}",
            "convert it to PNG",
        )  # fmt: skip


def _table_size(data: bytes, header_size: int, bits: int, compression: int) -> int:
    """Return the number of bytes between header and pixels that the palette or the masks need."""
    if bits > 8:
        return 12 if header_size == 40 and compression == 3 else 0
    if header_size == _OS2_HEADER:
        return 3 << bits
    colours = _colours(data, bits)
    if colours > 1 << bits:
        raise FormatError("corrupt", f"has a palette of {colours} colours")
    return 4 * colours


def _colours(data: bytes, bits: int) -> int:
    """Return the entries of the palette that the header states."""
    (header_size,) = struct.unpack_from("<I", data, 14)
    colours = 0 if header_size == _OS2_HEADER else struct.unpack_from("<I", data, 46)[0]
    return colours or 1 << bits


def _with_full_header(data: bytes) -> bytes:
    """Return the file with a header of 40 bytes if it has a short one of OS/2 2.

    Such a header is that of Windows, or that of 64 bytes, cut anywhere after its sixteenth byte;
    missing fields are zero.
    """
    first, size = struct.unpack_from("<II", data, 10)
    if size in (_OS2_HEADER, *_WINDOWS_HEADERS) or size % 4 or not 16 <= size < 64:
        return data
    fields = data[18 : 14 + min(size, _FULL_HEADER)].ljust(_FULL_HEADER - 4, b"\0")
    start = struct.pack("<II", first + _FULL_HEADER - size, _FULL_HEADER)
    return data[:10] + start + fields + data[14 + size :]


def decode(data: bytes, header: Header) -> Samples:
    """Decode to luminance, uint8 [H, W]."""
    data = _with_full_header(data)
    details: _Details = header.details
    if details.compression in _RUN_LENGTH:
        _require_runs(data, header)
    if details.bits <= 8 and _colours(data, details.bits) < 1 << details.bits:
        _indices(data, header)
    return require_shape(decode_grey(data), header)


def decode_labels(data: bytes, header: Header) -> Samples:
    """Decode to the stored values, uint8: palette indices [H, W], else channels [H, W, C]."""
    data = _with_full_header(data)
    details: _Details = header.details
    if details.compression in _RUN_LENGTH:
        _require_runs(data, header)
    samples = require_shape(decode_unchanged(data), header)
    if details.bits <= 8:
        return _indices(data, header)
    if details.bits == 32 and samples.shape[2] == 3:
        return _with_alpha(data, header, samples)
    return samples


def _with_alpha(data: bytes, header: Header, colours: Samples) -> Samples:
    """Add the fourth byte of the pixels as alpha [H, W, 4] if it varies: some writers use it."""
    stored = np.frombuffer(data, np.uint8, 4 * header.height * header.width, header.details.first)
    alpha = stored.reshape(header.height, header.width, 4)[..., 3]
    if alpha.min() == alpha.max():
        return colours
    alpha = alpha if header.details.top_down else alpha[::-1]
    return np.concatenate([colours.astype(np.uint8), alpha[..., None]], axis=2)


def _require_runs(data: bytes, header: Header) -> None:
    """Require that the runs fill every pixel exactly; decoders show missing ones as black.

    Raises:
        EOFError: the file ends within the runs.
        FormatError: the runs skip pixels, or go beyond the image.
    """
    details: _Details = header.details
    if (details.compression, details.bits) not in ((1, 8), (2, 4)):
        raise FormatError("corrupt", "has a damaged header")
    a_byte = 8 // details.bits
    at, x, y = details.first, 0, 0
    while (y, x) < (header.height - 1, header.width):
        if at + 2 > len(data):
            raise EOFError
        count, value = data[at], data[at + 1]
        at += 2
        if count:
            x += count
        elif value == _END_OF_LINE and x == header.width:
            x, y = 0, y + 1
        elif value <= _DELTA:
            raise FormatError(
                "corrupt", "has run-length pixels that leave some out", "convert it to PNG"
            )
        else:
            x += value
            at += -(-value // a_byte) + 1 & ~1
        if x > header.width:
            raise FormatError(
                "corrupt", "has run-length pixels that go beyond a row", "convert it to PNG"
            )
    if at > len(data):
        raise EOFError
    if data.startswith(bytes([0, _END_OF_LINE]), at):
        at += 2
    following = data[at : at + 2]
    if len(following) == 2 and (following[0] or following[1] > _DELTA):
        raise FormatError(
            "corrupt", "has more run-length pixels than its header states", "convert it to PNG"
        )


def _indices(data: bytes, header: Header) -> Samples:
    """Return palette indices, uint8 [H, W]; refuse one without a colour, which would be black."""
    from PIL.BmpImagePlugin import BmpImageFile

    # Pillow takes indices into a palette of greys from black for samples of 1 or 8 bits, whatever
    # their size. A first entry with a colour prevents that.
    (header_size,) = struct.unpack_from("<I", data, 14)
    palette = 14 + header_size
    coloured = data[:palette] + b"\1\2\3" + data[palette + 3 :]
    try:
        with BmpImageFile(io.BytesIO(coloured)) as picture:
            indices = np.asarray(picture)
    except (OSError, ValueError, SyntaxError) as error:
        raise FormatError("corrupt", "cannot be decoded") from error
    require_colours(indices, _colours(data, header.details.bits))
    return require_shape(indices, header)
