"""The interface of an image format: header, samples, and the error of a file that is refused."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

__all__ = ["Format", "FormatError", "Header", "Samples", "require_colours", "several_images"]

Samples = NDArray[np.uint8] | NDArray[np.uint16]
"""Stored sample values, [H, W] or [H, W, C]."""


class FormatError(Exception):
    """A file of this format cannot be used.

    Args:
        reason: a stable code, as in :class:`tinyunet_deploy.errors.ImageError`.
        what: the fault, as a clause that continues the file's name.
        hint: what the user can do about it.
    """

    def __init__(self, reason: str, what: str, hint: str | None = None) -> None:
        super().__init__(reason, what, hint)
        self.reason = reason
        self.what = what
        self.hint = hint


@dataclass(frozen=True, slots=True)
class Header:
    """Facts about the image of a file, known before its pixels are decoded."""

    height: int
    """Number of pixels, > 0."""
    width: int
    """Number of pixels, > 0."""
    bits: int = 8
    """Stored bits of a sample, 1..16."""
    depth: int | None = None
    """Bits that a sample uses, 9..16; None if the file does not state it."""
    left_justified: bool = False
    """True if ``depth`` counts the highest bits of a sample, as sBIT of the PNG standard does."""
    colour: bool = False
    """True if ``decode`` converts a colour image to luminance [H, W]."""
    indirect: bool = False
    """True if a stored value is not its brightness: a palette, or 0 is white."""
    white_is_zero: bool = False
    """True if 16-bit values are stored with 0 as white; ``decode`` inverts them as of 16 bits."""
    lossy: bool = False
    """True if the compression changes sample values."""
    details: Any = None
    """Facts that the format's own decoder needs again."""


class Format(Protocol):
    """Interface of the format modules in this folder.

    Every function raises :class:`FormatError` for a file that it refuses; ``struct.error`` and
    ``EOFError`` mean that the file ends too early.
    """

    def read_header(self, data: bytes) -> Header:
        """Read the header without decoding pixels; refuse several images and foreign variants."""
        ...

    def decode(self, data: bytes, header: Header) -> Samples:
        """Decode to grey [H, W] or to RGB [H, W, 3]: uint8, or uint16 where ``bits`` is 16."""
        ...

    def decode_labels(self, data: bytes, header: Header) -> Samples:
        """Decode to the stored values: palette indices, colours, and transparency if stored."""
        ...


def several_images(count: int | str, hint: str) -> FormatError:
    """Return the error of a file with more than one image: one verdict cannot cover them all."""
    if count == 1:
        return FormatError("several-images", "is an animation, if of one frame only", hint)
    return FormatError("several-images", f"contains {count} images, not one", hint)


def require_colours(indices: Samples, colours: int) -> None:
    """Refuse palette indices without a colour, which decoders show as black.

    Raises:
        FormatError: an index is not below ``colours``.
    """
    largest = int(indices.max(initial=0))
    if largest >= colours:
        raise FormatError(
            "corrupt", f"has a palette of {colours} colours, but pixels of entry {largest}",
            "save the image as grey",
        )  # fmt: skip
