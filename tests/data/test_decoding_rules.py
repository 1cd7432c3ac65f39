"""The rules of decoding that hold for every format: limits, depth, grey of colour, transparency."""

from __future__ import annotations

import io
import os
import struct
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray

from tinyunet_deploy.data import decoding
from tinyunet_deploy.data.decoding import decode_image, decode_labels, read_bytes, read_image
from tinyunet_deploy.data.encoding import encode_png
from tinyunet_deploy.errors import ImageError

HERE = Path("part.tif")
HEIGHT, WIDTH = 48, 80
MIB = 1 << 20


def noise(*shape: int, kind: type = np.uint8) -> NDArray[Any]:
    return np.random.default_rng(4).integers(0, np.iinfo(kind).max + 1, shape, kind)


def tiff(array: NDArray[Any], photometric: str, **options: Any) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, array, photometric=photometric, metadata=None, **options)
    return file.getvalue()


def chunk(name: bytes, content: bytes) -> bytes:
    checksum = struct.pack(">I", zlib.crc32(name + content))
    return struct.pack(">I", len(content)) + name + content + checksum


def png(width: int, height: int, bits: int, rows: bytes, *more: bytes) -> bytes:
    """A grey PNG file with more chunks before the pixels."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(rows))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(more) + pixels + chunk(b"IEND", b"")


def png16(array: NDArray[np.uint16], sbit: int | None = None) -> bytes:
    """A PNG file of 16-bit grey, with the depth of its values if given."""
    rows = b"".join(b"\0" + row.tobytes() for row in array.astype(">u2"))
    stated = [] if sbit is None else [chunk(b"sBIT", bytes([sbit]))]
    return png(array.shape[1], array.shape[0], 16, rows, *stated)


def refusal(data: bytes, **options: Any) -> ImageError:
    with pytest.raises(ImageError) as caught:
        decode_image(data, HERE, **options)
    return caught.value


@pytest.mark.parametrize(
    ("extra", "colour"),
    [
        ("unassalpha", False),
        ("unassalpha", True),
        ("assocalpha", False),
        ("assocalpha", True),
        ("unspecified", True),
    ],
)
@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_an_extra_sample_of_a_tiff_changes_no_grey_value(
    extra: str, colour: bool, planar: str, kind: type
) -> None:
    """Transparent or not: the camera's values are what is judged."""
    grey = noise(HEIGHT, WIDTH, kind=kind)
    shown = [grey, np.roll(grey, 3), np.roll(grey, 7)] if colour else [grey]
    photometric = "rgb" if colour else "minisblack"
    without = np.stack(shown, -1) if colour else grey
    expected = decode_image(tiff(without, photometric), HERE)
    for alpha in (np.zeros_like(grey), np.full_like(grey, np.iinfo(kind).max), grey[::-1]):
        samples = np.stack([*shown, alpha], 0 if planar == "separate" else -1)
        data = tiff(samples, photometric, planarconfig=planar, extrasamples=[extra])
        assert np.array_equal(decode_image(data, HERE), expected)


def test_a_transparent_pixel_of_16_bits_may_have_any_opacity_at_a_declared_depth() -> None:
    colours = np.full((HEIGHT, WIDTH, 4), 4095, np.uint16)
    colours[..., 3] = 65535
    data = cv2.imencode(".png", colours)[1].tobytes()
    assert (decode_image(data, HERE, bits=12) == 255).all()


def test_colour_becomes_luminance_as_opencv_reads_it() -> None:
    colours = noise(256, 256, 3)
    data = tiff(colours, "rgb")
    grey = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE)
    assert np.array_equal(decode_image(data, HERE), grey)


def test_16_bit_colour_is_rounded_to_8_bits_before_it_becomes_grey() -> None:
    colours = noise(256, 256, 3, kind=np.uint16)
    colours[0, :4] = [[0] * 3, [65535] * 3, [128] * 3, [129] * 3]
    rounded = np.rint(colours / 257).astype(np.uint8)
    grey = decode_image(tiff(colours, "rgb"), HERE)
    assert np.array_equal(grey, decode_image(tiff(rounded, "rgb"), HERE))
    assert grey[0, :4].tolist() == [0, 255, 0, 1]


