"""Decoding by OpenCV, for the formats in which its result can be trusted."""

from __future__ import annotations

import cv2
import numpy as np

from tinyunet_deploy.data.formats.header import FormatError, Header, Samples

__all__ = ["decode_colour", "decode_grey", "decode_unchanged", "decodes", "require_shape"]

_GREY = cv2.IMREAD_GRAYSCALE | cv2.IMREAD_IGNORE_ORIENTATION


def decode_grey(data: bytes, *, deep: bool = False) -> Samples | None:
    """Decode to luminance [H, W], uint8, or uint16 if ``deep`` and stored so; None on failure."""
    return _decode(data, _GREY | (cv2.IMREAD_ANYDEPTH if deep else 0))


def decode_colour(data: bytes) -> Samples | None:
    """Decode to RGB, uint8 [H, W, 3]; None on failure."""
    samples = _decode(data, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    return None if samples is None else samples[..., ::-1]


def decode_unchanged(data: bytes) -> Samples | None:
    """Decode to the stored channels, [H, W], RGB or RGB and alpha [H, W, C]; None on failure."""
    samples = _decode(data, cv2.IMREAD_UNCHANGED | cv2.IMREAD_IGNORE_ORIENTATION)
    if samples is None or samples.ndim == 2:
        return samples
    return samples[..., [2, 1, 0, 3][: samples.shape[2]]]


def decodes(data: bytes) -> bool:
    """Return whether decoding a JPEG finds all its pixels; it computes an eighth of each side."""
    return _decode(data, cv2.IMREAD_REDUCED_GRAYSCALE_8) is not None


def require_shape(samples: Samples | None, header: Header) -> Samples:
    """Return ``samples`` if they have the size of the header.

    Raises:
        FormatError: decoding failed, or gave another size.
    """
    if samples is None or samples.shape[:2] != (header.height, header.width):
        raise FormatError("corrupt", "cannot be decoded")
    return samples


def _decode(data: bytes, flags: int) -> Samples | None:
    try:
        return cv2.imdecode(np.frombuffer(data, np.uint8), flags)  # type: ignore[return-value]
    except cv2.error:
        return None
