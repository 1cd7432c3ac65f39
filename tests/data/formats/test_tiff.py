"""TIFF files, written byte by byte here or by tifffile and Pillow."""

from __future__ import annotations

import io
import itertools
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import tifffile
from numpy.typing import NDArray

from tinyunet_deploy.data.decoding import decode_image, decode_labels
from tinyunet_deploy.errors import ImageError

HERE = Path("part.tif")
HEIGHT, WIDTH = 40, 56
COMPRESSIONS = (None, "lzw", "zlib", "packbits")


def grey() -> NDArray[np.uint8]:
    return (np.arange(HEIGHT * WIDTH) % 251).reshape(HEIGHT, WIDTH).astype(np.uint8)


def noise(shape: Sequence[int], kind: type = np.uint8) -> NDArray[Any]:
    return np.random.default_rng(0).integers(0, np.iinfo(kind).max + 1, shape, kind)


def written(array: NDArray[Any], **options: Any) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, array, metadata=None, **{"photometric": "minisblack", **options})
    return file.getvalue()


def directory(
    fields: dict[int, int | Sequence[int]], pixels: bytes = b"", *, following: int = 0
) -> bytes:
    """A little-endian TIFF of one directory; tag 273 is set to the place of ``pixels``."""
    fields = {**fields}
    at = 8 + len(pixels)
    fields.setdefault(273, 8)
    heap, heap_at = b"", at + 2 + 12 * len(fields) + 4
    entries = b""
    for tag, value in sorted(fields.items()):
        values = [value] if isinstance(value, int) else list(value)
        packed = struct.pack(f"<{len(values)}I", *values)
        if len(packed) > 4:
            place, heap = struct.pack("<I", heap_at + len(heap)), heap + packed
        else:
            place = packed.ljust(4, b"\0")
        entries += struct.pack("<HHI", tag, 4, len(values)) + place
    head = b"II*\0" + struct.pack("<I", at) + pixels
    return head + struct.pack("<H", len(fields)) + entries + struct.pack("<I", following) + heap


def plain(**changes: int | Sequence[int]) -> bytes:
    """``grey`` in one strip, uncompressed, with changed fields: ``t258=12`` sets tag 258."""
    fields: dict[int, int | Sequence[int]] = {
        256: WIDTH, 257: HEIGHT, 258: 8, 259: 1, 262: 1, 277: 1, 278: HEIGHT, 279: WIDTH * HEIGHT,
    }  # fmt: skip
    fields |= {int(name[1:]): value for name, value in changes.items()}
    return directory(fields, grey().tobytes())


def refusal(data: bytes) -> ImageError:
    with pytest.raises(ImageError) as caught:
        decode_image(data, HERE)
    return caught.value


def test_the_files_written_here_are_read() -> None:
    assert np.array_equal(decode_image(plain(), HERE), grey())


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_strips_tiles_byte_orders_and_bigtiff_give_the_stored_values(
    compression: str | None, kind: type
) -> None:
    array = noise((HEIGHT, WIDTH), kind)
    layouts: list[dict[str, Any]] = [
        {"rowsperstrip": 1}, {"rowsperstrip": 7}, {"rowsperstrip": HEIGHT}, {"tile": (16, 32)},
    ]  # fmt: skip
    for layout, order, big in itertools.product(layouts, "<>", (False, True)):
        predictors = (False, True) if compression in ("lzw", "zlib") else (False,)
        for predictor in predictors:
            data = written(
                array, compression=compression, predictor=predictor, byteorder=order, bigtiff=big,
                **layout,
            )  # fmt: skip
            assert np.array_equal(decode_labels(data, HERE).values, array), (layout, order, big)


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("planar", [False, True])
def test_colours_are_read_whether_their_planes_are_apart_or_not(
    compression: str | None, planar: bool
) -> None:
    colours = noise((HEIGHT, WIDTH, 3))
    array = np.moveaxis(colours, 2, 0) if planar else colours
    config = "separate" if planar else "contig"
    for layout in ({"rowsperstrip": 9}, {"tile": (16, 16)}):
        data = written(
            array, photometric="rgb", planarconfig=config, compression=compression, **layout
        )
        assert np.array_equal(decode_labels(data, HERE).values, colours)
        wanted = colours @ np.array([0.299, 0.587, 0.114])
        assert np.abs(decode_image(data, HERE) - wanted).max() <= 1