SIZE = (32, 64)
"""Height and width that the model takes."""


@pytest.mark.parametrize(
    ("height", "width"), [(31, 64), (32, 63), (64, 32), (31, 200), (33, 64), (32, 65), (100, 100)]
)
def test_an_image_of_another_size_says_both(height: int, width: int) -> None:
    data = encode_png(noise(height, width))
    error = refusal(data, size=SIZE)
    assert error.reason == "wrong-size"
    assert error.what == f"has {width}x{height} pixels, but the model takes 64x32"
    assert decode_image(data, HERE).shape == (height, width)


def test_an_image_of_the_size_is_taken() -> None:
    assert decode_image(encode_png(noise(*SIZE)), HERE, size=SIZE).shape == SIZE


def test_the_largest_image_has_64_mebipixels() -> None:
    assert refusal(png(8192, 8192, 8, b"")).reason != "too-large"
    error = refusal(png(8193, 8192, 8, b""))
    assert error.reason == "too-large"
    assert error.what == "has 8193x8192 pixels, more than 67108864 in all"


@pytest.mark.parametrize(
    ("size", "limit"), [(None, 512 * MIB), ((16, 4096), 17 * MIB), ((1 << 20, 64), 512 * MIB)]
)
def test_a_file_of_more_bytes_than_its_image_can_need_is_not_read(
    tmp_path: Path, size: tuple[int, int] | None, limit: int
) -> None:
    path = tmp_path / "sparse.png"
    path.touch()
    os.truncate(path, limit + 1)
    with pytest.raises(ImageError) as caught:
        read_bytes(path, size=size)
    assert caught.value.reason == "too-large"
    assert caught.value.what == f"is larger than {limit // MIB} MiB"
    if limit < 20 * MIB:
        os.truncate(path, limit)
        assert len(read_bytes(path, size=size)) == limit


def test_what_may_not_be_read_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    os.mkfifo(tmp_path / "fifo")
    for name, reason, what in (
        ("fifo", "not-a-file", "is not a regular file"),
        (".", "unreadable", "is a folder that cannot be listed"),
    ):
        with pytest.raises(ImageError) as caught:
            read_image(tmp_path / name)
        assert (caught.value.reason, caught.value.what) == (reason, what)

    def denied(*_: object) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(decoding, "read_regular", denied)
    with pytest.raises(ImageError) as caught:
        read_image(tmp_path / "a.png")
    assert (caught.value.reason, caught.value.what) == ("unreadable", "Permission denied")


@pytest.mark.parametrize(
    ("largest", "told"),
    [
        (0, False),
        (1, True),
        (4095, True),
        (4096, True),
        (16383, True),
        (16384, False),
        (65535, False),
    ],
)
def test_a_16_bit_file_without_a_depth_that_uses_14_bits_or_fewer_is_told(
    largest: int, told: bool
) -> None:
    values = np.zeros((8, 8), np.uint16)
    values[3, 4] = largest
    seen: list[tuple[Path, int]] = []
    decode_image(png16(values), HERE, on_shallow=lambda *found: seen.append(found))
    assert seen == [(HERE, largest)] * told
    if largest < 1 << 15:
        seen.clear()
        decode_image(png16(values), HERE, bits=15, on_shallow=lambda *found: seen.append(found))
        assert seen == []
        decode_image(png16(values, 15), HERE, on_shallow=lambda *found: seen.append(found))
        in_doubt = largest in (
            4096,
            16384,
        )  # even, as a value that was scaled from 15 bits would be
        assert seen == [(HERE, largest)] * in_doubt
    seen.clear()
    decode_image(png16(values), HERE, bits=16, on_shallow=lambda *found: seen.append(found))
    assert seen == [], "a dark image whose depth is declared"


