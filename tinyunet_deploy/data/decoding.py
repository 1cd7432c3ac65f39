"""Decode image files to grey values: the one decoder of training, inference and evaluation."""

from __future__ import annotations

import errno
import os
import struct
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np

from tinyunet_deploy.contract import Image
from tinyunet_deploy.data.bit_depth import (
    OnShallow,
    depth_of,
    luminance,
    require_depth,
    shallow_value,
    to_8_bits,
)
from tinyunet_deploy.data.formats import bmp, jpeg, png, pnm, tiff, webp
from tinyunet_deploy.data.formats.foreign import describe_foreign
from tinyunet_deploy.data.formats.header import Format, FormatError, Header, Samples
from tinyunet_deploy.errors import DataError, ImageError
from tinyunet_deploy.files import read_regular

__all__ = [
    "IMAGE_SUFFIXES",
    "MAX_BYTES",
    "MAX_PIXELS",
    "Labels",
    "decode_image",
    "decode_labels",
    "image_size",
    "read_bytes",
    "read_image",
    "require_content",
    "stored_bits",
]

IMAGE_SUFFIXES: Final = frozenset(
    {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".pgm", ".ppm", ".pnm", ".pbm"}
)
"""Lower-case suffixes of the files that count as images in a folder."""
MAX_PIXELS: Final = 64 * 1024 * 1024
"""Largest accepted image, height x width: a small file can decode to an enormous image."""
MAX_BYTES: Final = 512 * 1024 * 1024
"""Largest accepted image file."""
_FORMATS: Final[tuple[tuple[bytes, Format], ...]] = (
    (png.SIGNATURE, png),
    (jpeg.SIGNATURE, jpeg),
    (bmp.SIGNATURE, bmp),
    *((signature, tiff) for signature in tiff.SIGNATURES),
    (webp.SIGNATURE, webp),
    *((signature, pnm) for signature in pnm.SIGNATURES),
)


def read_image(
    path: str | os.PathLike[str],
    *,
    max_pixels: int = MAX_PIXELS,
    size: tuple[int, int] | None = None,
    bits: int | None = None,
    on_shallow: OnShallow | None = None,
) -> Image:
    """Read the grey values of one image file.

    Colour and palette become luminance; an EXIF rotation is ignored because masks are drawn on
    stored pixels. Values of 16-bit files become 8-bit grey values by their depth in bits: ``bits``,
    else what the file states (PNG sBIT, TIFF MaxSampleValue, the largest value of a PGM). With a
    depth d < 16, v becomes v * 255 / (2^d - 1), rounded; without one or with 16, v // 256 (RGB
    TIFF: v / 257, rounded).

    Args:
        path: the image file.
        max_pixels: largest accepted height x width.
        size: the (height, width) that the model takes. Another size is refused before it costs
            the memory of decoding it, and so are files far larger than such an image needs.
        bits: depth of the camera whose values 16-bit files contain, 8..16. Files of up to 8 bits
            are read as they are.
        on_shallow: called if a 16-bit file without a depth has hardly any value above 16383, or one
            that states d bits in sBIT none of 2^d or above, though it is read as 16 bits.

    Returns:
        uint8 [H, W].

    Raises:
        ImageError: ``missing``, ``unreadable``, ``not-a-file``, ``empty``, ``not-an-image``,
            ``unsupported``, ``several-images``, ``truncated``, ``too-large``, ``wrong-size``,
            ``bit-depth`` or ``corrupt``.
    """
    path = Path(path)
    data = read_bytes(path, size=size)
    return decode_image(
        data, path, max_pixels=max_pixels, size=size, bits=bits, on_shallow=on_shallow
    )


def read_bytes(path: Path, *, size: tuple[int, int] | None = None) -> bytes:
    """Read the bytes of an image file, for :func:`decode_image`.

    Raises:
        ImageError: ``missing``, ``unreadable``, ``not-a-file`` or ``too-large``.
    """
    limit = MAX_BYTES
    if size is not None:
        limit = min(MAX_BYTES, 16 * size[0] * size[1] + (16 << 20))
    try:
        return read_regular(path, limit)
    except FileNotFoundError as error:
        raise ImageError(path, "missing", "no longer exists") from error
    except OSError as error:
        if error.errno == errno.EISDIR and not os.access(path, os.R_OK):
            raise ImageError(path, "unreadable", "is a folder that cannot be listed") from error
        if error.errno == errno.EISDIR:
            raise ImageError(path, "not-a-file", "is a folder") from error
        if error.errno in (errno.EINVAL, errno.ENXIO, errno.ENODEV):
            raise ImageError(path, "not-a-file", "is not a regular file") from error
        if error.errno == errno.EAGAIN:
            raise ImageError(path, "changing", "grows while it is read") from error
        if error.errno == errno.EFBIG:
            raise ImageError(path, "too-large", f"is larger than {limit >> 20} MiB") from error
        raise ImageError(path, "unreadable", str(error.strerror or error)) from error


