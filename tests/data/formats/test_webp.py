from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

from tinyunet_deploy.data.decoding import decode_image, decode_labels
from tinyunet_deploy.data.formats import webp as webp_format
from tinyunet_deploy.data.formats.header import FormatError
from tinyunet_deploy.errors import ImageError

HERE = Path("part.webp")
GREY = np.arange(48 * 80, dtype=np.int64).reshape(48, 80).astype(np.uint8)


def webp(*arrays: np.ndarray, **options: Any) -> bytes:
    first, *more = [PIL.Image.fromarray(array) for array in arrays]
    file = io.BytesIO()
    first.save(file, "WEBP", append_images=more, save_all=bool(more), **options)
    return file.getvalue()


def reason(data: bytes) -> str:
    with pytest.raises(ImageError) as caught:
        decode_image(data, HERE)
    return caught.value.reason


def test_lossless_and_lossy_images() -> None:
    colours = np.dstack([GREY] * 3)
    assert np.array_equal(decode_image(webp(colours, lossless=True), HERE), GREY)
    smooth = (np.mgrid[:48, :80].sum(axis=0)).astype(np.uint8)
    lossy = decode_image(webp(np.dstack([smooth] * 3), quality=95), HERE)
    assert np.abs(lossy.astype(int) - smooth).max() <= 6


def test_transparency_changes_no_grey_value() -> None:
    colours = np.dstack([GREY, GREY, GREY, np.maximum(GREY[::-1], 1)])
    data = webp(colours, lossless=True, exact=True)
    assert np.array_equal(decode_image(data, HERE), GREY)
    assert np.array_equal(decode_labels(data, HERE).values, colours)


def test_an_animation_is_refused_with_its_count() -> None:
    frames = [np.full((16, 16, 3), value, np.uint8) for value in (0, 90, 200)]
    with pytest.raises(ImageError, match="contains 3 images, not one") as caught:
        decode_image(webp(*frames, lossless=True), HERE)
    assert caught.value.reason == "several-images"


