from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from tinyunet_deploy.data.decoding import decode_image, decode_labels
from tinyunet_deploy.errors import ImageError

HERE = Path("part.bmp")
GREY = np.arange(48 * 80, dtype=np.int64).reshape(48, 80).astype(np.uint8)


def refusal(data: bytes) -> ImageError:
    with pytest.raises(ImageError) as caught:
        decode_image(data, HERE)
    return caught.value


def bmp(array: np.ndarray, mode: str | None = None) -> bytes:
    file = io.BytesIO()
    picture = PIL.Image.fromarray(array)
    (picture.convert(mode) if mode else picture).save(file, "BMP")
    return file.getvalue()


def os2(bits: int = 8) -> bytes:
    """OS/2 1: a header of twelve bytes, and palette entries of three."""
    palette = b"".join(bytes([value] * 3) for value in range(1 << bits)) if bits <= 8 else b""
    first = 26 + len(palette)
    rows = GREY[::-1] if bits == 8 else np.repeat(GREY[::-1], 3, axis=1)
    head = struct.pack("<2sIHHI", b"BM", first + rows.size, 0, 0, first)
    return head + struct.pack("<IHHHH", 12, 80, 48, 1, bits) + palette + rows.tobytes()


@pytest.mark.parametrize("bits", [8, 24])
def test_os_2_headers(bits: int) -> None:
    assert np.array_equal(decode_image(os2(bits), HERE), GREY)


@pytest.mark.parametrize("size", [40, 56, 108, 124, 64])
def test_longer_headers(size: int) -> None:
    data = bmp(GREY)
    longer = size - 40
    head = data[:10] + struct.pack("<II", 1078 + longer, size) + data[18:54]
    assert np.array_equal(decode_image(head + bytes(longer) + data[54:], HERE), GREY)


def test_labels_are_palette_indices_not_colours() -> None:
    picture = PIL.Image.fromarray(GREY % 4, "P")
    picture.putpalette([0, 0, 0, 0, 0, 0, 200, 0, 0, 0, 0, 200])
    file = io.BytesIO()
    picture.save(file, "BMP")
    assert np.array_equal(decode_labels(file.getvalue(), HERE).values, GREY % 4)


def test_a_cut_file_is_truncated() -> None:
    data = bmp(GREY)
    for length in (10, 30, 100, len(data) // 2, len(data) - 1):
        assert refusal(data[:length]).reason in ("truncated", "corrupt")
    assert refusal(data[:-1]).reason == "truncated"


def test_pixels_that_begin_in_the_palette_are_refused() -> None:
    data = bmp(GREY)
    assert refusal(data[:10] + struct.pack("<I", 54) + data[14:]).reason == "corrupt"
    assert refusal(data[:46] + struct.pack("<I", 300) + data[50:]).reason == "corrupt"


@pytest.mark.parametrize(("code", "words"), [(4, "JPEG"), (5, "PNG")])
def test_a_variant_that_is_not_read_is_named(code: int, words: str) -> None:
    data = bmp(GREY)
    error = refusal(data[:30] + struct.pack("<I", code) + data[34:])
    assert error.reason == "unsupported"
    assert words in str(error)
