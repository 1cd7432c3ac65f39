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
from tinyunet_deploy.data.formats.header import FormatError
from tinyunet_deploy.data.formats.tiff import decode, read_header
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


@pytest.mark.parametrize("depth", [9, 10, 12, 14, 16])
def test_white_is_zero_inverts_values_of_the_depth(depth: int) -> None:
    values = np.linspace(0, (1 << depth) - 1, HEIGHT * WIDTH).astype(np.uint16)
    values = values.reshape(HEIGHT, WIDTH)
    white = (1 << depth) - 1
    notices: list[int] = []
    for stated in (False, True):
        tags = [(281, "H", 1, white, True)] if stated else []
        bits = None if stated else depth
        black = decode_image(written(values, extratags=tags), HERE, bits=bits)
        data = written(white - values, photometric="miniswhite", extratags=tags)
        image = decode_image(data, HERE, bits=bits, on_shallow=lambda _, n: notices.append(n))
        assert image.dtype == np.uint8
        assert np.array_equal(image, black)
        assert (image.min(), image.max()) == (0, 255)
    assert not notices


def test_white_is_zero_of_an_undeclared_depth_is_in_doubt() -> None:
    notices: list[int] = []
    data = written(np.full((HEIGHT, WIDTH), 4000, np.uint16), photometric="miniswhite")
    image = decode_image(data, HERE, on_shallow=lambda _, largest: notices.append(largest))
    assert (image == 255 - (4000 >> 8)).all()
    assert notices == [4000]
    with pytest.raises(ImageError, match="more than 10 bits can hold"):
        decode_image(data, HERE, bits=10)


def test_a_stack_of_tifffile_in_one_directory_is_several_images() -> None:
    def file(images: NDArray[Any], **options: Any) -> bytes:
        content = io.BytesIO()
        with tifffile.TiffWriter(content) as writer:
            writer.write(images, **{"photometric": "minisblack", **options})
        return content.getvalue()

    stack = noise((3, HEIGHT, WIDTH))
    assert refusal(file(stack, truncate=True)).what == "contains 3 images, not one"
    assert refusal(file(stack[None], truncate=True)).what == "contains 3 images, not one"
    for one in (stack[0], stack[:1], stack[None, :1]):
        assert np.array_equal(decode_image(file(one), HERE), stack[0])
        assert np.array_equal(decode_image(file(one, truncate=True), HERE), stack[0])
    colours = np.moveaxis(stack, 0, 2)
    for planar, values in (("contig", colours), ("separate", stack)):
        data = file(values, photometric="rgb", planarconfig=planar)
        assert np.array_equal(decode_labels(data, HERE).values, colours)


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


