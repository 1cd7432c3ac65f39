from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tinyunet_deploy.data.decoding import decode_image, decode_labels
from tinyunet_deploy.data.formats import pnm
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


def refusal(data: bytes) -> ImageError:
    with pytest.raises(ImageError) as caught:
        decode_image(data, HERE)
    return caught.value


@pytest.mark.parametrize(
    ("kind", "largest", "bits", "depth", "channels"),
    [
        (1, None, 8, None, 1),
        (2, 255, 8, None, 1),
        (2, 511, 16, 9, 1),
        (3, 255, 8, None, 3),
        (4, None, 8, None, 1),
        (5, 1, 8, None, 1),
        (5, 65535, 16, 16, 1),
        (6, 1023, 16, 10, 3),
    ],
)
def test_header(
    kind: int, largest: int | None, bits: int, depth: int | None, channels: int
) -> None:
    text = b"P%d 12 8" % kind + (b"" if largest is None else b" %d" % largest) + b"\n"
    header = pnm.read_header(text)
    assert (header.height, header.width, header.bits, header.depth) == (8, 12, bits, depth)
    assert header.indirect == (largest is None), "1 is black in a bitmap"
    assert header.details == (kind, largest or 1, len(text))
    assert header.details.channels == channels


@pytest.mark.parametrize("kind", [0, 7, 8])
def test_there_are_six_kinds(kind: int) -> None:
    error = refusal(b"P%d 12 8 255\n" % kind + GREY.tobytes())
    assert error.reason == "not-an-image"
    assert error.what == "is not a PNG, JPEG, BMP, TIFF, WebP or PNM image"


@pytest.mark.parametrize("largest", [0, 65536, 999_999_999])
def test_the_largest_value_is_1_to_65535(largest: int) -> None:
    error = refusal(b"P5 12 8 %d\n" % largest + GREY.tobytes() * 2)
    assert (error.reason, error.what) == (
        "not-an-image",
        "is not a PNM image: its header is damaged",
    )


def test_a_header_has_4096_bytes_at_most() -> None:
    def file(size: int) -> bytes:
        comment = b"#" + b"x" * (size - len(b"P5 #\n12 8 255\n")) + b"\n"
        return b"P5 " + comment + b"12 8 255\n" + GREY.tobytes()

    assert np.array_equal(decode_image(file(4096), HERE), GREY)
    with pytest.raises(ImageError):
        decode_image(file(4097), HERE)


@pytest.mark.parametrize(("size", "wanted"), [(4095, "truncated"), (4096, "unsupported")])
def test_a_comment_that_does_not_end_is_cut_off_or_too_long(size: int, wanted: str) -> None:
    assert reason((b"P5 12 8 #" + b"x" * 5000)[:size]) == wanted


@pytest.mark.parametrize("end", [b"12 8 2", b"12 8 255", b"12 8 25", b"1"])
def test_a_header_that_is_too_long_is_called_so(end: bytes) -> None:
    data = b"P5 #" + b"x" * (4096 - 5 - len(end)) + b"\n" + end + b"5 " + GREY.tobytes()
    with pytest.raises(ImageError, match="a header of more than 4096 bytes") as caught:
        decode_image(data, HERE)
    assert caught.value.reason == "unsupported"


@pytest.mark.parametrize("between", [b"\n", b"\r\n", b" # made by\r\n", b"\n# by\n# me\n"])
def test_what_stands_between_header_and_samples_never_shifts_them(between: bytes) -> None:
    for first in (10, 13, 35):  # line feed, carriage return, "#"
        grey = GREY.copy()
        grey[0, :3] = first
        data = b"P5 12 8 255" + between + grey.tobytes()
        assert np.array_equal(decode_image(data, HERE), grey)
    assert reason(b"P5 12 8 255" + between + GREY.tobytes()[: -len(between)]) == "truncated"


