"""Look at the stored values of masks, to say what they are and which rule reads them."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from tinyunet_deploy.contract import Mask
from tinyunet_deploy.data.dataset import MaskRule
from tinyunet_deploy.data.decoding import decode_labels, read_bytes
from tinyunet_deploy.data.masks import decode_mask
from tinyunet_deploy.errors import DataError, ImageError

__all__ = [
    "INVERTED_BORDER",
    "MANY_VALUES",
    "MaskLook",
    "ignored_by_rule",
    "look_at_mask",
    "look_at_masks",
    "looks_inverted",
    "rule_for",
    "shown_values",
]

MANY_VALUES: Final = 32
"""A mask with more values has grey levels, as of smoothed edges, not labels."""
_COMPRESSION_NOISE: Final = 32
"""Largest value that lossy compression leaves where an 8-bit mask was 0."""
_SOFT_VALUES: Final = 5
"""Smallest number of values between 0 and the largest in a mask with soft edges."""
_SOFT_SHARE: Final = 0.5
"""Share of the pixels of these values that must lie on a slope, beside a darker and a lighter one:
labels fill areas, and thin labels lie beside 0 only."""
_LISTED: Final = 8
"""Largest number of values that are listed one by one."""
INVERTED_BORDER: Final = 0.75
"""A mask that marks more than this share of its border looks inverted: parts are good there."""


class MaskLook(NamedTuple):
    """The stored values of one mask file."""

    lossy: bool
    coloured: bool
    values: frozenset[int]
    """The grey values or palette indices; empty if there are more than :data:`MANY_VALUES`, or
    colours."""
    largest: int
    readable: bool
    """It has one or two values, of which the usual reading knows what they mean."""
    border: float
    """Share of the border that is a defect by the usual reading; of a mask that this does not read,
    the share that is not zero, or in a lossy file above half of the largest value."""
    marks: bool
    """Some pixel is so."""
    border_value: int | None
    """The value along most of the border; None if there is none, or ``values`` is empty."""
    soft: bool
    """Its ``values`` are 0, the largest, and those of the soft edges between them."""
    black: bool
    """Some pixel is 0, or black."""


def look_at_masks(paths: Sequence[Path]) -> list[MaskLook]:
    """Decode masks and describe their values.

    Raises:
        DataError: a mask cannot be decoded.
    """
    with ThreadPoolExecutor() as pool:
        return list(pool.map(look_at_mask, paths))


def look_at_mask(path: Path) -> MaskLook:
    """Decode a mask and describe its values.

    Raises:
        DataError: it cannot be decoded.
    """
    try:
        data = read_bytes(path)
        labels = decode_labels(data, path)
    except ImageError as error:
        raise DataError(path, f"is not a usable mask: it {error.what}", error.hint) from error
    try:
        usual: Mask | None = decode_mask(data, path)
    except DataError:
        usual = None
    values = labels.values
    if values.ndim == 3 and values.shape[2] in (2, 4):
        values = values[..., :-1]  # without transparency
    coloured = values.ndim == 3 and bool((values != values[..., :1]).any())
    grey = values.max(axis=2) if values.ndim == 3 else values
    largest = int(grey.max())
    if usual is not None:
        marked = usual > 0
    else:
        marked = grey > (max(largest // 2, _COMPRESSION_NOISE) if labels.lossy else 0)
    unique = np.unique(grey)
    few = not coloured and len(unique) <= MANY_VALUES
    listed = frozenset(int(value) for value in unique) if few else frozenset[int]()
    return MaskLook(
        lossy=labels.lossy,
        coloured=coloured,
        values=listed,
        largest=largest,
        readable=usual is not None,
        border=float(_border(marked).mean()),
        marks=bool(marked.any()),
        border_value=_most_of_border(grey) if few else None,
        soft=few and 0 in listed and len(listed) >= _SOFT_VALUES + 2 and _has_slopes(grey, largest),
        black=bool((grey == 0).any()),
    )


def _has_slopes(grey: NDArray[Any], largest: int) -> bool:
    """Return whether most pixels between 0 and the largest value lie on slopes."""
    between = (grey > 0) & (grey < largest)
    square = np.ones((3, 3), np.uint8)
    slopes = (cv2.erode(grey, square) < grey) & (grey < cv2.dilate(grey, square))
    return bool(slopes[between].mean() > _SOFT_SHARE)


def _border(pixels: NDArray[Any]) -> NDArray[Any]:
    return np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])


def _most_of_border(grey: NDArray[Any]) -> int | None:
    values, counts = np.unique(_border(grey), return_counts=True)
    most = int(np.argmax(counts))
    return int(values[most]) if counts[most] > INVERTED_BORDER * counts.sum() else None


def looks_inverted(mask: Mask) -> bool:
    """Return whether decoded defect pixels cover most of the border, but not the whole image."""
    return bool((_border(mask) > 0).mean() > INVERTED_BORDER and not mask.all())


def ignored_by_rule(path: Path, rule: MaskRule | None) -> bool:
    """Return whether a mask that marks nothing by ``rule`` has other values than 0.

    An inverted rule says that such values are good, so then the answer is no; also for a mask of
    one value beside a rule that lists values, which is all good.

    Raises:
        DataError: the mask cannot be decoded.
    """
    if rule is None or rule.inverted:
        return False
    look = look_at_mask(path)
    return look.marks and (rule.values is None or len(look.values) != 1)


def rule_for(looks: Sequence[MaskLook]) -> MaskRule | None:
    """Propose the rule that reads masks; None if the usual reading does.

    Lossy masks, grey levels and soft edges get a threshold at half of the largest value; masks of
    more values or colours count everything but 0 as defect, so that no kind of defect is
    overlooked. If most
    masks mark their border, the rule is inverted. Where 0 is not used, good is the value that is in
    every mask and along its border.
    """
    defects = _defects_beside_good(looks)
    if defects:
        return MaskRule(values=defects)
    marking = [look for look in looks if look.marks]
    is_inverted = 2 * sum(look.border > INVERTED_BORDER for look in marking) > len(marking)
    half = max((look.largest for look in looks), default=0) // 2
    is_soft = any(look.soft for look in looks) and all(look.largest > half for look in marking)
    if is_soft or any(look.lossy or (not look.coloured and not look.values) for look in looks):
        return MaskRule(threshold=half, inverted=is_inverted)
    if is_inverted or not all(look.readable for look in looks):
        return MaskRule(non_zero=True, inverted=is_inverted)
    return None


def _defects_beside_good(looks: Sequence[MaskLook]) -> frozenset[int] | None:
    """Return the values of defects in masks of labels that do not use 0; None in all others."""
    if all(look.readable for look in looks) or any(0 in look.values for look in looks):
        return None
    good = {look.border_value for look in looks}
    if len(good) != 1 or None in good:
        return None
    return frozenset[int]().union(*(look.values for look in looks)) - good


def shown_values(look: MaskLook) -> str:
    """Return the values of a mask in words.

    For example ``0, 255``, ``0, 1, ..., 255: 20 values`` or ``lossy, up to 255``.
    """
    if look.lossy:
        return f"lossy, up to {look.largest}"
    if look.coloured:
        return "colours"
    if not look.values:
        return f"more than {MANY_VALUES} grey levels, up to {look.largest}"
    values = [str(value) for value in sorted(look.values)]
    if len(values) > _LISTED:
        return f"{values[0]}, {values[1]}, ..., {values[-1]}: {len(values)} values"
    return ", ".join(values)