def test_strips_that_share_bytes_are_refused() -> None:
    half = WIDTH * HEIGHT // 2
    strips = {"t278": HEIGHT // 2, "t279": [half, half]}
    assert np.array_equal(decode_image(plain(t273=[8, 8 + half], **strips), HERE), grey())
    swapped = np.concatenate([grey()[HEIGHT // 2 :], grey()[: HEIGHT // 2]])
    assert np.array_equal(decode_image(plain(t273=[8 + half, 8], **strips), HERE), swapped)
    for places in ([8, 8], [8, 7 + half], [8 + half, 8 + half]):
        assert refusal(plain(t273=places, **strips)).what == "has strips or tiles that overlap"


def test_a_strip_over_the_tags_is_refused() -> None:
    wanted = "has a strip or tile where its tags are"
    for at in (28, 250):  # over the first of them, and over all of them
        assert refusal(plain(t258=[8] * 40, t273=at)).what == wanted
    size = len(plain(t258=[8] * 40))
    small = {"t256": 40, "t257": 4, "t278": 4, "t279": 160, "t273": size - 160}
    assert refusal(plain(t258=[8] * 40, **small)).what == wanted, "values behind the directory"


@pytest.mark.parametrize("rows", [1, HEIGHT // 2, HEIGHT - 1])
def test_a_directory_with_fewer_rows_or_columns_than_the_strip_is_noticed(rows: int) -> None:
    wanted = "has a strip or tile 0 with more rows than its tags state"
    assert refusal(plain(t257=rows)).what == wanted
    assert refusal(plain(t256=WIDTH - 2)).what == wanted
    longer = directory(
        {256: WIDTH, 257: HEIGHT, 258: 8, 259: 1, 262: 1, 277: 1, 278: HEIGHT,
         279: (HEIGHT + 1) * WIDTH - 1}, grey().tobytes() + bytes(WIDTH - 1),
    )  # fmt: skip
    assert np.array_equal(decode_image(longer, HERE), grey())


def test_a_last_strip_may_have_all_rows_of_a_strip() -> None:
    rows = 32
    stored = grey().tobytes() + bytes((2 * rows - HEIGHT) * WIDTH)
    size = rows * WIDTH
    data = directory(
        {256: WIDTH, 257: HEIGHT, 258: 8, 259: 1, 262: 1, 277: 1, 278: rows,
         273: [8, 8 + size], 279: [size, size]}, stored,
    )  # fmt: skip
    assert np.array_equal(decode_image(data, HERE), grey())


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
        ({"t262": 99}, "unsupported"),
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


COMPRESSION_NAMES = {
    2: "CCITT", 3: "CCITT T.4 fax", 4: "CCITT T.6 fax", 6: "old-style JPEG", 32766: "NeXT",
    32771: "CCITT", 32809: "ThunderScan", 33003: "JPEG 2000", 33004: "JPEG 2000",
    33005: "JPEG 2000", 34661: "JBIG", 34676: "SGI Log", 34677: "SGI Log", 34712: "JPEG 2000",
    34887: "LERC", 34892: "lossy raw JPEG", 34925: "LZMA", 50000: "zstd", 50001: "WebP",
    50002: "JPEG XL", 52546: "JPEG XL",
}  # fmt: skip


@pytest.mark.parametrize(("code", "name"), COMPRESSION_NAMES.items())
def test_a_compression_that_is_not_read_is_named(code: int, name: str) -> None:
    with pytest.raises(FormatError) as caught:
        read_header(plain(t259=code))
    assert (caught.value.reason, caught.value.what) == ("unsupported", f"has {name} compression")


def test_a_stack_behind_one_directory_is_refused() -> None:
    assert refusal(plain(t32997=2)).reason == "several-images"
    for text, count in ((b"ImageJ=1.5\nimages=3\nslices=3\n", 3), (b"ImageJ=1.5\nimages=1\n", 1)):
        data = written(grey(), description=text.decode(), software="")
        if count == 1:
            assert np.array_equal(decode_image(data, HERE), grey())
        else:
            assert str(count) in refusal(data).what
    assert np.array_equal(decode_image(written(grey(), description="images=3"), HERE), grey())


@pytest.mark.parametrize("kind", [0, 1])
@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("big", [False, True])
def test_pages_in_sub_directories_are_images_unless_they_are_smaller(
    kind: int, large: bool, big: bool
) -> None:
    file = io.BytesIO()
    with tifffile.TiffWriter(file, bigtiff=big) as tiff:
        tiff.write(grey(), metadata=None, subifds=1)
        below = grey() if large else grey()[::2, ::2]
        tiff.write(below, metadata=None, subfiletype=kind)
    if kind == 1 and not large:
        assert np.array_equal(decode_image(file.getvalue(), HERE), grey())
    else:
        assert refusal(file.getvalue()).reason == "several-images"


@pytest.mark.parametrize("kind", [1, 3, 4])
def test_a_page_of_full_size_is_no_reduced_version(kind: int) -> None:
    file = io.BytesIO()
    page: dict[str, Any] = {"subfiletype": kind, "photometric": "mask" if kind == 4 else 1}
    with tifffile.TiffWriter(file) as tiff:
        tiff.write(grey(), metadata=None)
        tiff.write(grey() > 9 if kind == 4 else 255 - grey(), metadata=None, **page)
    if kind == 4:
        assert np.array_equal(decode_image(file.getvalue(), HERE), grey())
    else:
        assert refusal(file.getvalue()).reason == "several-images"


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
    assert "in a loop" in str(refusal(bytes(round_trip)))


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
            values: bytes = self.real.decompress(stored, limit)
            given.append(len(values))
            return values

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


def laid_out(pixels: bytes = b"x", **changes: int | Sequence[int] | None) -> bytes:
    """A file of ``pixels`` in one strip, as :func:`plain`; None removes a field."""
    fields: dict[int, int | Sequence[int] | None] = {
        256: WIDTH, 257: HEIGHT, 258: 8, 259: 1, 262: 1, 277: 1, 278: HEIGHT, 279: len(pixels),
    }  # fmt: skip
    fields |= {int(name[1:]): value for name, value in changes.items()}
    return directory({tag: value for tag, value in fields.items() if value is not None}, pixels)


def unsupported(data: bytes) -> str:
    """What the header's reader says of a variant."""
    with pytest.raises(FormatError) as caught:
        read_header(data)
    assert caught.value.reason == "unsupported"
    return caught.value.what


@pytest.mark.parametrize(
    "change", [{"t254": 1}, {"t254": 4}, {"t254": 5}, {"t254": 3}, {"t255": 2}]
)
def test_a_file_of_a_reduced_image_or_a_mask_alone_is_refused(change: dict[str, int]) -> None:
    assert unsupported(plain(**change)) == "contains only a reduced image or a mask"


@pytest.mark.parametrize("change", [{"t254": 0}, {"t254": 2}, {"t255": 1}, {"t255": 3}])
def test_other_kinds_of_a_page_are_images(change: dict[str, int]) -> None:
    assert np.array_equal(decode_image(plain(**change), HERE), grey())


def test_two_pages_are_several() -> None:
    data = plain()
    at = struct.unpack_from("<I", data, 4)[0]
    two = bytearray(data + b"\0" * (len(data) % 2) + data[at:])
    struct.pack_into("<I", two, at + 2 + 12 * 9, len(two) - len(data[at:]))
    with pytest.raises(FormatError, match="contains 2 images, not one"):
        read_header(bytes(two))


def test_fields_that_may_be_missing_have_the_values_of_the_standard() -> None:
    data = laid_out(grey().tobytes(), t259=None, t277=None, t278=None)
    assert np.array_equal(decode_image(data, HERE), grey())
    bilevel = laid_out(bytes([0xF0] * (WIDTH // 8 * HEIGHT)), t258=None)
    assert np.array_equal(decode_image(bilevel, HERE)[0, :8], [255] * 4 + [0] * 4)
    error = refusal(laid_out(grey().tobytes(), t262=None))
    assert error.reason == "corrupt"
    assert "does not say what its samples mean" in str(error)


def test_only_jpeg_compression_changes_values() -> None:
    assert not read_header(plain()).lossy
    assert read_header(laid_out(t259=7)).lossy


@pytest.mark.parametrize("code", [8, 32946])
def test_both_codes_of_deflate_are_read(code: int) -> None:
    data = laid_out(zlib.compress(grey().tobytes()), t259=code)
    assert np.array_equal(decode_image(data, HERE), grey())


@pytest.mark.parametrize("planar", [1, 2])
@pytest.mark.parametrize(("photometric", "channels"), [(0, 2), (1, 2), (2, 4), (3, 2)])
def test_transparency_is_left_out(photometric: int, channels: int, planar: int) -> None:
    stored = noise((HEIGHT, WIDTH, channels))
    pixels = [stored[..., channel].tobytes() for channel in range(channels)]
    sizes, offsets = [HEIGHT * WIDTH], [8]
    if planar == 2:
        sizes *= channels
        offsets = [8 + sizes[0] * channel for channel in range(channels)]
    else:
        pixels, sizes = [stored.tobytes()], [stored.size]
    data = laid_out(
        b"".join(pixels), t258=[8] * channels, t262=photometric, t277=channels,
        t284=planar if planar == 2 else None, t273=offsets, t279=sizes,
        t338=1, t320=[256 * (255 - value) + 7 for value in range(256)] * 3,
    )  # fmt: skip
    shown = decode(data, read_header(data))
    first = stored[..., 0]
    if photometric == 3:
        assert np.array_equal(shown, np.dstack([255 - first] * 3))
    elif photometric == 2:
        assert np.array_equal(shown, stored[..., :3])
    else:
        assert np.array_equal(shown, 255 - first if photometric == 0 else first)
    assert np.array_equal(decode_labels(data, HERE).values, stored)


@pytest.mark.parametrize("bits", [2, 4])
def test_small_samples_are_spread_from_black_to_white(bits: int) -> None:
    values = np.tile(np.arange(1 << bits, dtype=np.uint8), (2, 8 // (1 << bits) or 1))
    digits = ["".join(f"{value:0{bits}b}" for value in row) for row in values.tolist()]
    pixels = b"".join(int(row, 2).to_bytes(len(row) // 8, "big") for row in digits)
    data = laid_out(pixels, t256=values.shape[1], t257=2, t278=2, t258=bits)
    assert np.array_equal(decode_image(data, HERE), values * (255 // ((1 << bits) - 1)))


@pytest.mark.parametrize("bits", [3, 5, 6, 7, 9, 10, 15, 17, 24])
def test_samples_of_other_sizes_are_named(bits: int) -> None:
    packed = " packed" if bits in (9, 10, 15) else ""
    assert unsupported(plain(t258=bits)) == f"has {bits}-bit{packed} samples"


def test_samples_of_several_sizes_are_named() -> None:
    assert unsupported(plain(t258=[8, 16], t277=2)) == "has samples of 8, 16 bits"
    nine = [*range(1, 10)]
    assert unsupported(plain(t258=nine)) == "has samples of 1, 2, 3, 4, 5, 6, 7, 8 bits"


@pytest.mark.parametrize(
    ("code", "name"),
    [(0, "unknown"), (2, "signed integer"), (3, "floating-point"), (5, "complex integer"),
     (6, "complex"), (7, "unknown")],
)  # fmt: skip
def test_the_form_of_samples_is_named(code: int, name: str) -> None:
    assert unsupported(plain(t339=code)) == f"has 8-bit {name} samples"


@pytest.mark.parametrize("code", [1, 4])
def test_unsigned_and_undefined_samples_are_read(code: int) -> None:
    assert np.array_equal(decode_image(plain(t339=code), HERE), grey())


PHOTOMETRICS = {
    4: "a transparency mask", 8: "CIE L*a*b* colour", 9: "ICC L*a*b* colour",
    10: "ITU L*a*b* colour", 32803: "a colour filter array (raw Bayer data)",
    32844: "CIE Log L", 32845: "CIE Log Luv", 34892: "linear raw data",
}  # fmt: skip


@pytest.mark.parametrize(("code", "name"), PHOTOMETRICS.items())
def test_a_meaning_of_samples_that_is_not_read_is_named(code: int, name: str) -> None:
    assert unsupported(plain(t262=code)) == f"has {name}"


@pytest.mark.parametrize(
    ("photometric", "accepted"), [(0, (1, 2)), (1, (1, 2)), (2, (3, 4)), (3, (1, 2)), (5, (4,))]
)
def test_the_number_of_channels_fits_the_meaning_of_the_samples(
    photometric: int, accepted: tuple[int, ...]
) -> None:
    for channels in range(1, 7):
        data = plain(t262=photometric, t277=channels, t258=[8] * channels, t338=1)
        if channels in accepted:
            assert read_header(data).bits == 8
        else:
            assert unsupported(data) == f"has {channels} channels"
    assert unsupported(laid_out(t262=None, t277=5)) == "has 5 channels"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"t259": 7, "t258": 16}, "JPEG compression of 1 16-bit channels"),
        ({"t259": 7, "t262": 3}, "JPEG compression of 1 8-bit channels"),
        ({"t259": 7, "t277": 2}, "JPEG compression of 2 8-bit channels"),
        ({"t259": 7, "t277": 4, "t262": 2}, "JPEG compression of 4 8-bit channels"),
        ({"t259": 7, "t277": 2, "t262": 6}, "2 channels"),
        ({"t277": 3, "t262": 6}, "YCbCr colour without JPEG compression"),
        ({"t262": 3, "t258": 16}, "a 16-bit palette or 16-bit CMYK colour"),
        ({"t262": 5, "t277": 4, "t258": 16}, "a 16-bit palette or 16-bit CMYK colour"),
        ({"t277": 2, "t258": 4}, "2 channels of 4 bits"),
        ({"t277": 2, "t258": 1}, "2 channels of 1 bits"),
        ({"t277": 2}, "a second channel that is not called transparency"),
        ({"t277": 2, "t338": 0}, "a second channel that is not called transparency"),
        ({"t262": 0, "t277": 2, "t338": 0}, "a second channel that is not called transparency"),
        ({"t317": 0}, "predictor 0 of 8-bit samples"),
        ({"t317": 2, "t258": 4}, "predictor 2 of 4-bit samples"),
        ({"t317": 3, "t258": 4}, "predictor 3 of 4-bit samples"),
        ({"t317": 2}, "a predictor without Deflate or LZW compression"),
        ({"t317": 2, "t259": 7}, "a predictor without Deflate or LZW compression"),
        ({"t317": 2, "t259": 32773}, "a predictor without Deflate or LZW compression"),
    ],
)
def test_features_that_do_not_go_together_are_named(change: dict[str, int], words: str) -> None:
    assert unsupported(plain(**change)) == f"has {words}"


@pytest.mark.parametrize(
    "change",
    [
        {"t277": 2, "t258": 16, "t338": 1},
        {"t262": 2, "t277": 3, "t258": 16},
        {"t317": 2, "t259": 5},
    ],
)
def test_features_that_go_together_are_read(change: dict[str, int]) -> None:
    assert read_header(plain(**change)).bits == change.get("t258", 8)


@pytest.mark.parametrize(
    ("stated", "depth"),
    [
        ([255], None), ([511], 9), ([1022], None), ([4095], 12), ([65535], 16), ([131071], None),
        ([255, 4095], None), ([4095, 255], 12),
    ],
)  # fmt: skip
def test_the_first_largest_value_of_nine_to_sixteen_bits_is_a_depth(
    stated: list[int], depth: int | None
) -> None:
    for tag in ("t281", "t341"):
        assert read_header(plain(t258=16, **{tag: stated})).depth == depth
    assert read_header(plain(t281=stated)).depth is None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"t324": 8}, "lacks tag 323"),
        ({"t322": 16}, "lacks tag 323"),
        ({"t284": 0}, "has 0 as its planar configuration"),
        ({"t284": 3}, "has 3 as its planar configuration"),
        ({"t278": HEIGHT // 2}, "lists 1 offsets and 1 sizes of its 2 strips"),
        ({"t322": 16, "t323": 16, "t324": 8, "t325": [1, 2]},
         "lists 1 offsets and 2 sizes of its 12 tiles"),
        ({"t262": 2, "t277": 3, "t284": 2}, "lists 1 offsets and 1 sizes of its 3 strips"),
        ({"t262": 3}, "has 0 palette entries, not 768"),
        ({"t262": 3, "t320": [1] * 767}, "has 767 palette entries, not 768"),
    ],
)  # fmt: skip
def test_a_damaged_layout_says_which_value_is_wrong(change: dict[str, Any], words: str) -> None:
    error = refusal(plain(**change))
    assert error.reason == "corrupt"
    assert words in str(error)


def test_a_quarter_of_a_million_strips_are_the_most() -> None:
    most = 1 << 18
    error = refusal(plain(t256=1, t257=most, t278=1))
    assert f"1 sizes of its {most} strips" in str(error)
    error = refusal(plain(t256=1, t257=most + 1, t278=1))
    assert error.reason == "too-large"
    assert f"has {most + 1} strips, more than {most}" in str(error)


@pytest.mark.parametrize(
    ("side", "height", "width", "tiles", "accepted"),
    [
        (1, 2, 2_097_153, 1, True),
        (1, 1, 4_194_307, 1, False),
        (1000, 1152, 5377, 1, True),
        (1000, 1153, 5377, 1, False),
        (1000, 7000, 500, 2, False),
        (1000, 6000, 500, 2, True),
    ],
)
def test_tiles_have_twice_the_images_pixels_and_four_million_at_most(
    side: int, height: int, width: int, tiles: int, accepted: bool
) -> None:
    places = [8 + 9 * tile for tile in range(tiles)]
    error = refusal(
        plain(t256=side, t257=side, t322=width, t323=height, t324=places, t325=[9] * tiles)
    )
    if accepted:
        assert error.reason == "corrupt"
        assert f"decodes to 9 of its {height * width} bytes" in str(error)
    else:
        assert error.reason == "too-large"
        assert "tiles far larger than the image" in str(error)


@pytest.mark.parametrize(("scale", "rest"), [(1, 0), (256, 0), (256, 255)])
def test_a_palette_has_values_of_eight_or_sixteen_bits(scale: int, rest: int) -> None:
    colours = [scale * (255 - value) + rest for value in range(256)]
    data = plain(t262=3, t320=colours * 3)
    assert np.array_equal(decode_image(data, HERE), 255 - grey())


def test_cmyk_without_ink_is_white_and_black_covers_colours() -> None:
    ink = np.zeros((1, 4, 4), np.uint8)
    ink[0, 1:] = [(0, 0, 0, 255), (255, 0, 100, 0), (55, 0, 255, 155)]
    data = laid_out(ink.tobytes(), t256=4, t257=1, t278=1, t258=[8] * 4, t262=5, t277=4)
    wanted = [[255, 255, 255], [0, 0, 0], [0, 255, 155], [78, 100, 0]]
    assert decode(data, read_header(data)).tolist() == [wanted]


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_jpeg_strips_with_common_tables_are_read_as_pillow_reads_them(mode: str) -> None:
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    colours = np.dstack([4 * x, 255 - 4 * x, 6 * y]).astype(np.uint8)
    picture = PIL.Image.fromarray(colours).convert(mode)
    file = io.BytesIO()
    picture.save(file, "TIFF", compression="jpeg", quality=95)
    values = decode_labels(file.getvalue(), HERE).values
    assert np.abs(values.astype(int) - np.asarray(picture)).mean() < 3
    with PIL.Image.open(file) as stored:
        assert 347 in stored.tag_v2  # type: ignore[attr-defined]