def test_a_line_feed_behind_the_samples_never_shifts_them() -> None:
    grey = GREY.copy()
    grey[0, 0] = ord("\n")
    assert np.array_equal(decode_image(b"P5 12 8 255\n" + grey.tobytes() + b"\n", HERE), grey)


def test_every_value_up_to_white() -> None:
    values = np.arange(256, dtype=np.uint8).reshape(8, 32)
    assert np.array_equal(decode_image(b"P5 32 8 255\n" + values.tobytes(), HERE), values)


@pytest.mark.parametrize("width", range(1, 26))
def test_rows_of_a_bitmap_fill_whole_bytes(width: int) -> None:
    bits = np.random.default_rng(width).integers(0, 2, (5, width))
    data = b"P4 %d 5\n" % width + np.packbits(bits, axis=1).tobytes()
    assert np.array_equal(decode_labels(data, HERE).values, bits)
    assert np.array_equal(decode_image(data + b"\n", HERE), 255 * (1 - bits))
    assert reason(data[:-1]) == "truncated"
    assert refusal(data * 2).what == "contains 2 images, not one"


@pytest.mark.parametrize(
    ("head", "row"), [(b"P5 12 8 65535\n", 24), (b"P6 6 8 1023\n", 36), (b"P5 24 8 255\n", 24)]
)
def test_binary_samples_end_exactly(head: bytes, row: int) -> None:
    data = head + b"\1" * row * 8
    assert pnm.decode(data, pnm.read_header(data)).shape[0] == 8
    assert reason(data[:-1]) == "truncated"
    assert refusal(data * 2).what == "contains 2 images, not one"


@pytest.mark.parametrize("more", [b"\n", b"\r\n", b"\n\n", b" " * 11])
def test_white_space_behind_the_samples_is_passed_over(more: bytes) -> None:
    assert np.array_equal(decode_image(b"P5 12 8 255\n" + GREY.tobytes() + more, HERE), GREY)


@pytest.mark.parametrize("more", [b"xy\n", b"P5", b"P5x", b"P9 ", b"\0\0 ", b" " * 12, bytes(96)])
def test_other_bytes_behind_the_samples_are_not(more: bytes) -> None:
    """They may be samples for which the header states too small a size or largest value."""
    error = refusal(b"P5 12 8 255\n" + GREY.tobytes() + more)
    assert error.reason == "corrupt"
    assert error.what == f"has {len(more)} bytes more than its header states"


def test_white_space_between_images_does_not_hide_the_second() -> None:
    for between in (b"\n", b"\r\n", b" " * 50):
        images = between.join([b"P5 12 8 255\n" + GREY.tobytes()] * 3)
        assert refusal(images).what == "contains 3 images, not one"


@pytest.mark.parametrize(
    ("images", "count"), [(999, "999"), (1000, "1000 or more"), (1001, "1000 or more")]
)
def test_counting_the_images_of_a_file_stops_at_1000(images: int, count: str) -> None:
    assert refusal(b"P5 1 1 255\nx" * images).what == f"contains {count} images, not one"


@pytest.mark.parametrize(("kind", "text"), [(1, b"1"), (2, b"7"), (3, b"7 7")])
def test_a_plain_file_has_one_image(kind: int, text: bytes) -> None:
    """Text of one, two or three bytes, so that another image would begin where a binary one can."""
    head = b"P%d 1 1" % kind + (b"\n" if kind == 1 else b" 255\n")
    error = refusal(head + text + head + text)
    assert (error.reason, error.what) == ("corrupt", "has samples that are not numbers")


@pytest.mark.parametrize("count", [1, 2, 5])
def test_plain_samples_have_16_bytes_of_text_each_and_16_more(count: int) -> None:
    head = b"P2 %d 1 255\n" % count
    text = b"9 " * count
    most = 16 * (count + 1)
    image = decode_image(head + text.ljust(most), HERE)
    assert image.tolist() == [[9] * count]
    error = refusal(head + text.ljust(most + 1))
    assert (error.reason, error.what) == ("corrupt", "has more text than its samples need")
