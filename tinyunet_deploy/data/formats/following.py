"""Find another image behind the end of the first: a file that was joined from several."""

from __future__ import annotations

import re
from typing import Final

from tinyunet_deploy.data.formats.header import several_images

__all__ = ["require_alone"]

_IMAGE: Final = re.compile(
    rb"[\0\s]*+"
    rb"(?:\x89PNG\r\n\x1a\n|\xff\xd8\xff|II[*+]\0|MM\0[*+]|RIFF.{4}WEBP|GIF8[79]a"
    rb"|BM.{4}\0{4}.{4}[\x0c-\x40\x6c\x7c]\0{3}|P[1-6]\s+[0-9]+\s+[0-9]+\s)",
    re.DOTALL,
)
"""Padding, then the first bytes of a PNG, JPEG, TIFF, WebP, GIF, BMP or PNM image.

Nothing is searched for further on: writers append notes, films and data of their own, which may
contain any bytes.
"""


def require_alone(data: bytes, end: int) -> None:
    """Refuse a file in which another image follows the ``end`` of the first.

    Raises:
        FormatError: ``several-images``.
    """
    if _IMAGE.match(data, end):
        raise several_images("2 or more", "save each image as a file of its own")