def test_white_is_zero_bilevel_palette_and_cmyk_are_shown_as_grey() -> None:
    assert np.array_equal(
        decode_image(written(255 - grey(), photometric="miniswhite"), HERE), grey()
    )
    bilevel = grey() > 120
    assert np.array_equal(decode_image(written(bilevel), HERE), np.where(bilevel, 255, 0))
    colours = np.tile(np.arange(256, dtype=np.uint16)[::-1] * 257, (3, 1))
    palette = written(grey(), photometric="palette", colormap=colours)
    assert np.array_equal(decode_image(palette, HERE), 255 - grey())
    ink = np.zeros((HEIGHT, WIDTH, 4), np.uint8)
    ink[..., 3] = 255 - grey()
    assert np.array_equal(decode_image(written(ink, photometric="separated"), HERE), grey())


@pytest.mark.parametrize("compression", [*COMPRESSIONS, "jpeg"])
@pytest.mark.parametrize("layout", [{"rowsperstrip": 8}, {"tile": (16, 16)}])
def test_a_block_that_lost_its_end_is_refused(
    compression: str | None, layout: dict[str, Any]
) -> None:
    """The rest of the file is whole, so the strip ends where other data begin."""
    data = written(noise((HEIGHT, WIDTH)), compression=compression, **layout)
    whole = decode_image(data, HERE)
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        page = file.pages[0]
        sizes = page.tags["TileByteCounts" if "tile" in layout else "StripByteCounts"]
        kind, count, at = sizes.dtype, sizes.count, sizes.valueoffset
    letter = {3: "H", 4: "I"}[int(kind)]
    stored = struct.unpack_from(f"<{count}{letter}", data, at)
    for index in (0, 1, count - 1):
        for lost in (1, 3, stored[index] // 2, stored[index]):
            shorter = [*stored]
            shorter[index] -= lost
            changed = bytearray(data)
            struct.pack_into(f"<{count}{letter}", changed, at, *shorter)
            if compression == "lzw" and lost == 1:  # the code that says the data end
                assert np.array_equal(decode_image(bytes(changed), HERE), whole)
                continue
            assert refusal(bytes(changed)).reason in ("corrupt", "truncated"), (index, lost)


@pytest.mark.parametrize("compression", ["lzw", "zlib", "packbits"])
def test_bytes_lost_inside_a_strip_are_noticed_or_change_nothing(compression: str) -> None:
    """Taken out of its middle, so that offsets and sizes still fit."""
    array = np.repeat(noise((HEIGHT, 8)), 7, axis=1)
    data = written(array, compression=compression, rowsperstrip=HEIGHT)
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        begin, size = file.pages[0].dataoffsets[0], file.pages[0].databytecounts[0]
    for at in range(begin + 5, begin + size - 40, 29):
        damaged = data[:at] + data[at + 9 : begin + size] + bytes(9) + data[begin + size :]
        assert refusal(damaged).reason == "corrupt", at


def test_an_adler_checksum_is_verified() -> None:
    stream = zlib.compress(grey().tobytes())
    fields = {
        256: WIDTH, 257: HEIGHT, 258: 8, 259: 8, 262: 1, 277: 1, 278: HEIGHT, 279: len(stream),
    }  # fmt: skip
    assert np.array_equal(decode_image(directory(fields, stream), HERE), grey())
    damaged = stream[:-1] + bytes([stream[-1] ^ 1])
    assert refusal(directory(fields, damaged)).reason == "corrupt"
    longer = zlib.compress(grey().tobytes() + b"\0")
    assert refusal(directory({**fields, 279: len(longer)}, longer)).reason == "corrupt"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"t273": 0}, "corrupt"),
        ({"t273": 10_000_000}, "truncated"),
        ({"t279": 0}, "corrupt"),
        ({"t279": 10_000_000}, "truncated"),
        ({"t279": WIDTH * HEIGHT - 1}, "corrupt"),
        ({"t278": HEIGHT // 2}, "corrupt"),
        ({"t278": 0}, "corrupt"),
        ({"t273": [8, 8]}, "corrupt"),
        ({"t279": [100, 100]}, "corrupt"),
        ({"t257": 2 * HEIGHT}, "corrupt"),
        ({"t257": 0}, "corrupt"),
        ({"t262": 99}, "corrupt"),
        ({"t322": 16, "t323": 1 << 30, "t324": 8, "t325": 100}, "corrupt"),
        ({"t322": 1 << 14, "t323": 1 << 14, "t324": 8, "t325": 100}, "too-large"),
    ],
)
def test_a_table_of_strips_that_does_not_fit_is_refused(
    change: dict[str, Any], reason: str
) -> None:
    assert refusal(plain(**change)).reason == reason


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (plain(t258=12), "12-bit packed samples"),
        (plain(t258=32), "32-bit samples"),
        (plain(t258=64, t339=3), "64-bit floating-point samples"),
        (written(grey().astype(np.float32)), "32-bit floating-point samples"),
        (plain(t339=2), "8-bit signed integer samples"),
        (written(grey().astype(np.int16)), "16-bit signed integer samples"),
        (written(grey().astype(np.complex64)), "64-bit complex samples"),
        (written(noise((HEIGHT, WIDTH, 5)), photometric="minisblack", planarconfig="contig"),
         "5 channels"),
        (plain(t259=4), "CCITT T.6 fax compression"),
        (plain(t259=34712), "JPEG 2000 compression"),
        (plain(t259=50000), "zstd compression"),
        (plain(t259=50001), "WebP compression"),
        (plain(t259=4711), "unknown compression (4711)"),
        (plain(t262=32803), "colour filter array"),
        (plain(t262=8, t277=3), "L*a*b*"),
        (plain(t266=2), "reversed order"),
        (plain(t259=8, t317=3), "predictor 3"),
    ],
)  # fmt: skip
def test_a_variant_that_is_not_read_is_named_and_not_called_corrupt(
    data: bytes, words: str
) -> None:
    error = refusal(data)
    assert error.reason == "unsupported"
    assert words in str(error)
    assert "convert it to" in str(error)


