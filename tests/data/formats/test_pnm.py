from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tinyunet_deploy.data.decoding import decode_image, decode_labels
from tinyunet_deploy.errors import ImageError

HERE = Path("part.pgm")
GREY = np.arange(96, dtype=np.uint8).reshape(8, 12) * 2


def reason(data: bytes) -> str:
    with pytest.raises(ImageError) as caught:
        decode_image(data, HERE)
    return caught.value.reason


def plain(values: np.ndarray, between: bytes = b" ") -> bytes:
    return between.join(b"%d" % value for value in values.flat)


@pytest.mark.parametrize(
    "head", [b"P5\n12 8\n255\n", b"P5 12\t8\r255 ", b"P5\n# from a camera\n12 8 # size\n255\n"]
)
def test_binary_grey(head: bytes) -> None:
    assert np.array_equal(decode_image(head + GREY.tobytes(), HERE), GREY)


def test_plain_grey_colour_and_bitmaps() -> None:
    assert np.array_equal(decode_image(b"P2 12 8 255\n" + plain(GREY, b"\n"), HERE), GREY)
    colours = np.dstack([GREY, GREY[::-1], GREY])
    binary = b"P6 12 8 255\n" + colours.tobytes()
    wanted = np.abs(decode_image(binary, HERE) - colours @ np.array([0.299, 0.587, 0.114]))
    assert wanted.max() <= 1
    assert np.array_equal(
        decode_image(b"P3 12 8 255\n" + plain(colours), HERE), decode_image(binary, HERE)
    )
    bits = GREY % 3 == 0
    black = np.where(bits, 0, 255)
    packed = np.packbits(bits, axis=1).tobytes()
    assert np.array_equal(decode_image(b"P4 12 8\n" + packed, HERE), black)
    assert np.array_equal(decode_image(b"P1 12 8\n" + plain(bits), HERE), black)
    assert np.array_equal(decode_image(b"P1 12 8\n" + plain(bits, b""), HERE), black)


@pytest.mark.parametrize("largest", [1, 15, 100, 200])
def test_the_largest_value_is_white(largest: int) -> None:
    values = GREY % (largest + 1)
    image = decode_image(b"P5 12 8 %d\n" % largest + values.tobytes(), HERE)
    assert np.array_equal(image, (values.astype(int) * 510 + largest) // (2 * largest))


@pytest.mark.parametrize(("largest", "bits"), [(1023, 10), (4095, 12), (16383, 14)])
def test_more_than_8_bits_are_scaled_by_the_largest_value(largest: int, bits: int) -> None:
    values = np.linspace(0, largest, 96).astype(">u2").reshape(8, 12)
    data = b"P5 12 8 %d\n" % largest + values.tobytes()
    assert np.array_equal(decode_image(data, HERE), np.rint(values * (255 / largest)))
    assert np.array_equal(decode_image(data, HERE, bits=bits), decode_image(data, HERE))
    assert np.array_equal(decode_labels(data, HERE).values, values)


def test_16_bits_are_as_in_other_formats() -> None:
    values = np.linspace(0, 65535, 96).astype(">u2").reshape(8, 12)
    assert np.array_equal(decode_image(b"P5 12 8 65535\n" + values.tobytes(), HERE), values >> 8)


def test_several_images_are_refused() -> None:
    one = b"P5 12 8 255\n" + GREY.tobytes()
    with pytest.raises(ImageError, match="contains 3 images, not one") as caught:
        decode_image(one * 3, HERE)
    assert caught.value.reason == "several-images"


@pytest.mark.parametrize(
    ("data", "wanted"),
    [
        (b"P5 12 8 255\n" + GREY.tobytes()[:-1], "truncated"),
        (b"P2 12 8 255\n" + plain(GREY)[:-5], "truncated"),
        (b"P5 12 8", "truncated"),
        (b"P5 12 8 # cut", "truncated"),
        (b"P5 12 8 255", "truncated"),
        (b"P2 12 8 255\n" + plain(GREY) + b" 7", "corrupt"),
        (b"P2 12 8 255\n" + plain(GREY)[:-3] + b"x", "corrupt"),
        (b"P2 12 8 100\n" + plain(GREY), "corrupt"),
        (b"P5 12 8 100\n" + GREY.tobytes(), "corrupt"),
        (b"P2 1 1 255\n" + b" " * 1000 + b"7", "corrupt"),
        (b"P5 12 8 70000\n" + GREY.tobytes() * 2, "not-an-image"),
        (b"P5 12 -8 255\n" + GREY.tobytes(), "not-an-image"),
        (b"P5 0 8 255\n", "corrupt"),
        (b"P5 99999 99999 255\n", "too-large"),
        (b"P5 12 8 3000\n" + GREY.tobytes() * 2, "unsupported"),
    ],
)
def test_damaged_files_are_refused(data: bytes, wanted: str) -> None:
    assert reason(data) == wanted
