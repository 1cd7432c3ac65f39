"""Masks: the defect pixels of an image, from a mask file or from an ellipse.

A mask file contains labels, not brightness. If it has a single value, that must be 0, black or
transparent, and the part is good. If it has two values, one means good and the other means defect:
good is the one that is 0, black or transparent; if that does not decide, the one along the border.
Any other mask needs a :class:`~tinyunet_deploy.data.dataset.MaskRule` or is refused, also one of a
single other value: all of it may be a defect or, if the mask is inverted, good.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from tinyunet_deploy.contract import Mask
from tinyunet_deploy.data.dataset import Item, MaskRule
from tinyunet_deploy.data.decoding import MAX_PIXELS, Labels, decode_labels, image_size, read_bytes
from tinyunet_deploy.errors import DataError, ImageError

__all__ = ["decode_mask", "ellipse_mask", "read_mask", "read_mask_file", "read_mask_values"]

_BORDER_SHARE: Final = 0.75
"""Smallest share of the border pixels that a value needs to count as good."""
_SHOWN_VALUES: Final = 6


def ellipse_mask(
    a: float, b: float, angle: float, x: float, y: float, shape: tuple[int, int]
) -> Mask:
    """Return the pixels of an :class:`Ellipse` in an image of ``shape`` (height, width).

    Returns:
        uint8 [H, W], {0, 255}.
    """
    dx = np.arange(shape[1]) - (x - 1)
    dy = np.arange(shape[0])[:, None] - (y - 1)
    u = dx * math.cos(angle) + dy * math.sin(angle)
    v = dy * math.cos(angle) - dx * math.sin(angle)
    return np.where((u / a) ** 2 + (v / b) ** 2 <= 1, np.uint8(255), np.uint8(0))


def read_mask(item: Item, shape: tuple[int, int]) -> Mask:
    """Return the defect pixels of an image of ``shape`` (height, width), by the item's rule.

    Of the mask of a good part, which marks nothing, only the size is looked at.

    Returns:
        uint8 [H, W], {0, 255}; all 0 for a defect-free image, and only for that.

    Raises:
        DataError: the mask cannot be decoded, has another size, is ambiguous, or marks nothing.
    """
    if not item.defective:
        if item.mask is not None:
            _require_size(item.mask, _mask_size(item.mask), shape)
        return np.zeros(shape, np.uint8)
    if item.ellipse is not None:
        return ellipse_mask(*item.ellipse, shape)
    if item.mask is None:
        raise DataError(item.image, "is defective but has no mask")
    mask = read_mask_file(item.mask, item.rule, max_pixels=max(MAX_PIXELS, math.prod(shape)))
    _require_size(item.mask, (mask.shape[0], mask.shape[1]), shape)
    if not mask.any():
        raise DataError(
            item.mask,
            "marks nothing, but its image counts as defective",
            "mark the defect, or put the image among the good ones",
        )
    return mask


def _mask_size(path: Path) -> tuple[int, int]:
    try:
        return image_size(read_bytes(path), path)
    except ImageError as error:
        raise _unusable(path, error) from error


def _require_size(path: Path, size: tuple[int, int], shape: tuple[int, int]) -> None:
    if size != shape:
        raise DataError(
            path,
            f"is {size[1]}x{size[0]} pixels, but its image is {shape[1]}x{shape[0]}",
            "a mask must have the size of its image",
        )


def _unusable(path: Path, error: ImageError) -> DataError:
    return DataError(path, f"is not a usable mask: it {error.what}", error.hint)


def read_mask_file(
    path: Path, rule: MaskRule | None = None, *, max_pixels: int = MAX_PIXELS
) -> Mask:
    """Return the defect pixels of a mask file, uint8 [H, W], {0, 255}.

    Args:
        max_pixels: largest accepted height x width.

    Raises:
        DataError: it cannot be decoded, or is ambiguous.
    """
    try:
        return decode_mask(read_bytes(path), path, rule, max_pixels=max_pixels)
    except ImageError as error:
        raise _unusable(path, error) from error


def read_mask_values(path: Path) -> NDArray[np.uint8] | NDArray[np.uint16] | None:
    """Return the stored values of a mask file, [H, W]; None if it has colours.

    Raises:
        DataError: it cannot be decoded.
    """
    try:
        values = decode_labels(read_bytes(path), path).values
    except ImageError as error:
        raise _unusable(path, error) from error
    if values.ndim == 2:
        return values
    return values[..., 0] if (values == values[..., :1]).all() else None


def decode_mask(
    data: bytes, where: Path, rule: MaskRule | None = None, *, max_pixels: int = MAX_PIXELS
) -> Mask:
    """Return the defect pixels in the bytes of a mask file; ``where`` names it in errors.

    Returns:
        uint8 [H, W], {0, 255}.

    Raises:
        ImageError: the file cannot be decoded.
        DataError: its values are ambiguous.
    """
    labels = decode_labels(data, where, max_pixels=max_pixels)
    defect = _by_values(labels, where) if rule is None else _by_rule(labels, where, rule)
    return np.where(defect, np.uint8(255), np.uint8(0))


def _by_rule(labels: Labels, where: Path, rule: MaskRule) -> NDArray[np.bool_]:
    if labels.lossy and rule.threshold is None:
        raise _lossy(where)
    values: NDArray[Any] = labels.values
    if rule.non_zero:
        marked = _not_zero(values)
    else:
        if values.ndim == 3:
            if (values != values[..., :1]).any():
                raise DataError(
                    where, "has colours or transparency", "a mask rule is for grey masks"
                )
            values = values[..., 0]
        marked = (
            np.isin(values, list(rule.values))
            if rule.values is not None
            else values > rule.threshold
        )
    return np.asarray(np.logical_not(marked) if rule.inverted else marked, np.bool_)


def _not_zero(values: NDArray[Any]) -> NDArray[np.bool_]:
    """Return where a pixel is not zero or, with transparency, not black."""
    if values.ndim == 2:
        return np.asarray(values != 0, np.bool_)
    colours = values[..., :-1] if values.shape[2] in (2, 4) else values
    return np.asarray(colours.any(axis=2), np.bool_)


def _by_values(labels: Labels, where: Path) -> NDArray[np.bool_]:
    if labels.lossy:
        raise _lossy(where)
    codes = _codes(labels.values)
    low, high = codes.min(), codes.max()
    is_high: NDArray[np.bool_] = codes == high
    if not ((codes == low) | is_high).all():
        raise _too_many_values(labels.values, codes, where)
    pixels = [np.unravel_index(np.argmax(group), codes.shape) for group in (~is_high, is_high)]
    if low == high:
        _require_good(labels, where)
        return np.logical_not(is_high)
    low_signs, high_signs = (_signs_of_good(labels, pixel) for pixel in pixels)
    good = _good_of_two(low_signs, high_signs)
    if good is None:
        border = np.concatenate([is_high[0], is_high[-1], is_high[:, 0], is_high[:, -1]])
        share = float(border.mean())
        if max(share, 1 - share) < _BORDER_SHARE:
            shown = " and ".join(_shown(labels.values[pixel]) for pixel in pixels)
            raise DataError(
                where,
                f"has the values {shown}, and neither clearly means good",
                "save it as 8-bit grey PNG with 0 where the part is good",
            )
        good = int(share >= _BORDER_SHARE)
    return is_high if good == 0 else np.logical_not(is_high)


def _require_good(labels: Labels, where: Path) -> None:
    """Refuse a mask of a single value that does not clearly mean good."""
    signs = _signs_of_good(labels, (0, 0))
    if not signs.get("transparent"):
        signs.pop("transparent", None)  # only transparency is a sign; an opaque mask is usual
    if not all(signs.values()):
        raise DataError(
            where,
            f"has the value {_shown(labels.values[0, 0])} throughout: good or defect?",
            "save it as 8-bit grey PNG with 0 (black) where the part is good, or say below [masks] "
            "in dataset.toml what it means: non_zero = true (defect) or inverted = true (good)",
        )


def _good_of_two(low: dict[str, bool], high: dict[str, bool]) -> int | None:
    """Return 0 if the lower value is good, 1 if the higher is; None if the signs do not decide."""
    answers = {int(high[sign]) for sign in low if low[sign] != high[sign]}
    return answers.pop() if len(answers) == 1 else None


def _signs_of_good(labels: Labels, pixel: Any) -> dict[str, bool]:
    """Return whether the value at a pixel is zero, transparent, and shown as black."""
    value = np.atleast_1d(labels.values[pixel])
    has_alpha = value.size in (2, 4)
    signs = {"zero": not np.any(value[:-1] if has_alpha else value)}
    if has_alpha:
        signs["transparent"] = bool(value[-1] == 0)
    if labels.displayed is not None:
        signs["black"] = not np.any(labels.displayed[pixel])
    return signs


def _codes(values: NDArray[Any]) -> NDArray[Any]:
    """Return one number per pixel, [H, W], that differs wherever a channel differs."""
    if values.ndim == 2:
        return values
    codes = np.zeros(values.shape[:2], np.uint64)
    for channel in range(values.shape[2]):
        codes = (codes << np.uint64(16)) | values[..., channel]
    return codes


def _too_many_values(values: NDArray[Any], codes: NDArray[Any], where: Path) -> DataError:
    unique, first = np.unique(codes, return_index=True)
    pixels = [np.unravel_index(index, codes.shape) for index in first[:_SHOWN_VALUES]]
    shown = ", ".join(_shown(values[pixel]) for pixel in pixels)
    return DataError(
        where,
        f"has {len(unique)} values: {shown}" + (", ..." if len(unique) > _SHOWN_VALUES else ""),
        "a mask is 0 where the part is good and one other value at the defect; for other masks "
        "tinyunet data init writes a rule",
    )


def _shown(value: Any) -> str:
    return str(tuple(value.tolist()) if np.ndim(value) else int(value))


def _lossy(where: Path) -> DataError:
    return DataError(
        where,
        "has lossy compression, which changes the values of a mask",
        "save masks as PNG, or give a threshold: tinyunet data init",
    )
