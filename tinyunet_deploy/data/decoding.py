"""Image files to grey values: the one decoder of training, inference and evaluation."""

from __future__ import annotations

import errno
import os
import re
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Literal

import cv2
import numpy as np

from tinyunet_deploy.contract import Image
from tinyunet_deploy.errors import ImageError
from tinyunet_deploy.files import read_regular

IMAGE_SUFFIXES: Final = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff"})
"""Lower-case suffixes of the files that count as images in a folder."""
MAX_PIXELS: Final = 64 * 1024 * 1024
"""Largest accepted image, height x width: a small file can hold an enormous one."""
MAX_BYTES: Final = 512 * 1024 * 1024
MAX_SCANS: Final = 200
"""Most passes over the pixels that a JPEG may ask for; a progressive one has about ten."""

_PNG: Final = b"\x89PNG\r\n\x1a\n"
_JPEG_END: Final = 0xD9
_TIFF: Final = (b"II*\0", b"MM\0*")
_TIFF_WIDTH: Final = 256
_TIFF_HEIGHT: Final = 257
_TIFF_ORIENTATION: Final = 274
_TIFF_EXTRA_SAMPLES: Final = 338
_JPEG: Final = b"\xff\xd8\xff"
_JPEG_FRAMES: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_JPEG_SEQUENTIAL: Final = frozenset({0xC0, 0xC1})
_JPEG_SCAN: Final = 0xDA
_JPEG_MARKER: Final = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
"""The end of a scan: neither a stuffed byte of it nor a restart."""
_FILLING: Final = b"\x55\x2a\x91\x6c" * 32
"""What a JPEG decoder reads as pixels only if those that it should have read are missing.

Without it a decoder makes them up, and an end marker behind half a JPEG hides that.
"""


def read_image(
    path: Path, *, max_pixels: int = MAX_PIXELS, size: tuple[int, int] | None = None
) -> Image:
    """Grey values of one image file.

    16-bit images are scaled to 8, colour and palette become luminance, and an EXIF rotation is
    ignored because masks are drawn on stored pixels.

    Args:
        size: the (height, width) that the model takes. Another size is an error before it costs
            the memory of decoding it, and so are files far larger than such an image needs.

    Returns:
        uint8 [H, W].

    Raises:
        ImageError: ``missing``, ``unreadable``, ``not-a-file``, ``empty``, ``not-an-image``,
            ``truncated``, ``too-large``, ``wrong-size`` or ``corrupt``.
    """
    return decode_image(read_bytes(path, size=size), path, max_pixels=max_pixels, size=size)


def read_bytes(path: Path, *, size: tuple[int, int] | None = None) -> bytes:
    """The bytes of an image file, which :func:`decode_image` takes.

    Raises:
        ImageError: ``missing``, ``unreadable``, ``not-a-file`` or ``too-large``.
    """
    limit = MAX_BYTES
    if size is not None:
        limit = min(MAX_BYTES, 16 * size[0] * size[1] + (16 << 20))
    try:
        return read_regular(path, limit)
    except FileNotFoundError as error:
        raise ImageError(path, "missing", "is not there any more") from error
    except OSError as error:
        if error.errno == errno.EISDIR and not os.access(path, os.R_OK):
            raise ImageError(path, "unreadable", "is a folder that may not be listed") from error
        if error.errno == errno.EISDIR:
            raise ImageError(path, "not-a-file", "is a folder") from error
        if error.errno in (errno.EINVAL, errno.ENXIO, errno.ENODEV):
            raise ImageError(path, "not-a-file", "is not a regular file") from error
        if error.errno == errno.EFBIG:
            raise ImageError(path, "too-large", f"is larger than {limit >> 20} MiB") from error
        raise ImageError(path, "unreadable", str(error.strerror or error)) from error


def decode_image(
    data: bytes,
    where: Path,
    *,
    max_pixels: int = MAX_PIXELS,
    size: tuple[int, int] | None = None,
    larger: bool = False,
) -> Image:
    """Grey values of the bytes of an image file; ``where`` names them in errors.

    Args:
        size: as for :func:`read_image`.
        larger: take what is larger than ``size``, too.

    Returns:
        uint8 [H, W].

    Raises:
        ImageError: as :func:`read_image`.
    """
    if not data:
        raise ImageError(where, "empty", "is an empty file")
    try:
        stored = height, width = _size_in_header(data)
        _require_end(data)
    except (struct.error, EOFError) as error:
        raise ImageError(where, "truncated", "ends before the image does") from error
    except ValueError as error:
        raise ImageError(where, "not-an-image", "is no PNG, JPEG, BMP or TIFF image") from error
    except OverflowError as error:
        raise ImageError(where, "corrupt", str(error)) from error
    if height * width > max_pixels:
        raise ImageError(
            where, "too-large", f"has {width}x{height} pixels, more than {max_pixels} in all"
        )
    if size is not None and stored != size:
        covers = height >= size[0] and width >= size[1]
        if not (larger and covers):
            least = " at least" if larger else ""
            hint = ": try --tile" if covers else ""
            raise ImageError(
                where,
                "wrong-size",
                f"has {width}x{height} pixels, the model takes {size[1]}x{size[0]}{least}{hint}",
            )
    if data.startswith(_TIFF):
        data = _plain_tiff(data)
    image = _decoded(data)
    if image is None or image.shape != stored:
        raise ImageError(where, "corrupt", "cannot be decoded")
    if data.startswith(_JPEG) and _is_filled_up(data, image):
        raise ImageError(where, "truncated", "ends before the image does")
    return image.astype(np.uint8, copy=False)


