"""Files that were joined from several images."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import tifffile

from tinyunet_deploy.data.decoding import decode_image
from tinyunet_deploy.data.formats.following import require_alone
from tinyunet_deploy.data.formats.header import FormatError
from tinyunet_deploy.errors import ImageError

GREY = np.random.default_rng(0).integers(0, 256, (24, 32), np.uint8)
FIRST = ("PNG", "JPEG", "BMP", "WEBP")


def image(kind: str) -> bytes:
    file = io.BytesIO()
    PIL.Image.fromarray(GREY).save(file, kind)
    return file.getvalue()


@pytest.mark.parametrize("first", FIRST)
@pytest.mark.parametrize("second", [*FIRST, "TIFF", "GIF", "PPM"])
@pytest.mark.parametrize("between", [b"", b"\0", b"\n", b"\r\n", bytes(500)])
def test_an_image_of_any_kind_behind_the_first_is_noticed(
    first: str, second: str, between: bytes
) -> None:
    with pytest.raises(ImageError) as caught:
        decode_image(image(first) + between + image(second), Path("joined"))
    assert caught.value.reason == "several-images"


@pytest.mark.parametrize("first", FIRST)
@pytest.mark.parametrize(
    "tail",
    [
        b"\0" * 20, b"BM and other words", b"P5 and other words", b"II* and MM",
        b"hello \xff\xd8\xff", b"\0\0\0\x18ftypmp42\0\0\xff\xd8\xff", b"RIFF....WAVE", b"\x89PNG",
    ],
)  # fmt: skip
def test_notes_and_films_behind_an_image_are_passed_over(first: str, tail: bytes) -> None:
    assert decode_image(image(first) + tail, Path("part")).shape == GREY.shape


@pytest.mark.parametrize("bigtiff", [False, True])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("layout", [{}, {"rowsperstrip": 5}, {"tile": (16, 16)}])
def test_joined_tiff_files_of_any_order_are_noticed(
    bigtiff: bool, order: str, layout: dict[str, Any]
) -> None:
    file = io.BytesIO()
    tifffile.imwrite(file, GREY, bigtiff=bigtiff, byteorder=order, **layout)
    data = file.getvalue()
    assert np.array_equal(decode_image(data, Path("part")), GREY)
    with pytest.raises(ImageError, match="contains 2 or more images"):
        decode_image(data * 2, Path("joined"))
    assert np.array_equal(decode_image(data + image("JPEG"), Path("preview")), GREY)


def test_a_long_tail_of_zeros_costs_one_look() -> None:
    require_alone(bytes(1 << 26), 0)
    with pytest.raises(FormatError):
        require_alone(bytes(1 << 26) + image("PNG"), 0)
