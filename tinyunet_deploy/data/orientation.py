"""The EXIF orientation of an image file, by which viewers and annotation tools turn it.

The decoder does not: it reads pixels as the camera stores them.
"""

from __future__ import annotations

import io
import struct
from typing import Final

from PIL import ExifTags, UnidentifiedImageError
from PIL import Image as PillowImage

from tinyunet_deploy.data.formats import png

__all__ = ["UPRIGHT", "exif_orientation"]

UPRIGHT: Final = 1
"""Orientation of an image that is shown as it is stored."""
_TURNED: Final = range(2, 9)
_PNG_METADATA: Final = (b"eXIf", b"Raw profile type", b"XML:com.adobe.xmp")
"""Names of the parts of a PNG that may state an orientation."""


def exif_orientation(data: bytes) -> int:
    """Return the orientation that the bytes of an image file state, 1..8; 1 if they state none.

    1 is upright, 3 turned by half, 2 and 4 are mirrored; 5..8 exchange rows and columns.
    """
    if data.startswith(png.SIGNATURE) and not any(name in data for name in _PNG_METADATA):
        return UPRIGHT  # Pillow would decode all of it
    try:
        with PillowImage.open(io.BytesIO(data)) as image:
            orientation = image.getexif().get(ExifTags.Base.Orientation)
    except (OSError, UnidentifiedImageError, ValueError, SyntaxError, struct.error):
        return UPRIGHT  # a format that only our own decoder reads, or damaged EXIF
    except PillowImage.DecompressionBombError:
        return UPRIGHT  # larger than any image that is decoded
    return orientation if isinstance(orientation, int) and orientation in _TURNED else UPRIGHT
