"""Strips and tiles of TIFF files, each written byte by byte."""

from __future__ import annotations

import io
import re
import struct
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import PIL.Image
import pytest
import tifffile
from numpy.typing import NDArray

from tinyunet_deploy.data.formats.header import FormatError
from tinyunet_deploy.data.formats.tiff_blocks import COMPRESSIONS, JPEG, Blocks, decode_blocks

HEIGHT, WIDTH = 4, 5
PIXELS = HEIGHT * WIDTH
NONE, LZW, DEFLATE, PACKBITS = 1, 5, 8, 32773
RAW = bytes(range(100, 100 + PIXELS))


def blocks(data: bytes, stored: Sequence[bytes], **changes: Any) -> tuple[bytes, Blocks]:
    """``stored`` behind each other in a file, and their description: 4 x 5 grey bytes each."""
    sizes = np.array([len(block) for block in stored], np.int64)
    options: dict[str, Any] = {
        "offsets": len(data) + np.cumsum(sizes) - sizes, "sizes": sizes,
        "height": HEIGHT, "width": WIDTH, "rows_in_last": HEIGHT, "per_plane": len(stored),
        "channels": 1, "planar": False, "bits": 8, "big_endian": False, "predictor": 1,
        "ycbcr": False, "jpeg_tables": b"",
    }  # fmt: skip
    return data + b"".join(stored), Blocks(**(options | changes))


def decoded(stored: Sequence[bytes], compression: int = NONE, **changes: Any) -> list[NDArray[Any]]:
    data, layout = blocks(bytes(8), stored, **changes)
    return list(decode_blocks(data, layout, compression))


def refusal(stored: Sequence[bytes], compression: int = NONE, **changes: Any) -> str:
    with pytest.raises(FormatError) as caught:
        decoded(stored, compression, **changes)
    assert caught.value.reason == "corrupt"
    return caught.value.what


def pixels(values: bytes, *shape: int) -> NDArray[np.uint8]:
    return np.frombuffer(values, np.uint8).reshape(shape)


def test_a_block_may_begin_behind_the_header_and_end_with_the_file() -> None:
    data, layout = blocks(bytes(8), [RAW])
    (block,) = decode_blocks(data, layout, NONE)
    assert np.array_equal(block, pixels(RAW, HEIGHT, WIDTH, 1))
    with pytest.raises(EOFError):
        list(decode_blocks(data[:-1], layout, NONE))
    (block,) = decoded([b"x"], height=1, width=1, rows_in_last=1)
    assert block.tolist() == [[[ord("x")]]]


def test_a_block_inside_the_header_or_without_bytes_is_missing() -> None:
    lacks = "lacks the data of a strip or tile"
    assert refusal([RAW], offsets=np.array([7])) == lacks
    assert refusal([RAW, RAW], offsets=np.array([8, 0])) == lacks
    assert refusal([RAW], sizes=np.array([0])) == lacks


@pytest.mark.parametrize("size", [1, 2**63 - 1])
def test_a_block_whose_end_has_no_number_of_63_bits_lies_behind_the_file(size: int) -> None:
    with pytest.raises(EOFError):
        decoded([RAW], offsets=np.array([2**63 - 1]), sizes=np.array([size]))


def test_the_last_strip_of_each_plane_is_shorter() -> None:
    short = RAW[:WIDTH]
    strips = decoded([RAW, short, RAW, short], per_plane=2, rows_in_last=1, planar=True)
    assert [len(strip) for strip in strips] == [4, 1, 4, 1]
    message = refusal([RAW, short[:-1]], rows_in_last=1)
    assert message == "has a strip or tile 1 that decodes to 4 of its 5 bytes"
    assert "tile 0 that decodes to 5 of its 20" in refusal([short, RAW], rows_in_last=1)


def test_bytes_behind_the_pixels_of_an_uncompressed_block_are_padding() -> None:
    (block,) = decoded([RAW + b"more"])
    assert np.array_equal(block, pixels(RAW, HEIGHT, WIDTH, 1))