def test_several_pages_are_refused_with_their_count() -> None:
    file = io.BytesIO()
    with tifffile.TiffWriter(file) as tiff:
        for _ in range(3):
            tiff.write(grey(), photometric="minisblack", metadata=None)
    error = refusal(file.getvalue())
    assert error.reason == "several-images"
    assert "contains 3 images, not one" in str(error)
    assert "tiffsplit" in str(error)


@pytest.mark.parametrize("order", ["first", "last"])
def test_a_thumbnail_is_not_a_second_image(order: str) -> None:
    file = io.BytesIO()
    with tifffile.TiffWriter(file) as tiff:
        pages = [(grey(), 0), (grey()[::4, ::4], 1)]
        for array, subfile in pages if order == "last" else pages[::-1]:
            tiff.write(array, photometric="minisblack", metadata=None, subfiletype=subfile)
    assert np.array_equal(decode_image(file.getvalue(), HERE), grey())


def test_a_thumbnail_in_a_sub_directory_is_not_a_second_image() -> None:
    file = io.BytesIO()
    with tifffile.TiffWriter(file) as tiff:
        tiff.write(grey(), photometric="minisblack", metadata=None, subifds=1)
        tiff.write(grey()[::4, ::4], photometric="minisblack", metadata=None, subfiletype=1)
    assert np.array_equal(decode_image(file.getvalue(), HERE), grey())


@pytest.mark.parametrize(("tag", "largest", "depth"), [(281, 4095, 12), (341, 1023, 10)])
def test_the_depth_that_the_file_states_scales_its_values(
    tag: int, largest: int, depth: int
) -> None:
    values = np.linspace(0, largest, HEIGHT * WIDTH).astype(np.uint16).reshape(HEIGHT, WIDTH)
    data = written(values, extratags=[(tag, 3, 1, largest, True)])
    image = decode_image(data, HERE)
    assert np.array_equal(image, np.rint(values * (255 / largest)).astype(np.uint8))
    assert np.array_equal(decode_image(data, HERE, bits=depth), image)
    values[0, 0] = largest + 1
    assert refusal(written(values, extratags=[(tag, 3, 1, largest, True)])).reason == "bit-depth"


