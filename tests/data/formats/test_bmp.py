from __future__ import annotations

import io
import struct
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from tinyunet_deploy.data.decoding import decode_image, decode_labels
from tinyunet_deploy.data.formats import bmp as bmp_format
from tinyunet_deploy.data.formats.header import FormatError, Header
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


def windows(
    bits: int,
    width: int = 9,
    height: int = 4,
    *,
    size: int = 40,
    planes: int = 1,
    compression: int = 0,
    colours: int = 0,
    table: bytes | None = None,
    pixels: bytes | None = None,
    masks: Sequence[int] = (),
) -> bytes:
    """A file with a Windows header of ``size`` bytes, black by default."""
    if compression == 3:
        masks = masks or ((0xF800, 0x7E0, 0x1F) if bits == 16 else (0xFF0000, 0xFF00, 0xFF))
        table = bytes(12 if size == 40 else 0)
    if table is None:
        table = bytes(4 * (colours or 1 << bits)) if bits <= 8 else b""
    if pixels is None:
        pixels = bytes(-(-bits * width // 32) * 4 * abs(height))
    first = 14 + size + len(table)
    head = struct.pack("<2sIHHI", b"BM", first + len(pixels), 0, 0, first)
    head += struct.pack("<IiiHHI", size, width, height, planes, bits, compression)
    head += struct.pack("<IiiII", 0, 0, 0, colours, 0) + bytes(size - 40) + table
    stored = struct.pack(f"<{len(masks)}I", *masks)
    return head[:54] + stored + head[54 + len(stored) :] + pixels


def packed(indices: np.ndarray, bits: int) -> bytes:
    """Rows of palette indices, the last first, each filled up to four bytes."""
    planes = np.unpackbits(indices[::-1, :, None].astype(np.uint8), axis=2)[:, :, 8 - bits :]
    rows = planes.reshape(len(indices), -1)
    return np.packbits(np.pad(rows, ((0, 0), (0, -rows.shape[1] % 32))), axis=1).tobytes()


def header_refusal(data: bytes) -> FormatError:
    with pytest.raises(FormatError) as caught:
        bmp_format.read_header(data)
    return caught.value


@pytest.mark.parametrize("bits", range(34))
def test_bits_of_a_pixel(bits: int) -> None:
    if bits in (1, 4, 8, 16, 24, 32):
        wanted = Header(4, 9, min(bits, 8), indirect=bits <= 8, details=None)
        for height in (4, -4):
            header = bmp_format.read_header(windows(bits, height=height))
            assert header.details.bits == bits
            assert replace(header, details=None) == wanted
        return
    error = header_refusal(windows(bits, compression=1))
    if bits == 2:
        assert (error.reason, error.what) == ("unsupported", "is a BMP of 2 bits a pixel")
    else:
        assert (error.reason, error.what) == ("corrupt", "has a damaged header")


def test_64_bits_of_a_pixel_are_named() -> None:
    error = header_refusal(windows(64))
    assert (error.reason, error.what) == ("unsupported", "is a BMP of 64 bits a pixel")


@pytest.mark.parametrize(("width", "planes"), [(-1, 1), (-9, 1), (9, 0), (9, 2), (-1, 0)])
def test_a_damaged_header(width: int, planes: int) -> None:
    error = header_refusal(windows(24, width, 4, planes=planes, pixels=bytes(200)))
    assert (error.reason, error.what) == ("corrupt", "has a damaged header")


def test_an_image_without_pixels_says_so() -> None:
    assert refusal(windows(24, 0, 4)).what == "has 0x4 pixels"


@pytest.mark.parametrize("size", [*range(40, 70), *range(106, 126)])
def test_only_known_header_sizes_are_read(size: int) -> None:
    if size in (40, 44, 48, 52, 56, 60, 64, 108, 124):
        assert bmp_format.read_header(windows(24, size=size)).width == 9
    else:
        assert header_refusal(windows(24, size=size)).reason == "not-an-image"


@pytest.mark.parametrize("size", range(16, 68, 4))
def test_a_short_header_of_os2_is_that_of_windows_without_its_end(size: int) -> None:
    indices = np.arange(36).reshape(4, 9) * 7
    palette = b"".join(bytes([value, value, value, 0]) for value in range(256))
    fields = struct.pack("<iiHHIIiiII", 9, 4, 1, 8, 0, 48, 0, 0, 0, 0) + bytes(24)
    head = struct.pack("<2sIHHII", b"BM", 0, 0, 0, 14 + size + 1024, size) + fields[: size - 4]
    data = head + palette + packed(indices, 8)
    assert np.array_equal(decode_image(data, HERE), indices)
    assert np.array_equal(decode_labels(data, HERE).values, indices)
    assert refusal(data[:-1]).reason == "truncated"


def test_a_second_image_behind_the_first_is_told() -> None:
    assert header_refusal(windows(24) * 2).reason == "several-images"
    assert bmp_format.read_header(windows(24) + b"BM and other words").width == 9


@pytest.mark.parametrize("size", [0, 28 * 4])
def test_a_header_with_fewer_rows_than_the_file_is_noticed(size: int) -> None:
    """By the size of the pixels if the file states it, else by that of the file."""

    def file(height: int, more: int = 0) -> bytes:
        data = windows(24, 9, 4)[:34] + struct.pack("<I", size) + windows(24, 9, 4)[38:]
        data = data[:2] + struct.pack("<I", len(data) + more) + data[6:] + bytes(more)
        return data[:22] + struct.pack("<i", height) + data[26:]

    for height in (1, 3, -3):
        assert header_refusal(file(height)).what == "has more rows than its header states"
    for more in (1, 2, 27):  # writers round sizes up
        assert bmp_format.read_header(file(4, more)).height == 4
    if size:
        assert bmp_format.read_header(file(4, 1000)).height == 4


def test_sizes_that_the_file_does_not_have_are_passed_over() -> None:
    for at in (2, 34):
        data = windows(24, 9, 4)
        assert bmp_format.read_header(data[:at] + struct.pack("<I", 9999) + data[at + 4 :])
    profile = windows(24, 9, 4, size=124)
    profile = profile[:2] + struct.pack("<I", len(profile) + 500) + profile[6:] + bytes(500)
    assert header_refusal(profile).what == "has more rows than its header states"
    assert bmp_format.read_header(profile[:130] + struct.pack("<I", 500) + profile[134:])
    old = os2() + bytes(80)
    old = old[:2] + struct.pack("<I", len(old)) + old[6:]
    assert header_refusal(old).what == "has more rows than its header states"


def test_an_image_in_another_format_inside_a_bmp_is_named() -> None:
    data = bytearray(windows(24))
    data[28:34] = struct.pack("<HI", 0, 4)
    assert header_refusal(bytes(data)).what == "is a BMP with JPEG compression"


@pytest.mark.parametrize("bits", [1, 4, 8, 16, 24, 32])
@pytest.mark.parametrize("width", [1, 31, 32, 33])
def test_the_last_byte_of_the_pixels_has_to_be_there(bits: int, width: int) -> None:
    data = windows(bits, width, 1, size=56)
    assert bmp_format.read_header(data).width == width
    with pytest.raises(EOFError):
        bmp_format.read_header(data[:-1])
    with pytest.raises(EOFError):
        bmp_format.read_header(os2()[:-1])
    deep = windows(32, width, 1, size=56, compression=3)
    assert bmp_format.read_header(deep).width == width
    with pytest.raises(EOFError):
        bmp_format.read_header(deep[:-1])


@pytest.mark.parametrize("height", [1, -1])
def test_more_pixels_than_the_file_has_bits_are_a_matter_of_the_size_limit(height: int) -> None:
    """So that a tiny file that claims an enormous image is too large, not cut off."""
    most = 8 * (14 + 40 + 8)
    with pytest.raises(EOFError):
        bmp_format.read_header(windows(1, most, height, pixels=b""))
    assert bmp_format.read_header(windows(1, most + 1, height, pixels=b"")).width == most + 1
    assert refusal(windows(24, 30_000, 30_000, pixels=b"")).reason == "too-large"


@pytest.mark.parametrize("bits", [1, 4, 8])
def test_the_palette_ends_before_the_pixels(bits: int) -> None:
    full = 4 << bits
    for colours in (0, 1, 2, 1 << bits):
        size = 4 * colours or full
        assert bmp_format.read_header(windows(bits, colours=colours, table=bytes(size)))
        error = header_refusal(windows(bits, colours=colours, table=bytes(size - 1)))
        assert (error.reason, error.what) == ("corrupt", "has pixels where its palette must be")
    colours = (1 << bits) + 1
    error = header_refusal(windows(bits, colours=colours))
    assert (error.reason, error.what) == ("corrupt", f"has a palette of {colours} colours")


@pytest.mark.parametrize(("bits", "table"), [(1, 6), (4, 48), (8, 768), (24, 0)])
def test_the_palette_of_an_os_2_file_has_three_bytes_a_colour(bits: int, table: int) -> None:
    def file(table: int) -> bytes:
        head = struct.pack("<2sIHHIIHHHH", b"BM", 0, 0, 0, 26 + table, 12, 1, 1, 1, bits)
        return head + bytes(max(table, 0) + 4)

    assert bmp_format.read_header(file(table)).details.bits == bits
    assert header_refusal(file(table - 1)).reason == "corrupt"


@pytest.mark.parametrize(
    ("size", "compression", "masks"), [(40, 0, 0), (40, 3, 12), (56, 0, 0), (56, 3, 0), (108, 3, 0)]
)
def test_masks_of_the_colours_follow_the_shortest_header_only(
    size: int, compression: int, masks: int
) -> None:
    data = windows(32, size=size, compression=compression)
    assert bmp_format.read_header(data).details.bits == 32
    first = struct.pack("<I", 14 + size + masks - 1)
    assert header_refusal(data[:10] + first + data[14:]).reason == "corrupt"


@pytest.mark.parametrize("compression", range(16))
def test_compressions(compression: int) -> None:
    names = {4: "JPEG", 5: "PNG", 6: "alpha masks", 11: "CMYK", 12: "CMYK", 13: "CMYK"}
    data = windows(16, size=56, compression=compression)
    old = windows(16, size=64, compression=compression)
    if compression in names:
        for error in (header_refusal(data), header_refusal(old)):
            assert error.reason == "unsupported"
            assert error.what == f"is a BMP with {names[compression]} compression"
    elif compression > 3:
        assert header_refusal(data).what == "has a damaged header"
    else:
        assert bmp_format.read_header(data).details.bits == 16
    if compression < 3:
        assert bmp_format.read_header(old).details.bits == 16
    elif compression not in names:
        assert header_refusal(old).what == "is a BMP with Huffman or 24-bit run-length compression"


@pytest.mark.parametrize("compression", [1, 2])
def test_run_length_pixels_may_be_shorter_than_the_image(compression: int) -> None:
    data = windows(8, compression=compression, pixels=b"")
    assert bmp_format.read_header(data).width == 9


GREYS = [[0, 255], [0, 1], [255, 0], [3, 9], [0], list(range(4)), list(range(16))]


@pytest.mark.parametrize("bits", [1, 4, 8])
@pytest.mark.parametrize("palette", GREYS)
def test_a_palette_of_greys_changes_no_label(bits: int, palette: list[int]) -> None:
    colours = min(len(palette), 1 << bits)
    indices = np.random.default_rng(0).integers(0, colours, (5, 37)).astype(np.uint8)
    table = b"".join(bytes([grey, grey, grey, 0]) for grey in palette[:colours])
    data = windows(bits, 37, 5, colours=colours, table=table, pixels=packed(indices, bits))
    labels = decode_labels(data, HERE)
    assert np.array_equal(labels.values, indices)
    assert labels.values.dtype == np.uint8
    assert np.array_equal(labels.displayed, np.array(palette)[indices])


@pytest.mark.parametrize("bits", [4, 8])
def test_a_palette_index_without_a_colour_is_refused(bits: int) -> None:
    indices = np.array([[0, 1, 9], [2, 3, 4]])
    for colours in (9, 10):
        table = bytes(range(4 * colours))
        data = windows(bits, 3, 2, colours=colours, table=table, pixels=packed(indices, bits))
        if colours == 10:
            assert np.array_equal(decode_labels(data, HERE).values, indices)
            assert np.array_equal(decode_image(data, HERE), 4 * indices + 1)
            continue
        assert "a palette of 9 colours, but pixels of entry 9" in str(refusal(data))
        with pytest.raises(ImageError, match="pixels of entry 9"):
            decode_labels(data, HERE)


def test_run_length_labels() -> None:
    rows = b"\x03\x01\x02\x00\x00\x00" + b"\x00\x05\x01\x01\x00\x00\x01\x00\x00\x00" + b"\x00\x01"
    table = bytes(4) + b"\xff\xff\xff\0"
    data = windows(8, 5, 2, compression=1, colours=2, table=table, pixels=rows)
    assert decode_labels(data, HERE).values.tolist() == [[1, 1, 0, 0, 1], [1, 1, 1, 0, 0]]
    four = b"\x00\x05\x11\x00\x10\x00\x00\x00" + b"\x04\x10\x01\x00\x00\x01"
    data = windows(4, 5, 2, compression=2, colours=2, table=table, pixels=four)
    assert decode_labels(data, HERE).values.tolist() == [[1, 0, 1, 0, 0], [1, 1, 0, 0, 1]]


@pytest.mark.parametrize(
    ("pixels", "words"),
    [
        (b"\x08\x01\x00\x00" * 3 + b"\x00\x01", "leave some out"),
        (b"\x08\x01\x00\x00" * 3 + bytes(60), "leave some out"),
        (b"\x08\x01\x00\x00" * 3 + b"\x07\x01\x00\x01", "leave some out"),
        (b"\x07\x01\x00\x00" + b"\x08\x01\x00\x00" * 3 + b"\x00\x01", "leave some out"),
        (b"\x00\x02\x01\x00\x07\x01\x00\x00" + b"\x08\x01\x00\x00" * 3, "leave some out"),
        (b"\x09\x01\x00\x00" + b"\x08\x01\x00\x00" * 3 + b"\x00\x01", "beyond a row"),
        (b"\x08\x01\x00\x00" * 8 + b"\x00\x01", "more run-length pixels"),
        (b"\x08\x01\x00\x00" * 3, "ends before the image does"),
        (b"\x08\x01\x00\x00" * 3 + b"\x00\x08\1\1", "ends before the image does"),
    ],
)
def test_run_length_pixels_fill_the_image_exactly(pixels: bytes, words: str) -> None:
    whole = windows(8, 8, 4, compression=1, pixels=b"\x08\x01\x00\x00" * 4 + b"\x00\x01")
    assert np.array_equal(decode_labels(whole, HERE).values, np.ones((4, 8)))
    data = windows(8, 8, 4, compression=1, pixels=pixels)
    assert words in str(refusal(data))
    with pytest.raises(ImageError, match=words):
        decode_labels(data, HERE)


COLOURS = np.random.default_rng(0).integers(0, 256, (2, 3, 3)).astype(np.uint32)


def masked(masks: tuple[int, int, int], bits: int, size: int) -> bytes:
    """``COLOURS`` with each channel where its mask says."""
    values = np.zeros((2, 4), np.uint32)[:, : 3 if bits == 32 else 4]
    for channel, mask in enumerate(masks):
        lowest, length = (mask & -mask).bit_length() - 1, mask.bit_count()
        values[:, :3] |= (COLOURS[..., channel] >> 8 - min(length, 8)) << lowest
    stored = values[::-1].astype(f"<u{bits // 8}").tobytes()
    return windows(bits, 3, 2, size=size, compression=3, masks=masks, pixels=stored)


@pytest.mark.parametrize(
    ("masks", "bits", "sizes"),
    [
        ((0x7C00, 0x3E0, 0x1F), 16, (40,)),
        ((0xF800, 0x7E0, 0x1F), 16, (40,)),
        ((0xFF0000, 0xFF00, 0xFF), 32, (40, 56, 108, 124)),
        ((0xFF, 0xFF00, 0xFF0000), 32, (56, 108, 124)),
        ((0xFF000000, 0xFF0000, 0xFF00), 32, (56, 108, 124)),
    ],
)
def test_usual_masks_of_the_colours_are_read(
    masks: tuple[int, int, int], bits: int, sizes: tuple[int, ...]
) -> None:
    coarse = COLOURS >> 3 << 3 if bits == 16 else COLOURS
    for size in sizes:
        values = decode_labels(masked(masks, bits, size), HERE).values[..., :3]
        assert np.abs(values.astype(int) - coarse).max() <= (7 if bits == 16 else 0)


@pytest.mark.parametrize(
    ("masks", "bits", "size"),
    [
        ((0xF00, 0xF0, 0xF), 16, 40),
        ((0x1F, 0x7E0, 0xF800), 16, 40),
        ((0xFF, 0xFF00, 0xFF0000), 32, 40),
        ((0xFF, 0xFF00, 0xFF0000), 32, 52),
        ((0xFF, 0xFF, 0xFF), 32, 124),
        ((0x3FF00000, 0xFFC00, 0x3FF), 32, 40),
        ((0x3FF00000, 0xFFC00, 0x3FF), 32, 124),
    ],
)
def test_other_masks_of_the_colours_are_named(
    masks: tuple[int, int, int], bits: int, size: int
) -> None:
    error = header_refusal(masked(masks, bits, size))
    assert error.reason == "unsupported"
    assert f"the colour masks {masks[0]:#x}, {masks[1]:#x} and {masks[2]:#x}" in error.what


@pytest.mark.parametrize("height", [2, -2])
def test_a_fourth_byte_that_varies_is_alpha(height: int) -> None:
    pixels = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    rows = pixels if height < 0 else pixels[::-1]
    values = decode_labels(windows(32, 3, height, pixels=rows.tobytes()), HERE).values
    assert np.array_equal(values, pixels[..., [2, 1, 0, 3]])
    pixels[..., 3] = 7
    same = decode_labels(windows(32, 3, height, pixels=rows.tobytes()), HERE).values
    assert np.array_equal(same, pixels[..., [2, 1, 0]])


def test_labels_of_16_bits_are_the_stored_colours() -> None:
    red, green, blue = 29, 8, 24
    pixels = struct.pack("<HH", red << 10 | green << 5 | blue, 0)
    values = decode_labels(windows(16, 1, 1, pixels=pixels), HERE).values
    assert values.tolist() == [[[red << 3, green << 3, blue << 3]]]
