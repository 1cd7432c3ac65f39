"""Run-length encoded masks: lengths of runs, of zeros first, then ones, alternating."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["decode_runs", "parse_coco_string"]


def decode_runs(runs: Sequence[int], size: int) -> NDArray[np.bool_]:
    """Return the pixels of a run-length encoding, [size].

    Raises:
        ValueError: a run is negative, or they do not add up to ``size``.
    """
    if any(run < 0 for run in runs) or sum(runs) != size:
        raise ValueError(f"has runs of {sum(runs)} pixels in all, but the mask has {size}")
    values = np.arange(len(runs)) % 2 == 1
    return np.repeat(values, np.asarray(runs, np.int64))


def parse_coco_string(text: str) -> list[int]:
    """Return the runs in a string of COCO's compressed RLE.

    A character has five bits of a number, the lowest first, in ``ord(character) - 48``: bit 5 says
    that more follow, and bit 4 of the last is the sign. From the fourth number on, each is the
    difference to the run two before it.

    Raises:
        ValueError: a character is not one of this code, a number has more than seven characters,
            or the text ends inside a number.
    """
    runs: list[int] = []
    value = shift = 0
    for character in text:
        code = ord(character) - 48
        if not 0 <= code < 64:
            raise ValueError(f"has the character {character!r} in its RLE string")
        value |= (code & 31) << shift
        shift += 5
        if code & 32:
            if shift >= 35:  # 2^35 pixels are far beyond any image
                raise ValueError("has an RLE string with a number of more than seven characters")
            continue
        if code & 16:
            value -= 1 << shift
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        value = shift = 0
    if shift:
        raise ValueError("has an RLE string that ends inside a number")
    return runs
