"""The EXIF orientation of image files."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from tests.data.small_images import grey
from tinyunet_deploy.data.orientation import exif_orientation


def encoded(kind: str, orientation: int | None) -> bytes:
    exif = Image.Exif()
    if orientation is not None:
        exif[0x112] = orientation
    file = io.BytesIO()
    Image.fromarray(grey(9)).save(file, kind, exif=exif)
    return file.getvalue()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WebP"])
def test_orientation_of_each_format(kind: str) -> None:
    assert [exif_orientation(encoded(kind, n)) for n in (2, 6, 8)] == [2, 6, 8]
    assert [exif_orientation(encoded(kind, n)) for n in (None, 0, 1, 9)] == [1] * 4


def test_a_file_without_a_usable_orientation_is_upright() -> None:
    assert exif_orientation(b"P5 2 1 255 ab") == 1
    assert exif_orientation(b"") == 1
    assert exif_orientation(encoded("JPEG", 6)[:40]) == 1


@pytest.mark.filterwarnings("ignore")  # Pillow warns of damaged EXIF
def test_damaged_exif_never_ends_a_check() -> None:
    data = encoded("JPEG", 6)
    rng = np.random.default_rng(1)
    for _ in range(300):
        damaged = bytearray(data)
        for place in rng.integers(20, 60, 3):
            damaged[place] = rng.integers(256)
        assert exif_orientation(bytes(damaged)) in range(1, 9)
