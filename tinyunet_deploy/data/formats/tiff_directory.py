"""The directories of a TIFF or BigTIFF file: tags and their values."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tinyunet_deploy.data.formats.header import FormatError

__all__ = ["SIGNATURES", "Directories", "Directory", "read_directories", "read_sub_directories"]

SIGNATURES: Final = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
"""Little- and big-endian TIFF, then BigTIFF."""
_TYPE_SIZES: Final = {
    3: 2, 4: 4, 5: 8, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8,
}  # fmt: skip
"""Type of a value -> bytes, where it has more than one."""
_UNSIGNED_TYPES: Final = {1: "u1", 3: "u2", 4: "u4", 13: "u4", 16: "u8", 18: "u8"}
_MAX_ENTRIES: Final = 4096
"""Largest number of tags in one directory; camera files have about fifty."""
_MAX_DIRECTORIES: Final = 1000
"""Largest number of directories that are counted in a file."""


class _Entry(NamedTuple):
    kind: int
    values: int
    """Number of values."""
    position: int
    """Position of the first value in the file."""


@dataclass(frozen=True, slots=True)
class Directory:
    """The tags of one image of a file."""

    data: bytes
    big_endian: bool
    entries: Mapping[int, _Entry]

    @property
    def end(self) -> int:
        """Position behind the directory and its values."""
        word = 8 if self.data[2:4] in (b"+\0", b"\0+") else 4
        ends = [0]
        for kind, values, position in self.entries.values():
            size = values * _TYPE_SIZES.get(kind, 1)
            ends.append(position + (size if size > word else 2 * word))  # the link is behind
        return max(ends)

    def has(self, tag: int) -> bool:
        """Return whether the directory has a tag."""
        return tag in self.entries

    def raw(self, tag: int) -> bytes:
        """Return the bytes of a value; none if the tag is missing."""
        if tag not in self.entries:
            return b""
        kind, values, position = self.entries[tag]
        size = values * _TYPE_SIZES.get(kind, 1)
        if position + size > len(self.data):
            raise EOFError
        return self.data[position : position + size]

    def array(self, tag: int) -> NDArray[np.int64]:
        """Return unsigned integers; none if the tag is missing.

        Raises:
            FormatError: the value is not a list of unsigned integers below 2**63.
        """
        if tag not in self.entries:
            return np.array([], np.int64)
        kind = _UNSIGNED_TYPES.get(self.entries[tag].kind)
        if kind is None:
            raise FormatError("corrupt", f"has a value of a wrong type in tag {tag}")
        values = np.frombuffer(self.raw(tag), (">" if self.big_endian else "<") + kind)
        if not values.size:
            raise FormatError("corrupt", f"has no value in tag {tag}")
        if values.max() > np.iinfo(np.int64).max:
            raise FormatError("corrupt", f"has a value out of range in tag {tag}")
        return values.astype(np.int64)

    def numbers(self, tag: int) -> tuple[int, ...]:
        """Return the first unsigned integers of a tag, at most sixteen; none if it is missing."""
        return tuple(self.array(tag)[:16].tolist())

    def number(self, tag: int, default: int | None = None) -> int:
        """Return the first unsigned integer of a tag.

        Raises:
            FormatError: the tag is missing, and there is no default.
        """
        values = self.numbers(tag)
        if values:
            return values[0]
        if default is None:
            raise FormatError("corrupt", f"lacks tag {tag}")
        return default


class Directories(NamedTuple):
    """The chain of directories of a file, without thumbnails in sub-directories."""

    directories: list[Directory]
    more: bool
    """True if the file has more directories than were read."""


def read_directories(data: bytes) -> Directories:
    """Follow the chain of directories from the header.

    Raises:
        FormatError: a directory has a tag twice, too many tags, or points back to another.
        struct.error, EOFError: the file ends before a directory does.
    """
    order = "<" if data[:2] == b"II" else ">"
    big = data[2:4] in (b"+\0", b"\0+")
    if big and struct.unpack_from(order + "HH", data, 4) != (8, 0):
        raise FormatError("corrupt", "has a damaged BigTIFF header")
    word = "Q" if big else "I"
    (at,) = struct.unpack_from(order + word, data, 8 if big else 4)
    directories: list[Directory] = []
    seen: set[int] = set()
    while at and len(directories) < _MAX_DIRECTORIES:
        if at in seen:
            raise FormatError("corrupt", "has directories that point to each other in a loop")
        seen.add(at)
        entries, at = _read_directory(data, at, order, big)
        directories.append(Directory(data, order == ">", entries))
    if not directories:
        raise FormatError("corrupt", "has no directory")
    return Directories(directories, more=bool(at))


def read_sub_directories(data: bytes, directory: Directory, tag: int) -> list[Directory]:
    """Return the directories to which a tag points, at most sixteen.

    Raises:
        FormatError, struct.error, EOFError: as for :func:`read_directories`.
    """
    order = ">" if directory.big_endian else "<"
    big = data[2:4] in (b"+\0", b"\0+")
    return [
        Directory(data, directory.big_endian, _read_directory(data, at, order, big)[0])
        for at in directory.numbers(tag)
    ]


def _read_directory(data: bytes, at: int, order: str, big: bool) -> tuple[dict[int, _Entry], int]:
    """Return the tags of one directory, and the position of the next, 0 if it is the last."""
    head, entry, word = ("Q", order + "HHQ", "Q") if big else ("H", order + "HHI", "I")
    if at > len(data):
        raise EOFError
    (count,) = struct.unpack_from(order + head, data, at)
    if count > _MAX_ENTRIES:
        raise FormatError("corrupt", f"has a directory of {count} tags, more than {_MAX_ENTRIES}")
    at += struct.calcsize(order + head)
    inline = struct.calcsize(order + word)
    entries: dict[int, _Entry] = {}
    for _ in range(count):
        tag, kind, values = struct.unpack_from(entry, data, at)
        at += struct.calcsize(entry)
        position = at
        if values * _TYPE_SIZES.get(kind, 1) > inline:
            (position,) = struct.unpack_from(order + word, data, at)
        if tag in entries:
            raise FormatError("corrupt", f"has tag {tag} twice")
        entries[tag] = _Entry(kind, values, position)
        at += inline
    (following,) = struct.unpack_from(order + word, data, at)
    return entries, following
