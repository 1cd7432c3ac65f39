"""PBM, PGM and PPM files, binary and plain (Netpbm formats P1 to P6)."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tinyunet_deploy.data.formats.header import FormatError, Header, Samples, several_images

__all__ = ["SIGNATURES", "decode", "decode_labels", "read_header"]

SIGNATURES: Final = tuple(b"P%d" % kind for kind in range(1, 7))
_NUMBER: Final = re.compile(rb"(?:\s|#[^\r\n]*[\r\n])+([0-9]{1,9})")
"""A number of the header, after white space and comments."""
_CUT_OFF: Final = re.compile(rb"(?:\s|#[^\r\n]*[\r\n])*(?:#[^\r\n]*)?")
_REST_OF_LINE: Final = re.compile(rb"[ \t]*(?:#[^\r\n]*)?\r?\n(?:#[^\r\n]*\r?\n)*")
"""End of a header with CR LF or comments, where the format allows only one character."""
_NEXT: Final = re.compile(rb"\s*(P[1-6])\s")
"""Start of another image after the samples."""
_LINE_ENDS: Final = 5
"""Fewer bytes of white space than this are never taken for samples: two line ends at most."""
_LONGEST_HEADER: Final = 4096
"""Longest header with its comments, bytes."""
_PLAIN_SAMPLES: Final = re.compile(rb"[0-9\s]*")
_LONGEST_PLAIN_SAMPLE: Final = 16
"""Longest text of a sample, bytes: five digits and white space."""
_MOST_COUNTED: Final = 1000
"""Largest number of images that are counted in a file."""


class _Details(NamedTuple):
    kind: int
    """The digit of the signature, 1..6."""
    largest: int
    """The sample value of white; 1 in a bitmap."""
    begin: int
    """Position of the samples."""

    @property
    def channels(self) -> int:
        return 3 if self.kind in (3, 6) else 1


def read_header(data: bytes) -> Header:
    """Read the header; samples of more than 8 bits state their depth by their largest value."""
    header = _header_at(data, 0)
    largest = header.details.largest
    if header.bits == 16 and largest & (largest + 1):
        raise FormatError(
            "unsupported",
            f"gives {largest} as its largest sample value",
            "convert it to PNG, or to a largest value of 255, 1023, 4095, 16383 or 65535",
        )
    header = _without_rest_of_line(data, header)
    count, end = 1, _end_of_samples(header)
    while count < _MOST_COUNTED and end is not None:
        following = _next_header(data, end)
        if following is None:
            break
        count, end = count + 1, _end_of_samples(_header_at(data, following))
    if count > 1:
        many = f"{count} or more" if count == _MOST_COUNTED else count
        raise several_images(many, "save each image as a file of its own, as pamsplit does")
    if end is not None and len(data) > end:
        _require_white_space(data[end:], _row_bytes(header))
    return header


def decode(data: bytes, header: Header) -> Samples:
    """Decode to grey [H, W] or RGB [H, W, 3]; values of up to 8 bits are scaled to 0..255."""
    samples = decode_labels(data, header)
    if header.bits == 16:
        return samples
    largest = header.details.largest
    table = np.minimum((np.arange(256) * 510 + largest) // (2 * largest), 255).astype(np.uint8)
    if header.details.kind in (1, 4):
        table = 255 - table  # in a bitmap, 1 is black
    scaled: Samples = table[samples]
    return scaled


def decode_labels(data: bytes, header: Header) -> Samples:
    """Decode to the stored values, uint8 or uint16: [H, W] or [H, W, 3]."""
    details: _Details = header.details
    count = header.height * header.width * details.channels
    samples: NDArray[Any]
    if details.kind <= 3:
        samples = _plain_samples(data[details.begin :], count, bitmap=details.kind == 1)
    elif details.kind == 4:
        row = (header.width + 7) // 8
        packed = _binary_samples(data, details.begin, row * header.height, "u1")
        bits = np.unpackbits(packed.reshape(header.height, row), axis=1)
        samples = bits[:, : header.width]
    else:
        samples = _binary_samples(data, details.begin, count, ">u2" if header.bits == 16 else "u1")
    if samples.max(initial=0) > details.largest:
        raise FormatError("corrupt", f"has samples above its largest value {details.largest}")
    native = samples.astype(np.uint16 if header.bits == 16 else np.uint8, copy=False)
    shape = (header.height, header.width, details.channels)
    return native.reshape(shape if details.channels > 1 else shape[:2])


def _header_at(data: bytes, begin: int) -> Header:
    kind = data[begin + 1] - ord("0")
    head, at, numbers = data[begin : begin + _LONGEST_HEADER], 2, list[int]()
    while len(numbers) < (2 if kind in (1, 4) else 3):
        match = _NUMBER.match(head, at)
        if match is None:
            if _CUT_OFF.fullmatch(head, at):
                raise _cut_header(head)
            raise FormatError("not-an-image", "is not a PNM image: its header is damaged")
        numbers.append(int(match[1]))
        at = match.end()
    width, height, largest = (*numbers, 1)[:3]
    if at >= len(head):
        raise _cut_header(head)
    if not 0 < largest < 1 << 16 or not head[at : at + 1].isspace():
        raise FormatError("not-an-image", "is not a PNM image: its header is damaged")
    deep = largest > np.iinfo(np.uint8).max
    details = _Details(kind, largest, begin + at + 1)
    depth = largest.bit_length() if deep else None
    bits = 16 if deep else 8
    return Header(height, width, bits, depth, indirect=kind in (1, 4), details=details)


def _without_rest_of_line(data: bytes, header: Header) -> Header:
    """Let the samples begin after CR LF or a comment if the file is longer by exactly its length.

    A decoder that reads those bytes as samples shifts the image.
    """
    details: _Details = header.details
    end = _end_of_samples(header)
    if end is None or end >= len(data):
        return header
    begin = details.begin + len(data) - end
    if _REST_OF_LINE.fullmatch(data, details.begin - 1, begin) is None:
        return header
    return replace(header, details=details._replace(begin=begin))


def _cut_header(head: bytes) -> Exception:
    """Return the error of a header that is longer than the longest one that is read."""
    if len(head) < _LONGEST_HEADER:
        return EOFError()
    return FormatError(
        "unsupported",
        f"is a PNM image with a header of more than {_LONGEST_HEADER} bytes",
        "remove the comments of its header",
    )


def _next_header(data: bytes, end: int) -> int | None:
    """Return where another image begins after the samples, and white space; None if none does."""
    match = _NEXT.match(data, end)
    return match.start(1) if match else None


def _require_white_space(tail: bytes, row: int) -> None:
    """Refuse bytes behind the samples; white space as long as a row may be samples, too."""
    if tail.strip() or len(tail) >= max(row, _LINE_ENDS):
        raise FormatError(
            "corrupt", f"has {len(tail)} bytes more than its header states", "save the image again"
        )


def _end_of_samples(header: Header) -> int | None:
    """Return the position after binary samples; None for a plain file, which has one image."""
    details: _Details = header.details
    if details.kind <= 3:
        return None
    return details.begin + header.height * _row_bytes(header)


def _row_bytes(header: Header) -> int:
    """Return the bytes of a row of binary samples."""
    details: _Details = header.details
    if details.kind == 4:
        return (header.width + 7) // 8
    return header.width * details.channels * (2 if header.bits == 16 else 1)


def _binary_samples(data: bytes, begin: int, count: int, kind: str) -> NDArray[Any]:
    if begin + count * np.dtype(kind).itemsize > len(data):
        raise EOFError
    return np.frombuffer(data, kind, count, begin)


def _plain_samples(text: bytes, count: int, *, bitmap: bool) -> NDArray[Any]:
    """Parse decimal numbers, or the single digits of a bitmap; comments are not accepted."""
    if _PLAIN_SAMPLES.fullmatch(text) is None:
        raise FormatError("corrupt", "has samples that are not numbers")
    if bitmap:
        digits = np.frombuffer(text, np.uint8)
        values = digits[digits >= ord("0")] - np.uint8(ord("0"))
    elif len(text) > _LONGEST_PLAIN_SAMPLE * (count + 1):
        raise FormatError("corrupt", "has more text than its samples need")
    else:
        values = np.array([], np.int64)
        if text.strip():
            values = np.fromstring(text.decode("ascii"), np.int64, sep=" ")
    if values.size < count:
        raise EOFError
    if values.size > count:
        raise FormatError("corrupt", f"has {values.size} samples, not {count}")
    return values