@pytest.mark.parametrize("bits", [1, 2, 4])
@pytest.mark.parametrize("width", [1, 7, 8, 9, 16, 17])
def test_small_samples_are_packed_highest_bits_first_and_rows_begin_with_a_byte(
    bits: int, width: int
) -> None:
    values = np.random.default_rng(width).integers(0, 1 << bits, (3, width), np.uint8)
    rows = []
    for row in values.tolist():
        digits = "".join(f"{value:0{bits}b}" for value in row)
        digits += "0" * (-len(digits) % 8)
        rows.append(bytes(int(digits[at : at + 8], 2) for at in range(0, len(digits), 8)))
    stored = b"".join(rows)
    (block,) = decoded([stored], bits=bits, width=width, height=3, rows_in_last=3)
    assert block.dtype == np.uint8
    assert np.array_equal(block[..., 0], values)
    assert "decodes to" in refusal([stored[:-1]], bits=bits, width=width, height=3, rows_in_last=3)


@pytest.mark.parametrize("big_endian", [False, True])
def test_samples_of_two_bytes_are_in_the_order_of_the_file(big_endian: bool) -> None:
    values = np.arange(PIXELS * 3, dtype=np.uint16).reshape(HEIGHT, WIDTH, 3) * 1000
    stored = values.astype(">u2" if big_endian else "<u2").tobytes()
    (block,) = decoded([stored], bits=16, channels=3, big_endian=big_endian)
    assert block.dtype == np.uint16 and block.dtype.isnative
    assert np.array_equal(block, values)


@pytest.mark.parametrize("compression", [DEFLATE, 32946])
def test_both_codes_of_deflate_are_read_and_differences_are_added_up(compression: int) -> None:
    stored = zlib.compress(RAW)
    (block,) = decoded([stored], compression)
    assert np.array_equal(block, pixels(RAW, HEIGHT, WIDTH, 1))
    (block,) = decoded([stored], compression, predictor=2)
    assert np.array_equal(block, np.cumsum(pixels(RAW, HEIGHT, WIDTH, 1), 1, np.uint8))


def test_differences_are_of_compressed_files_only() -> None:
    (block,) = decoded([RAW], predictor=2)
    assert np.array_equal(block, pixels(RAW, HEIGHT, WIDTH, 1))


def test_a_deflated_last_strip_may_have_all_rows_of_a_strip_but_no_byte_more() -> None:
    for rows in (1, 2, HEIGHT):
        (block,) = decoded([zlib.compress(RAW[: rows * WIDTH])], DEFLATE, rows_in_last=1)
        assert np.array_equal(block[:, :, 0], [[*RAW[:WIDTH]]])
    end = "has a strip or tile 0 that does not end correctly"
    assert refusal([zlib.compress(RAW + b"\0")], DEFLATE, rows_in_last=1) == end
    assert refusal([zlib.compress(RAW)[:-1]], DEFLATE) == end
    damaged = zlib.compress(RAW)[:-1] + b"\0"
    assert refusal([zlib.compress(RAW), damaged], DEFLATE).endswith("tile 1 that is damaged")
    assert "decodes to 19 of its 20 bytes" in refusal([zlib.compress(RAW[:-1])], DEFLATE)


@pytest.mark.parametrize(
    ("stored", "values"),
    [
        (b"\x13" + RAW, RAW),
        (b"\0a\x12" + RAW[1:], b"a" + RAW[1:]),
        (b"\xfea\x10" + RAW[3:], b"aaa" + RAW[3:]),
        (b"\xffa" * 10, b"a" * 20),
        (b"\xeda", b"a" * 20),
        (b"\x80\x80\xeda", b"a" * 20),
        (b"\xeda\x80", b"a" * 20),
        (b"\xf7a\x80\x09" + RAW[10:], b"a" * 10 + RAW[10:]),
    ],
)
def test_runs_of_packbits(stored: bytes, values: bytes) -> None:
    """0 to 127: that many bytes and one more; 129 to 255: 257 less that many times the next."""
    (block,) = decoded([stored], PACKBITS)
    assert block.tobytes() == values


def test_the_longest_runs_of_packbits() -> None:
    literal = bytes(range(128))
    stored = b"\x7f" + literal + b"\x81z"
    (block,) = decoded([stored], PACKBITS, width=64)
    assert block.tobytes() == literal + b"z" * 128