def _decoded(data: bytes) -> Image | None:
    flags = cv2.IMREAD_GRAYSCALE | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        return cv2.imdecode(np.frombuffer(data, np.uint8), flags)  # type: ignore[return-value]
    except cv2.error:
        return None


def _size_in_header(data: bytes) -> tuple[int, int]:
    """(height, width) as the header claims, without decoding.

    Raises:
        struct.error: the header is cut off.
        ValueError: this is no image.
    """
    if data.startswith(_PNG):
        width, height = struct.unpack_from(">II", data, 16)
        return height, width
    if data.startswith(_JPEG):
        height, width = struct.unpack_from(">HH", data, _jpeg_frame(data) + 5)
        return height, width
    if data.startswith(b"BM"):
        width, height = struct.unpack_from("<ii", data, 18)
        return abs(height), abs(width)
    if data.startswith(_TIFF):
        fields = [(tag, value) for tag, _at, value in _tiff_fields(data)]
        height, width = (
            max((value for tag, value in fields if tag == wanted), default=0)
            for wanted in (_TIFF_HEIGHT, _TIFF_WIDTH)
        )
        return height, width
    raise ValueError("no known signature")


def _require_end(data: bytes) -> None:
    """Find the end of a PNG or JPEG, after which other data may follow.

    OpenCV 4 takes half a JPEG without a word, and OpenCV 5 takes up to 2 GiB of memory for a PNG
    chunk before it finds that the file is shorter.

    Raises:
        struct.error, EOFError: there is none.
        OverflowError: a JPEG that is made to be slow.
    """
    if data.startswith(_PNG):
        at, name = len(_PNG), b""
        while name != b"IEND":
            length, name = struct.unpack_from(">I4s", data, at)
            at += 12 + length
        if at > len(data):
            raise EOFError
    if data.startswith(_JPEG):
        _jpeg_scan_ends(data)


def _is_filled_up(data: bytes, image: Image) -> bool:
    """Whether a JPEG of one pass lacks data, so that the decoder made up a part of ``image``."""
    ends = _jpeg_scan_ends(data)
    if len(ends) != 1 or data[_jpeg_frame(data) + 1] not in _JPEG_SEQUENTIAL:
        return False
    other = _decoded(data[: ends[0]] + _FILLING)
    return other is None or not np.array_equal(image, other)


def _jpeg_scan_ends(data: bytes) -> list[int]:
    """Where scans end, found by a walk from the frame to the end of this very JPEG.

    Thumbnails, comments, and another JPEG behind half a one have ends of their own.
    """
    at, ends = _jpeg_frame(data), list[int]()
    while True:
        marker, code = struct.unpack_from(">BB", data, at)
        if (marker, code) == (0xFF, _JPEG_END):
            return ends
        if marker != 0xFF or code == 0xD8:
            raise EOFError
        if code == 0xFF:
            at += 1
            continue
        at += 2 + int.from_bytes(data[at + 2 : at + 4])
        if code == _JPEG_SCAN:
            found = _JPEG_MARKER.search(data, at)
            if found is None:
                raise EOFError
            at = found.start()
            ends.append(at)
            if len(ends) > MAX_SCANS:
                raise OverflowError(f"asks for more than {MAX_SCANS} passes over its pixels")


def _jpeg_frame(data: bytes) -> int:
    """Where the frame header is, which has the size."""
    at = 2
    while True:
        marker, code, length = struct.unpack_from(">BBH", data, at)
        if marker != 0xFF:
            raise ValueError("no marker where one must be")
        if code in _JPEG_FRAMES:
            return at
        at += 1 if code == 0xFF else 2 + length


def _tiff_fields(data: bytes) -> Iterator[tuple[int, int, int]]:
    """(tag, place of the value, value) of the one-number fields of the first image."""
    order: Literal["<", ">"] = "<" if data[:2] == b"II" else ">"
    (at,) = struct.unpack_from(order + "I", data, 4)
    (entries,) = struct.unpack_from(order + "H", data, at)
    for entry in range(at + 2, at + 2 + 12 * entries, 12):
        tag, kind, _count = struct.unpack_from(order + "HHI", data, entry)
        (value,) = struct.unpack_from(order + ("H" if kind == 3 else "I"), data, entry + 8)
        yield tag, entry + 8, value


def _plain_tiff(data: bytes) -> bytes:
    """The same file without its rotation, which OpenCV would follow in spite of its flag.

    Its transparency is said to be multiplied in already, or libtiff would darken the colours.
    """
    for tag, at, value in list(_tiff_fields(data)):
        if tag in (_TIFF_ORIENTATION, _TIFF_EXTRA_SAMPLES) and value != 1:
            one = struct.pack(("<" if data[:2] == b"II" else ">") + "H", 1)
            data = data[:at] + one + data[at + 2 :]
    return data