@pytest.mark.parametrize(
    ("depth", "values"),
    [
        (12, [4096, 7]),  # over 12 bits
        (14, [round(v * 65535 / 16383) for v in (0, 2047, 2048, 3000, 4095)]),
        (15, [2 * v for v in (0, 1, 500, 16383)]),
    ],
)
def test_values_that_fill_16_bits_from_the_top_are_read_as_16_bits(
    depth: int, values: list[int]
) -> None:
    array = np.array([values], np.uint16)
    assert np.array_equal(decode_image(png16(array, depth), HERE), array >> 8)


@pytest.mark.parametrize(("depth", "values"), [(12, [0, 0xFF2]), (14, [0, 0x3FFE]), (15, [1, 2])])
def test_values_with_low_bits_that_scaling_cannot_give_are_read_by_their_depth(
    depth: int, values: list[int]
) -> None:
    array = np.array([values], np.uint16)
    wanted = np.rint(array * (255 / ((1 << depth) - 1))).astype(np.uint8)
    assert np.array_equal(decode_image(png16(array, depth), HERE), wanted)


@pytest.mark.parametrize("kind", [".png", ".bmp", ".tiff", ".jpg", ".webp", ".pgm"])
def test_a_mask_file_is_read_as_stored_and_a_cut_one_refused_at_every_byte(kind: str) -> None:
    mask = np.where(noise(12, 20) > 127, 255, 0).astype(np.uint8)
    data = cv2.imencode(kind, mask)[1].tobytes()
    labels = decode_labels(data, HERE)
    assert (labels.displayed is None) == (kind != ".bmp"), "grey of a BMP file is a palette"
    assert labels.lossy == (kind == ".jpg")
    if not labels.lossy:
        values = labels.values
        assert np.array_equal(values if values.ndim == 2 else values[..., 0], mask)
    for length in range(len(data) - 8):
        with pytest.raises(ImageError):
            decode_labels(data[:length], HERE)


CHANNELS = {0: 1, 2: 3, 4: 2, 6: 4}
"""Colour type of a PNG file -> samples of a pixel."""


def camera_png(colour_type: int, sbit: list[int], *more: bytes) -> bytes:
    """A 16-bit PNG file of one grey of a 12-bit camera, opaque, that states the depths ``sbit``."""
    samples = np.full((8, 8, CHANNELS[colour_type]), 4003, ">u2")
    if colour_type in (4, 6):
        samples[..., -1] = 65535
    header = struct.pack(">IIBBBBB", 8, 8, 16, colour_type, 0, 0, 0)
    rows = b"".join(b"\0" + row.tobytes() for row in samples)
    parts = [chunk(b"IHDR", header), *more, chunk(b"sBIT", bytes(sbit))]
    parts += [chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.mark.parametrize(
    ("colour_type", "sbit"),
    [(0, [12]), (2, [10, 11, 12]), (2, [12, 9, 9]), (4, [12, 16]), (6, [10, 10, 12, 16])],
)
def test_the_depth_of_a_png_is_that_of_its_deepest_channel_but_not_of_its_transparency(
    colour_type: int, sbit: list[int]
) -> None:
    assert (decode_image(camera_png(colour_type, sbit), HERE) == 249).all(), "4003 of 4095"


@pytest.mark.parametrize(
    ("colour_type", "sbit"),
    [(0, []), (0, [8]), (0, [7]), (0, [16]), (0, [17]), (2, [12, 12]), (4, []), (6, [12, 12])],
)
def test_a_depth_that_no_png_can_state_is_passed_over(colour_type: int, sbit: list[int]) -> None:
    assert (decode_image(camera_png(colour_type, sbit), HERE) == 4003 >> 8).all()


def test_an_animation_of_one_frame_is_an_image_and_one_of_two_is_not() -> None:
    frames = [chunk(b"acTL", struct.pack(">II", count, 0)) for count in (1, 2)]
    assert decode_image(camera_png(0, [12], frames[0]), HERE).shape == (8, 8)
    assert refusal(camera_png(0, [12], frames[1])).reason == "several-images"