@pytest.mark.parametrize(
    ("stored", "count"),
    [
        (b"\xeea", 19),  # a byte of the pixels less
        (b"\xeca", 21),  # and one more
        (b"\xeda\0b", 21),
        (b"\x13" + RAW[:-1], 20),  # the last run's end is missing
        (b"\xed", 20),
        (b"\x80", 0),
    ],
)
def test_runs_of_packbits_that_do_not_fill_the_pixels_exactly_are_refused(
    stored: bytes, count: int
) -> None:
    message = refusal([b"\xeda", stored], PACKBITS)
    assert message == f"has a strip or tile 1 that decodes to {count} of its 20 bytes"


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_packbits_strips_and_their_shorter_last_one_keep_their_order(count: int) -> None:
    stored = [bytes([0xED, index]) for index in range(count - 1)] + [b"\xfcz"]
    strips = decoded(stored * 2, PACKBITS, per_plane=count, rows_in_last=1, planar=True)
    wanted = [bytes([index]) * 20 for index in range(count - 1)] + [b"zzzzz"]
    assert [strip.tobytes() for strip in strips] == wanted * 2


def test_lzw_codes_that_end_too_early_are_refused() -> None:
    """Nine bits each: clear, three bytes, and the end of the data, which wants twenty."""
    codes = "".join(f"{code:09b}" for code in (256, 65, 66, 67, 257)).ljust(48, "0")
    stored = int(codes, 2).to_bytes(6, "big")
    assert "does not decode in full" in refusal([stored], LZW)
    (block,) = decoded([stored], LZW, height=1, width=3, rows_in_last=1)
    assert block.tobytes() == b"ABC"
    (block,) = decoded([stored], LZW, height=1, width=3, rows_in_last=1, predictor=2)
    assert block.ravel().tolist() == [65, 131, 198]


SIDE = 16


def jpeg_parts(mode: str = "L", width: int = SIDE, height: int = SIDE) -> tuple[bytes, bytes]:
    """The tables of a JPEG as TIFF stores them, and the JPEG without them and without JFIF."""
    y, x = np.mgrid[:height, :width]
    colours = np.dstack([8 * x, 255 - 8 * x, 9 * y]).astype(np.uint8)
    file = io.BytesIO()
    PIL.Image.fromarray(colours).convert(mode).save(file, "JPEG", quality=95, subsampling=0)
    data = file.getvalue()
    tables = rest = b"\xff\xd8"
    at = 2
    while data[at + 1] != 0xDA:
        (length,) = struct.unpack_from(">H", data, at + 2)
        segment = data[at : at + 2 + length]
        if data[at + 1] in (0xDB, 0xC4):
            tables += segment
        elif data[at + 1] != 0xE0:
            rest += segment
        at += 2 + length
    return tables + b"\xff\xd9", rest + data[at:]


def square(rows_in_last: int = SIDE, **changes: Any) -> dict[str, Any]:
    return {"height": SIDE, "width": SIDE, "rows_in_last": rows_in_last, **changes}


def luminance(tables: bytes, block: bytes) -> NDArray[np.uint8]:
    with PIL.Image.open(io.BytesIO(tables[:-2] + block[2:])) as picture:
        return np.asarray(picture.convert("L"))


def test_a_jpeg_block_is_decoded_with_the_tables_of_its_file_or_its_own() -> None:
    tables, rest = jpeg_parts()
    wanted = luminance(tables, rest)
    (block,) = decoded([rest], JPEG, **square(jpeg_tables=tables))
    assert np.array_equal(block[..., 0], wanted)
    (block,) = decoded([tables[:-2] + rest[2:]], JPEG, **square())
    assert np.array_equal(block[..., 0], wanted)


def test_a_jpeg_block_or_tables_without_begin_and_end_are_refused() -> None:
    tables, rest = jpeg_parts()
    for block in (b"\0\0" + rest[2:], rest[2:], b"\xff" + rest[1:2].replace(b"\xd8", b"\xd9")):
        message = refusal([rest, block], JPEG, **square(jpeg_tables=tables))
        assert message == "has a strip or tile 1 that is damaged"
    for wrong in (tables[:-2], tables[2:], b"\xff\xd9" + tables[2:], tables + b"\xd9", tables[:-1]):
        assert "0 that is damaged" in refusal([rest], JPEG, **square(jpeg_tables=wrong))