def decode_image(
    data: bytes,
    where: Path,
    *,
    max_pixels: int = MAX_PIXELS,
    size: tuple[int, int] | None = None,
    bits: int | None = None,
    on_shallow: OnShallow | None = None,
) -> Image:
    """Decode the bytes of an image file as :func:`read_image` does; ``where`` names it in errors.

    Returns:
        uint8 [H, W].

    Raises:
        ImageError: as :func:`read_image`.
    """
    try:
        file_format, header = _read_header(data)
        _require_size(header, max_pixels, size)
        samples = file_format.decode(data, header)
        if header.bits < 16:
            return luminance(samples.astype(np.uint8, copy=False))
        if header.white_is_zero:  # which value is black depends on the depth of stored values
            samples = np.iinfo(np.uint16).max - samples
        depth = depth_of(header, samples, bits)
        if depth is not None and header.colour:
            require_depth(file_format.decode_labels(data, header)[..., :3], depth)
        largest = require_depth(samples, depth)
    except (FormatError, struct.error, EOFError) as error:
        raise _image_error(where, error) from error
    if on_shallow is not None and depth is None and bits is None:
        value = shallow_value(header, samples, largest)
        if value is not None:
            on_shallow(where, value)
    grey = to_8_bits(samples, depth)
    return 255 - grey if header.white_is_zero else grey


def image_size(data: bytes, where: Path) -> tuple[int, int]:
    """Return height and width from the header of an image file; ``where`` names it in errors.

    Raises:
        ImageError: as :func:`read_image`, without the errors of pixels.
    """
    try:
        header = _read_header(data)[1]
        _require_size(header, MAX_PIXELS, None)
    except (FormatError, struct.error, EOFError) as error:
        raise _image_error(where, error) from error
    return header.height, header.width


def stored_bits(data: bytes) -> int:
    """Return the bits of a sample, 1..16, in the bytes of an image file that can be decoded."""
    return _read_header(data)[1].bits


def require_content(image: Image, where: Path) -> None:
    """Refuse an image of one grey value, on which nothing can be compared, measured or calibrated.

    Raises:
        DataError: every pixel has the same value.
    """
    if image.min() == image.max():
        hint = "use images with content"
        raise DataError(where, f"has the grey value {image.min()} throughout", hint)


class Labels(NamedTuple):
    """The stored values of a mask file."""

    values: Samples
    """Palette indices or grey [H, W], or [H, W, C] of grey and alpha, RGB, or RGB and alpha."""
    displayed: Samples | None
    """Displayed grey [H, W] or RGB [H, W, 3], if it differs from ``values``, as with a palette."""
    lossy: bool
    """True if the compression has changed values."""


def decode_labels(data: bytes, where: Path, *, max_pixels: int = MAX_PIXELS) -> Labels:
    """Decode the bytes of a mask file to its stored values, which may differ from its appearance.

    Raises:
        ImageError: as :func:`read_image`.
    """
    try:
        file_format, header = _read_header(data)
        _require_size(header, max_pixels, None)
        values = file_format.decode_labels(data, header)
        displayed = file_format.decode(data, header) if header.indirect else None
    except (FormatError, struct.error, EOFError) as error:
        raise _image_error(where, error) from error
    return Labels(values, displayed, header.lossy)


def _read_header(data: bytes) -> tuple[Format, Header]:
    if not data:
        raise FormatError("empty", "is an empty file")
    for signature, file_format in _FORMATS:
        if data.startswith(signature) and (file_format is not webp or data[8:12] == b"WEBP"):
            return file_format, file_format.read_header(data)
    raise describe_foreign(data) or FormatError(
        "not-an-image", "is not a PNG, JPEG, BMP, TIFF, WebP or PNM image"
    )


def _require_size(header: Header, max_pixels: int, size: tuple[int, int] | None) -> None:
    height, width = header.height, header.width
    if height * width > max_pixels:
        raise FormatError(
            "too-large", f"has {width}x{height} pixels, more than {max_pixels} in all"
        )
    if size is not None and (height, width) != size:
        raise FormatError(
            "wrong-size", f"has {width}x{height} pixels, but the model takes {size[1]}x{size[0]}"
        )
    if height * width == 0:
        raise FormatError("corrupt", f"has {width}x{height} pixels")


def _image_error(where: Path, error: FormatError | struct.error | EOFError) -> ImageError:
    if isinstance(error, FormatError):
        return ImageError(where, error.reason, error.what, error.hint)
    return ImageError(where, "truncated", "ends before the image does")
