from __future__ import annotations

import io

import cv2
import numpy as np
import PIL.Image
import pytest

from tinyunet_deploy.data.formats.header import FormatError, Header
from tinyunet_deploy.data.formats.opencv import (
    decode_colour,
    decode_grey,
    decode_unchanged,
    decodes,
    require_shape,
)

DEEP = np.arange(60, dtype=np.uint16).reshape(6, 10) * 1000


def png(samples: np.ndarray) -> bytes:
    return bytes(cv2.imencode(".png", samples)[1].tobytes())


def test_16_bits_become_8_unless_all_are_wanted() -> None:
    shallow = decode_grey(png(DEEP))
    assert shallow is not None
    assert shallow.dtype == np.uint8
    assert np.array_equal(shallow, DEEP >> 8)
    assert np.array_equal(decode_grey(png(DEEP), deep=True), DEEP)


def test_channels_are_red_green_blue_and_alpha() -> None:
    pixel = np.array([[[1, 2, 3, 4]]], np.uint8)
    blue_first = pixel[..., [2, 1, 0, 3]]
    assert np.array_equal(decode_unchanged(png(blue_first)), pixel)
    assert np.array_equal(decode_unchanged(png(blue_first[..., :3])), pixel[..., :3])
    assert np.array_equal(decode_colour(png(blue_first[..., :3])), pixel[..., :3])
    assert np.array_equal(decode_unchanged(png(DEEP)), DEEP)


def test_rotation_that_a_file_states_is_ignored() -> None:
    exif = PIL.Image.Exif()
    exif[0x0112] = 3  # orientation: upside down
    picture = PIL.Image.fromarray(np.tile(np.arange(16, dtype=np.uint8) * 16, (16, 1)))
    plain, turned = io.BytesIO(), io.BytesIO()
    picture.save(plain, "JPEG")
    picture.save(turned, "JPEG", exif=exif)
    for decode in (decode_grey, decode_colour, decode_unchanged):
        assert np.array_equal(decode(turned.getvalue()), decode(plain.getvalue()))


def test_a_jpeg_decodes_only_to_its_end() -> None:
    file = io.BytesIO()
    PIL.Image.fromarray((DEEP >> 8).astype(np.uint8)).save(file, "JPEG")
    assert decodes(file.getvalue())
    assert not decodes(file.getvalue()[:-4])


@pytest.mark.parametrize("data", [b"", b"\x89PNG\r\n\x1a\n", b"text"])
def test_what_cannot_be_decoded_gives_none(data: bytes) -> None:
    assert decode_grey(data) is None
    assert decode_colour(data) is None
    assert not decodes(data)
    assert decode_unchanged(data) is None


def test_the_size_has_to_be_that_of_the_header() -> None:
    assert require_shape(DEEP, Header(6, 10)) is DEEP
    for header in (Header(6, 11), Header(7, 10), Header(10, 6)):
        with pytest.raises(FormatError, match="cannot be decoded"):
            require_shape(DEEP, header)
    colour = np.zeros((6, 10, 3), np.uint8)
    assert require_shape(colour, Header(6, 10)) is colour
    with pytest.raises(FormatError) as caught:
        require_shape(None, Header(6, 10))
    assert caught.value.reason == "corrupt"
