"""The depth of 16-bit files in bits: cameras of 10, 12 or 14 bits store their values in them."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from tinyunet_deploy.contract import Image
from tinyunet_deploy.data.formats.header import FormatError, Header, Samples
from tinyunet_deploy.errors import printable

__all__ = [
    "DEPTHS",
    "SHALLOW",
    "BitDepth",
    "OnShallow",
    "depth_of",
    "luminance",
    "require_depth",
    "shallow_text",
    "shallow_value",
    "to_8_bits",
]

log = logging.getLogger(__name__)

DEPTHS: Final = range(8, 17)
"""Depths that can be declared for 16-bit files."""
SHALLOW: Final = 16383
"""A 16-bit file with hardly any value above this is likely to come from a camera of 10, 12 or 14
bits."""
_NEARLY_BLACK: Final = 4095
"""Largest value of 12 bits: without a depth it becomes a grey of 15 of 255."""
_RARE: Final = 1000
"""One sample of this many may be anything: a hot pixel, or a counter that the camera stamps."""
_USUAL_DEPTHS: Final = (8, 10, 12, 14, 15)
OnShallow = Callable[[Path, int], None]
"""Called with a 16-bit image whose depth is in doubt, and its :func:`shallow_value`."""


class BitDepth:
    """Bit depth of 16-bit files in one run; warns once if it is not declared but seems needed."""

    def __init__(self, bits: int | None = None) -> None:
        """Declare a depth of 8..16 bits; None takes the depth that each file states."""
        self.bits = bits
        self._first: list[object] = []

    def on_shallow(self, path: Path, value: int) -> None:
        """Log a warning for the first image of the run."""
        call = object()
        if not self._first:
            self._first.append(call)
        if self._first[0] is call:  # also if several threads call this at the same time
            log.warning(
                "%s: %s, so that nearly all of it has %d grey values at most; declare the depth of "
                "the camera, for example --bits %d, or --bits 16 if the image is as it should be "
                "(other such images are not reported)",
                printable(str(path)),
                shallow_text(value),
                (value >> 8) + 1,
                next(bits for bits in _USUAL_DEPTHS if value < 1 << bits),
            )


def depth_of(header: Header, samples: Samples, bits: int | None) -> int | None:
    """Return the depth of 16-bit samples in bits; None if all 16 bits are used."""
    stated = header.depth
    if stated is not None and header.left_justified and _is_left_justified(samples, stated):
        stated = 16
    if bits is not None and stated not in (None, 16, bits):
        raise FormatError("bit-depth", f"states {stated}-bit values, but {bits} bits were declared")
    depth = bits or stated
    return None if depth == 16 else depth


def shallow_value(header: Header, samples: Samples, largest: int) -> int | None:
    """Return the value that hardly any sample exceeds, if the depth of a 16-bit image is in doubt.

    An image that states fewer bits, and is read as the PNG standard says, as if they filled the 16
    bits from the top, is in doubt until it has a value that those bits could not hold.

    Args:
        samples: uint16 [H, W] or [H, W, 3].
        largest: largest of them.
    """
    if header.depth is not None and header.depth < 16 and header.left_justified:
        limit = max(_NEARLY_BLACK, (1 << header.depth) - 1)
        return largest if 0 < largest <= limit else None
    if largest <= SHALLOW:
        return largest or None
    rare = samples.size // _RARE
    if np.count_nonzero(samples > SHALLOW) > rare:
        return None
    rank = samples.size - 1 - rare
    return int(np.partition(samples, rank, axis=None)[rank]) or None


def shallow_text(value: int) -> str:
    """Return what an image with this :func:`shallow_value` has, as a part of a sentence."""
    return f"has at most {100 / _RARE:g} % of its 16-bit values above {value}"


def _is_left_justified(samples: Samples, depth: int) -> bool:
    """Return whether values of ``depth`` bits fill the 16 bits from the top, as PNG prescribes.

    Some writers state the depth of a camera in sBIT, but store its values as they are. Those have
    low bits that scaled values cannot have.
    """
    if samples.max(initial=0) >= 1 << depth:
        return True
    low = samples & np.uint16((1 << (16 - depth)) - 1)
    rounding = 1 if depth < 15 else 0  # of v * 65535 / (2^depth - 1), where v is so small
    return int(low.max(initial=0)) <= rounding


def require_depth(samples: Samples, depth: int | None) -> int:
    """Return the largest value; refuse one that has more bits than ``depth``."""
    largest = int(samples.max(initial=0))
    if depth is not None and largest >= 1 << depth:
        raise FormatError(
            "bit-depth",
            f"has the value {largest}, more than {depth} bits can hold",
            "declare the depth of the camera with --bits",
        )
    return largest


def to_8_bits(samples: Samples, depth: int | None) -> Image:
    """Return 16-bit samples of ``depth`` bits as 8-bit luminance, [H, W]."""
    if depth is not None:
        return luminance(_depth_table(depth)[samples])
    if samples.ndim == 2:
        return (samples >> 8).astype(np.uint8)
    return luminance(((samples.astype(np.uint32) + 128) // 257).astype(np.uint8))


@functools.cache
def _depth_table(depth: int) -> NDArray[np.uint8]:
    largest = (1 << depth) - 1
    return ((np.arange(largest + 1) * 510 + largest) // (2 * largest)).astype(np.uint8)


def luminance(samples: NDArray[np.uint8]) -> Image:
    """Return grey [H, W] of grey or RGB, by Rec. 601 in the fixed point of OpenCV's TIFF reader."""
    if samples.ndim == 2:
        return samples
    weighted = samples.astype(np.uint32) @ np.array([4899, 9617, 1868], np.uint32)
    return ((weighted + (1 << 13)) >> 14).astype(np.uint8)