@pytest.mark.parametrize("lossless", [True, False])
def test_a_cut_file_is_refused(lossless: bool) -> None:
    data = webp(np.random.default_rng(0).integers(0, 256, (48, 80, 3), np.uint8), lossless=lossless)
    for length in (12, 20, 30, len(data) // 2, len(data) - 1):
        assert reason(data[:length]) == "truncated"


def test_lost_data_are_noticed_though_the_sizes_fit() -> None:
    array = np.random.default_rng(0).integers(0, 256, (48, 80, 3), np.uint8)
    data = webp(array, lossless=True)
    for at in range(200, len(data) - 200, 500):
        damaged = data[:at] + data[at + 60 :] + bytes(60)
        try:
            assert not np.array_equal(decode_image(damaged, HERE), decode_image(data, HERE))
        except ImageError as error:
            assert error.reason == "corrupt"


def test_millions_of_chunks_are_not_walked_over() -> None:
    data = webp(np.dstack([GREY] * 3), lossless=True)
    more = data + b"abcd\0\0\0\0" * 1_000_000
    sized = more[:4] + (len(more) - 8).to_bytes(4, "little") + more[8:]
    with pytest.raises(ImageError, match="more than 10000 chunks"):
        decode_image(sized, HERE)


def riff(*chunks: bytes) -> bytes:
    content = b"WEBP" + b"".join(chunks)
    return b"RIFF" + struct.pack("<I", len(content)) + content


def chunk(name: bytes, content: bytes) -> bytes:
    return name + struct.pack("<I", len(content)) + content + bytes(len(content) % 2)


def extended(flags: int, width: int, height: int) -> bytes:
    """VP8X: the size of the canvas less one, in 24 bits."""
    sides = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    return chunk(b"VP8X", bytes([flags, 0, 0, 0]) + sides)


def lossless(width: int, height: int) -> bytes:
    sides = struct.pack("<I", width - 1 | (height - 1) << 14)
    return chunk(b"VP8L", b"\x2f" + sides)


def lossy(width: int, height: int) -> bytes:
    return chunk(b"VP8 ", bytes(6) + struct.pack("<HH", width, height))


def header_refusal(data: bytes) -> FormatError:
    with pytest.raises(FormatError) as caught:
        webp_format.read_header(data)
    return caught.value


@pytest.mark.parametrize(
    ("width", "height"), [(1, 1), (2, 256), (16384, 3), (3, 16384), (0x10000, 5), (5, 0x10000)]
)
def test_the_size_of_a_canvas(width: int, height: int) -> None:
    header = webp_format.read_header(riff(extended(0, width, height), lossless(2, 2)))
    assert (header.width, header.height) == (width, height)


@pytest.mark.parametrize(("width", "height"), [(0x12345, 0x6789A), (0xFEDCBA, 0x13579B)])
def test_every_byte_of_the_size_of_a_canvas_counts(width: int, height: int) -> None:
    header = webp_format.read_header(riff(extended(0x3D, width, height), lossless(2, 2)))
    assert (header.width, header.height) == (width, height)


@pytest.mark.parametrize(("width", "height"), [(1, 1), (16384, 2), (2, 16384), (1234, 5678)])
def test_the_size_of_a_lossless_image(width: int, height: int) -> None:
    data = riff(lossless(width, height))
    header = webp_format.read_header(data + b"after the end")
    assert (header.width, header.height, header.details) == (width, height, len(data))
    assert (header.bits, header.lossy, header.indirect) == (8, False, False)


@pytest.mark.parametrize(("width", "height"), [(1, 1), (16383, 2), (2, 16383), (1234, 5678)])
def test_the_size_of_a_lossy_image_is_without_its_scales(width: int, height: int) -> None:
    for scaled in (0, 1, 2, 3):
        data = riff(lossy(width | scaled << 14, height | (3 - scaled) << 14))
        header = webp_format.read_header(data)
        assert (header.width, header.height, header.lossy) == (width, height, True)


def test_labels_of_a_lossy_file_say_so() -> None:
    colours = np.dstack([GREY] * 3)
    assert decode_labels(webp(colours, quality=95), HERE).lossy
    assert not decode_labels(webp(colours, lossless=True), HERE).lossy


@pytest.mark.parametrize("flags", [0, 0x01, 0x3C, 0x3D, 0xFD])
def test_other_flags_do_not_make_an_animation(flags: int) -> None:
    assert webp_format.read_header(riff(extended(flags, 7, 8), lossy(7, 8))).width == 7
    error = header_refusal(riff(extended(flags | 2, 7, 8), lossy(7, 8)))
    assert (error.reason, error.what) == ("corrupt", "is an animation without frames")


def test_frames_make_an_animation_whatever_the_flags() -> None:
    frames = [chunk(b"ANMF", bytes(16))] * 2
    error = header_refusal(riff(extended(0, 7, 8), *frames))
    assert (error.reason, error.what) == ("several-images", "contains 2 images, not one")
    error = header_refusal(riff(extended(0, 7, 8), *frames, lossless(7, 8)))
    assert (error.reason, error.what) == ("several-images", "contains 3 images, not one")


def test_images_are_counted_as_they_are() -> None:
    frame = chunk(b"ANMF", bytes(16))
    error = header_refusal(riff(extended(2, 7, 8), frame))
    assert (error.reason, error.what) == ("several-images", "is an animation, if of one frame only")
    assert header_refusal(riff(extended(2, 7, 8))).what == "contains no image"
    assert header_refusal(riff(extended(0, 7, 8))).what == "contains no image"
    assert header_refusal(riff(lossy(7, 8), lossy(7, 8))).reason == "several-images"
    assert header_refusal(riff(lossless(7, 8)) * 2).reason == "several-images"


@pytest.mark.parametrize("length", [8, 9])
@pytest.mark.parametrize("beyond", [1, 2, 15, 1000])
def test_a_chunk_that_ends_after_the_file_is_truncated(length: int, beyond: int) -> None:
    data = riff(lossless(7, 8), b"teSt" + struct.pack("<I", length + beyond) + bytes(length))
    with pytest.raises(EOFError):
        webp_format.read_header(data + bytes(2000))


def test_chunks_fill_the_file_exactly() -> None:
    odd = b"teSt" + struct.pack("<I", 9) + bytes(9)
    error = header_refusal(riff(lossless(7, 8), odd))
    assert (error.reason, error.what) == ("corrupt", "has chunks that do not fill it")
    assert webp_format.read_header(riff(lossless(7, 8), odd + b"\0")).width == 7
    with pytest.raises(EOFError):
        webp_format.read_header(riff(odd + b"\0"))
