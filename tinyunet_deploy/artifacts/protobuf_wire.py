"""Protobuf's wire format: read fields as parsers merge them, in bounded work; write fields.

Source: "Encoding", Protocol Buffers documentation. Groups, which no ONNX file has, are refused.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "MAX_FIELDS", "Reader", "Value", "as_varint", "joined", "varint_bits", "varints",
    "written_field",
]  # fmt: skip

MAX_FIELDS: Final = 300_000
"""Largest number of fields in a file; TinyUNet has a few thousand, one for each weight tensor."""

_PIECE: Final = 1 << 18
"""Largest piece of packed varints that is decoded at once, bytes."""

Value = int | memoryview
"""A number, or the bytes of a text or message."""


class Reader:
    """Fields of messages, counted over the whole file."""

    def __init__(self) -> None:
        self._count = 0

    def fields(self, value: Value) -> Iterator[tuple[int, Value]]:
        """Yield (number, value) of the fields of a message; a value is a number or its bytes.

        Raises:
            ValueError: not a message, or the file has too many fields.
        """
        if isinstance(value, int):
            raise ValueError("it has a number where a message must be")
        for field in _fields(value):
            self._count += 1
            if self._count > MAX_FIELDS:
                raise ValueError(f"it has more than {MAX_FIELDS} fields")
            yield field

    def varints(self, packed: memoryview) -> list[int]:
        """Return numbers that are packed into one field; each counts as a field.

        Raises:
            ValueError: the last one is cut off, or the file has too many fields.
        """
        numbers, at = [], 0
        while at < len(packed):
            number, at = _varint(packed, at)
            numbers.append(number)
            self._count += 1
            if self._count > MAX_FIELDS:
                raise ValueError(f"it has more than {MAX_FIELDS} fields")
        return numbers

    def merged(self, value: Value, number: int) -> memoryview:
        """Return the one message in field ``number``, its occurrences concatenated."""
        return joined([part for at, part in self.fields(value) if at == number])


def joined(values: list[Value]) -> memoryview:
    """Return the occurrences of one message as the one message that parsers make of them.

    Raises:
        ValueError: one is a number.
    """
    parts = [value for value in values if not isinstance(value, int)]
    if len(parts) < len(values):
        raise ValueError("it has a number where a message must be")
    return parts[0] if len(parts) == 1 else memoryview(b"".join(parts))


def _fields(view: memoryview) -> Iterator[tuple[int, Value]]:
    at = 0
    while at < len(view):
        key, at = _varint(view, at)
        number, wire = key >> 3, key & 7
        value: Value
        if wire == 0:
            value, at = _varint(view, at)
        elif wire == 1:
            (value,) = struct.unpack_from("<Q", view, at)
            at += 8
        elif wire == 2:
            length, at = _varint(view, at)
            value = view[at : at + length]
            at += length
        elif wire == 5:
            (value,) = struct.unpack_from("<I", view, at)
            at += 4
        else:
            raise ValueError(f"field {number} is of an unknown type")
        if at > len(view) or not number:
            raise ValueError("a field extends beyond its message")
        yield number, value


def _varint(view: memoryview, at: int) -> tuple[int, int]:
    """Read a number in groups of 7 bits, the lowest first; return it and the index after it."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(view):
            raise ValueError("a number runs past the end of its message")
        byte = view[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ValueError("a number is longer than 10 bytes")


def as_varint(value: int) -> bytes:
    """Return the lowest 21 bits of a number as a varint."""
    return bytes([(value >> shift & 0x7F) | (0x80 if shift < 14 else 0) for shift in (0, 7, 14)])


def varint_bits(packed: memoryview | bytes) -> Iterator[NDArray[np.int32]]:
    """Yield the lowest 16 bits of packed varints, int32 [values], in pieces.

    Raises:
        ValueError: the last one is cut off, or one is longer than 10 bytes.
    """
    data = np.frombuffer(packed, np.uint8)
    start = 0
    while start < len(data):
        piece = data[start : start + _PIECE]
        ends = np.flatnonzero(piece < 0x80)
        if not len(ends):
            raise ValueError("a number runs past the end of its field, or is too long")
        starts = np.concatenate(([0], ends[:-1] + 1))
        if int((ends - starts).max()) >= 10:
            raise ValueError("a number is longer than 10 bytes")
        values = np.zeros(len(starts), np.int32)
        for place in range(3):  # 3 x 7 bits hold 16
            inside = starts + place <= ends
            values[inside] |= (piece[starts[inside] + place] & 0x7F).astype(np.int32) << 7 * place
        yield values & 0xFFFF
        start += int(ends[-1]) + 1


def varints(packed: memoryview) -> Iterator[int]:
    """Yield packed varints in full.

    Raises:
        ValueError: the last one is cut off, or one is longer than 10 bytes.
    """
    at = 0
    while at < len(packed):
        value, at = _varint(packed, at)
        yield value


def written_field(number: int, value: int | str | bytes) -> bytes:
    """Return one field of a message as bytes.

    Args:
        value: a whole number from 0 up, a text, or the bytes of a message.
    """
    if isinstance(value, int):
        return _written_varint(number << 3) + _written_varint(value)
    data = value.encode() if isinstance(value, str) else value
    return _written_varint(number << 3 | 2) + _written_varint(len(data)) + data


def _written_varint(value: int) -> bytes:
    groups = bytearray()
    while value > 0x7F:
        groups.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*groups, value])