@pytest.mark.parametrize("largest", [3987, 65535, 200, 0])
def test_a_largest_value_that_is_no_cameras_depth_changes_nothing(largest: int) -> None:
    values = noise((HEIGHT, WIDTH), np.uint16)
    data = written(values, extratags=[(281, 3, 1, largest, True)])
    assert np.array_equal(decode_image(data, HERE), values >> 8)


def test_directories_in_a_circle_end() -> None:
    data = plain()
    at = struct.unpack_from("<I", data, 4)[0]
    round_trip = bytearray(data)
    struct.pack_into("<I", round_trip, at + 2 + 12 * 9, at)
    assert "circle" in str(refusal(bytes(round_trip)))


def test_a_long_chain_of_directories_is_counted_up_to_a_limit() -> None:
    """Sixty thousand pages of one tag, each the next one's predecessor."""
    one = struct.pack("<HHHII", 1, 256, 4, 1, WIDTH)
    data = b"II*\0" + struct.pack("<I", 8)
    size = len(one) + 4
    data += b"".join(one + struct.pack("<I", 8 + size * (page + 1)) for page in range(60_000))
    data += one + bytes(4)
    assert "contains 1000 or more images" in str(refusal(data))


def test_millions_of_tags_are_not_read() -> None:
    data = b"II+\0" + struct.pack("<HHQ", 8, 0, 16) + struct.pack("<Q", 5_000_000) + bytes(20_000)
    assert "directory of 5000000 tags" in str(refusal(data))


def test_millions_of_strips_are_not_read() -> None:
    assert refusal(plain(t256=1, t257=1 << 20, t278=1)).reason == "too-large"


@pytest.mark.parametrize("compression", ["lzw", "zlib", "packbits"])
def test_a_bomb_costs_no_more_than_the_image_in_the_header(
    compression: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    huge = written(np.zeros((4096, 4096), np.uint8), compression=compression, rowsperstrip=4096)
    with tifffile.TiffFile(io.BytesIO(huge)) as file:
        begin, size = file.pages[0].dataoffsets[0], file.pages[0].databytecounts[0]
    code = {"lzw": 5, "zlib": 8, "packbits": 32773}[compression]
    fields = {256: 16, 257: 16, 258: 8, 259: code, 262: 1, 277: 1, 278: 16, 279: size}
    data = directory(fields, huge[begin : begin + size])
    given: list[int] = []
    real = zlib.decompressobj

    class Counted:
        def __init__(self) -> None:
            self.real = real()

        def __getattr__(self, name: str) -> Any:
            return getattr(self.real, name)

        def decompress(self, stored: bytes, limit: int) -> bytes:
            given.append(limit)
            return self.real.decompress(stored, limit)

    monkeypatch.setattr("zlib.decompressobj", Counted)
    if compression == "lzw":  # libtiff stops when the pixels are full
        assert not decode_image(data, HERE).any()
    else:
        assert refusal(data).reason == "corrupt"
    assert sum(given) <= 16 * 16 + 1


def test_jpeg_colours_are_told_from_ycbcr_by_the_file_not_by_a_guess() -> None:
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    colours = np.dstack([4 * x, 255 - 4 * x, 6 * y]).astype(np.uint8)
    for photometric in ("rgb", "ycbcr"):
        data = written(
            colours, photometric=photometric, compression="jpeg", compressionargs={"level": 95}
        )
        with PIL.Image.open(io.BytesIO(data)) as picture:
            assert np.array_equal(decode_labels(data, HERE).values, picture.convert("RGB"))
        converted = np.abs(decode_labels(data, HERE).values.astype(int) - colours).mean() > 50
        assert converted == (photometric == "ycbcr")


def test_files_of_pillow_are_read() -> None:
    for options in ({}, {"compression": "tiff_lzw"}, {"compression": "tiff_adobe_deflate"}):
        file = io.BytesIO()
        PIL.Image.fromarray(grey()).save(file, "TIFF", **options)
        assert np.array_equal(decode_image(file.getvalue(), HERE), grey())