def test_the_file_says_whether_a_jpeg_block_is_ycbcr_and_not_its_components_names() -> None:
    tables, rest = jpeg_parts("RGB")
    names = rest.replace(b"\1\x11\0\2\x11\1\3\x11\1", b"R\x11\0G\x11\1B\x11\1")
    named = names.replace(b"\xff\xda\0\x0c\3\1\0\2\x11\3\x11", b"\xff\xda\0\x0c\3R\0G\x11B\x11")
    assert len({rest, names, named}) == 3
    with PIL.Image.open(io.BytesIO(tables[:-2] + rest[2:])) as picture:
        colours = np.asarray(picture.convert("RGB"))
        stored = np.asarray(picture.convert("YCbCr"))
    for block in (rest, named):
        options = square(jpeg_tables=tables, channels=3)
        (as_colours,) = decoded([block], JPEG, **options, ycbcr=True)
        assert np.abs(as_colours.astype(int) - colours).max() <= 2
        (as_stored,) = decoded([block], JPEG, **options, ycbcr=False)
        assert np.abs(as_stored.astype(int) - stored).max() <= 2


@pytest.mark.parametrize(
    ("width", "height", "fits"),
    [(16, 9, True), (16, 12, True), (16, 16, True), (16, 8, False), (16, 17, False),
     (15, 9, False), (17, 9, False)],
)  # fmt: skip
def test_a_jpeg_block_has_the_width_of_its_block_and_the_rows_of_the_image(
    width: int, height: int, fits: bool
) -> None:
    tables, rest = jpeg_parts(width=width, height=height)
    if fits:
        (block,) = decoded([rest], JPEG, **square(9, jpeg_tables=tables))
        assert np.array_equal(block[..., 0], luminance(tables, rest)[:9])
    else:
        message = refusal([rest], JPEG, **square(9, jpeg_tables=tables))
        assert message == "has a strip or tile 0 of another size"


@pytest.mark.parametrize(("mode", "channels"), [("L", 3), ("RGB", 1)])
def test_a_jpeg_block_of_other_channels_is_refused(mode: str, channels: int) -> None:
    tables, rest = jpeg_parts(mode)
    assert "another size" in refusal([rest], JPEG, **square(jpeg_tables=tables, channels=channels))


def test_a_jpeg_block_that_lacks_pixels_is_corrupt_and_its_file_not_cut_off() -> None:
    tables, rest = jpeg_parts(height=32)
    options = {"height": 32, "width": SIDE, "rows_in_last": 32, "jpeg_tables": tables}
    message = refusal([rest[:-30] + b"\xff\xd9"], JPEG, **options)
    assert message == "has a strip or tile 0 that lacks pixels"


def test_compressions_have_the_names_that_tifffile_gives_them() -> None:
    """65000 is a raw file of Kodak in ExifTool's list, and another format in tifffile's."""
    spellings = {
        "CCITT": "CCITTRLE|CCIRLEW", "CCITT T.4 fax": "CCITTFAX3", "CCITT T.6 fax": "CCITTFAX4",
        "old-style JPEG": "OJPEG", "lossy raw JPEG": "JPEG_LOSSY", "JPEG 2000": ".*JP(EG)?_?2000.*",
        "Nikon raw": "NIKON_NEF", "Kodak DCS": "DCS",
    }  # fmt: skip
    named = {code: name for code, name in COMPRESSIONS.items() if name and code != 65000}
    for code, name in named.items():
        wanted = spellings.get(name, name.replace(" ", "").upper() + ".*")
        assert re.fullmatch(wanted, tifffile.COMPRESSION(code).name), (code, name)
    assert COMPRESSIONS[65000] == "Kodak DCR"
    rare = {9, 10, 99, 103, 262, 32767, 32769, 32770, 32772, 33007, 34692, 34715, 34718, 34719}
    rare |= {34720, 48124, 65001, 65002}  # raw formats of cameras, faxes and documents
    assert {int(code) for code in tifffile.COMPRESSION} - set(COMPRESSIONS) <= rare
