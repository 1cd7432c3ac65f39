from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import PIL.Image
import pytest
from numpy.typing import NDArray

from tinyunet_deploy.data.decoding import decode_image, decode_labels
from tinyunet_deploy.data.formats import png as png_format
from tinyunet_deploy.data.formats import png_rows
from tinyunet_deploy.errors import ImageError

HERE = Path("part.png")


def chunk(name: bytes, content: bytes) -> bytes:
    checksum = struct.pack(">I", zlib.crc32(name + content))
    return struct.pack(">I", len(content)) + name + content + checksum


def png(array: NDArray[Any], *more: bytes) -> bytes:
    """Grey or RGB, 8 or 16 bits, with more chunks before the pixels."""
    height, width = array.shape[:2]
    colour = 2 if array.ndim == 3 else 0
    header = struct.pack(">IIBBBBB", width, height, 8 * array.itemsize, colour, 0, 0, 0)
    big = array.astype(array.dtype.newbyteorder(">"))
    rows = b"".join(b"\0" + row.tobytes() for row in big)
    parts = [
        chunk(b"IHDR", header),
        *more,
        chunk(b"IDAT", zlib.compress(rows)),
        chunk(b"IEND", b""),
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def refusal(data: bytes, **options: Any) -> ImageError:
    with pytest.raises(ImageError) as caught:
        decode_image(data, HERE, **options)
    return caught.value


def ramp(largest: int) -> NDArray[np.uint16]:
    return np.linspace(0, largest, 4096).round().astype(np.uint16).reshape(64, 64)


@pytest.mark.parametrize("depth", range(9, 16))
def test_camera_values_with_their_depth_in_sbit_are_scaled_by_it(depth: int) -> None:
    values = ramp((1 << depth) - 1)
    image = decode_image(png(values, chunk(b"sBIT", bytes([depth]))), HERE)
    assert np.array_equal(image, np.rint(values * (255 / ((1 << depth) - 1))).astype(np.uint8))


@pytest.mark.parametrize(
    "fill",
    [
        lambda v, d: v << (16 - d),
        lambda v, d: (v << (16 - d)) | (v >> (2 * d - 16)),
        lambda v, d: np.rint(v * (65535 / ((1 << d) - 1))).astype(np.uint16),
    ],
)
@pytest.mark.parametrize("depth", [10, 12, 14])
@pytest.mark.parametrize("share", [1.0, 0.05])
def test_values_scaled_to_16_bits_as_the_standard_says_stay(
    fill: Callable[[NDArray[np.uint16], int], NDArray[np.uint16]], depth: int, share: float
) -> None:
    """Also in an image so dark that its values would fit ``depth`` bits."""
    values = fill(ramp(int(((1 << depth) - 1) * share)), depth).astype(np.uint16)
    image = decode_image(png(values, chunk(b"sBIT", bytes([depth]))), HERE)
    assert np.array_equal(image, values >> 8)


@pytest.mark.parametrize("depth", [10, 12, 14])
def test_eight_bits_times_a_power_of_two_are_in_doubt(depth: int) -> None:
    """Bright values of a camera, stored as they are, look like a dark image that was scaled."""
    data = png((ramp(255) << (depth - 8)).astype(np.uint16), chunk(b"sBIT", bytes([depth])))
    notices: list[int] = []
    image = decode_image(data, HERE, on_shallow=lambda _, largest: notices.append(largest))
    in_doubt = depth > 10  # of ten bits, the lowest six would all have to be zero
    assert notices == [255 << (depth - 8)] * in_doubt
    assert (image.max() == 255) is not in_doubt
    declared = decode_image(data, HERE, bits=depth)
    assert declared.max() >= 254, "--bits resolves the doubt"


def test_a_stated_depth_of_16_bits_changes_nothing() -> None:
    values = ramp(65535)
    assert np.array_equal(decode_image(png(values, chunk(b"sBIT", b"\x10")), HERE), values >> 8)
    assert np.array_equal(
        decode_image(png(ramp(4095), chunk(b"sBIT", b"\x10")), HERE, bits=12),
        decode_image(png(ramp(4095)), HERE, bits=12),
    )


def test_a_declared_depth_that_the_file_contradicts_is_refused() -> None:
    data = png(ramp(1023), chunk(b"sBIT", b"\x0a"))
    error = refusal(data, bits=12)
    assert error.reason == "bit-depth"
    assert "states 10-bit values, but 12 bits were declared" in str(error)
    assert np.array_equal(decode_image(data, HERE, bits=10), decode_image(data, HERE))


def test_colour_of_16_bits_is_checked_and_scaled_by_channel() -> None:
    colours = np.dstack([ramp(4095), ramp(4095)[::-1], ramp(4095).T])
    image = decode_image(png(colours), HERE, bits=12)
    wanted = colours * (255 / 4095) @ np.array([0.299, 0.587, 0.114])
    assert np.abs(image - wanted).max() <= 1
    colours[0, 0] = 0, 0, 20_000  # its luminance is below 4096
    assert refusal(png(colours), bits=12).reason == "bit-depth"


def test_an_animation_is_refused_with_its_count() -> None:
    frames = [PIL.Image.fromarray(np.full((8, 8), value, np.uint8)) for value in (0, 90, 200)]
    file = io.BytesIO()
    frames[0].save(file, "PNG", save_all=True, append_images=frames[1:])
    error = refusal(file.getvalue())
    assert error.reason == "several-images"
    assert "contains 3 images" in str(error)


def test_a_still_image_beside_a_frame_is_one_image_more() -> None:
    control = chunk(b"fcTL", bytes(26))
    for before, frames, count in (([], 1, 1), ([control], 1, 1), ([], 2, 2), ([control], 2, 2)):
        data = png(ramp(255), chunk(b"acTL", struct.pack(">II", frames, 0)), *before)
        behind = data[:-12] + (b"" if before else control) + data[-12:]
        if count == 1 and before:
            assert decode_image(behind, HERE).shape == (64, 64)
        else:
            assert f"contains {max(count, 2)} images" in str(refusal(behind))
    without_count = png(ramp(255), control)
    assert decode_image(without_count[:-12] + control + without_count[-12:], HERE).shape == (64, 64)
    one = png(ramp(255), chunk(b"acTL", struct.pack(">II", 1, 0)), control)
    assert "contains 2 images" in str(refusal(one[:-12] + control + one[-12:]))
    still = png(ramp(255))
    assert refusal(still + still).reason == "several-images"
    assert decode_image(still + b"trailing words", HERE).shape == (64, 64)


@pytest.mark.parametrize("name", [b"tEXt", b"gAMA", b"tRNS"])
def test_a_chunk_with_a_wrong_checksum_is_refused(name: bytes) -> None:
    good = chunk(name, b"\0\1")
    array = np.zeros((8, 8), np.uint8)
    assert refusal(png(array, good[:-1] + bytes([good[-1] ^ 1]))).reason == "corrupt"


def test_millions_of_chunks_are_not_walked_over(monkeypatch: pytest.MonkeyPatch) -> None:
    walked = 0
    real = struct.unpack_from

    def count(*args: Any) -> Any:
        nonlocal walked
        walked += 1
        return real(*args)

    data = png(np.zeros((8, 8), np.uint8), chunk(b"teSt", b"") * 300_000)
    monkeypatch.setattr("tinyunet_deploy.data.formats.png.struct.unpack_from", count)
    assert "more than 200000 chunks" in str(refusal(data))
    assert walked < 500_000


def test_labels_are_palette_indices_not_colours() -> None:
    indices = (np.arange(64) % 3).reshape(8, 8).astype(np.uint8)
    picture = PIL.Image.fromarray(indices, "P")
    picture.putpalette([0, 0, 0, 0, 0, 0, 9, 9, 9])
    file = io.BytesIO()
    picture.save(file, "PNG")
    labels = decode_labels(file.getvalue(), HERE)
    assert np.array_equal(labels.values, indices)
    assert labels.displayed is not None
    assert set(np.unique(labels.displayed)) == {0, 9}


def test_labels_keep_16_bits_and_channels_in_rgb_order() -> None:
    deep = ramp(65535)
    assert np.array_equal(decode_labels(png(deep), HERE).values, deep)
    colours = np.dstack([deep, deep // 3, deep // 7]).astype(np.uint16)
    assert np.array_equal(decode_labels(png(colours), HERE).values, colours)
    ok, data = cv2.imencode(".png", np.dstack([(deep >> 8).astype(np.uint8)] * 4))
    assert ok
    assert decode_labels(data.tobytes(), HERE).values.shape == (64, 64, 4)


def stated(colour_type: int, depth: int, *, entries: int = 4, bits: int = 16) -> bytes:
    """A file without pixels whose sBIT chunk has ``entries`` entries."""
    header = struct.pack(">IIBBBBB", 5, 4, bits, colour_type, 0, 0, 0)
    parts = [chunk(b"IHDR", header), chunk(b"sBIT", bytes([depth] * entries)), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.mark.parametrize("colour_type", [0, 2, 3, 4, 6])
def test_header(colour_type: int) -> None:
    header = png_format.read_header(stated(colour_type, 5, bits=8))
    assert (header.height, header.width, header.bits, header.depth) == (4, 5, 8, None)
    assert header.colour == (colour_type in (2, 6))
    assert header.indirect == (colour_type == 3)
    assert not header.lossy


@pytest.mark.parametrize("depth", [0, 1, 7, 8, 9, 10, 15, 16, 17, 255])
def test_a_stated_depth_has_9_to_16_bits(depth: int) -> None:
    wanted = depth if 9 <= depth <= 16 else None
    assert png_format.read_header(stated(0, depth)).depth == wanted
    assert png_format.read_header(stated(0, depth, bits=8)).depth is None


@pytest.mark.parametrize("colour_type", [1, 3, 5, 7, 255])
@pytest.mark.parametrize("entries", [0, 1, 8, 9, 10, 12])
def test_a_colour_type_that_has_no_16_bits_is_refused_whatever_depth_it_states(
    colour_type: int, entries: int
) -> None:
    data = stated(colour_type, 12, entries=entries)
    assert png_format.read_header(data).depth is None
    assert refusal(data).reason == "corrupt"


def saved(mode: str, height: int = 20, width: int = 37) -> bytes:
    noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    file = io.BytesIO()
    if mode == "I;16":
        PIL.Image.fromarray(noise[..., 0] * np.uint16(256)).save(file, "PNG")
    else:
        PIL.Image.fromarray(noise).convert(mode).save(file, "PNG")
    return file.getvalue()


def interlaced(height: int, width: int) -> bytes:
    """Black rows of Adam7, whose passes without pixels have no rows."""
    steps = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2)]
    size = 0
    for left, top, across, down in (*steps, (0, 1, 1, 2)):
        row = len(range(left, width, across))
        size += len(range(top, height, down)) * (row + 1 if row else 0)
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 1)
    parts = [chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(bytes(size)))]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts) + chunk(b"IEND", b"")


def restated(data: bytes, height: int, width: int) -> bytes:
    return data[:8] + chunk(b"IHDR", struct.pack(">II", width, height) + data[24:29]) + data[33:]


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "RGB", "RGBA", "I;16"])
def test_a_header_with_fewer_pixels_than_the_file_is_noticed(mode: str) -> None:
    data = saved(mode)
    assert decode_image(data, HERE).shape == (20, 37)
    decode_labels(data, HERE)
    for height, width in ((10, 37), (19, 37), (20, 28), (18, 36)):
        shorter = restated(data, height, width)
        error = refusal(shorter)
        assert (error.reason, error.what) == ("corrupt", "has more pixels than its header states")
        with pytest.raises(ImageError, match="more pixels than its header"):
            decode_labels(shorter, HERE)


@pytest.mark.parametrize("height", [1, 2, 4, 5, 8, 17])
@pytest.mark.parametrize("width", [1, 2, 3, 4, 5, 8, 9, 37])
def test_rows_of_interlaced_files_are_counted(height: int, width: int) -> None:
    data = interlaced(height, width)
    assert decode_image(data, HERE).shape == (height, width)
    if height > 1:
        assert "more pixels" in str(refusal(restated(data, height - 1, width)))


def test_files_without_libdeflate_or_too_large_for_it_are_counted_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(png_rows, "_LARGEST", 100)
    for mode in ("L", "RGB"):
        assert decode_image(saved(mode), HERE).shape == (20, 37)
        assert "more pixels" in str(refusal(restated(saved(mode), 19, 37)))


@pytest.mark.parametrize(("bits", "row"), [(8, b"\2\0\3"), (4, b"\x20\x30"), (2, b"\x8c")])
def test_a_palette_index_without_a_colour_is_refused(bits: int, row: bytes) -> None:
    header = struct.pack(">IIBBBBB", 3, 1, bits, 3, 0, 0, 0)
    for colours in (3, 4):
        parts = [chunk(b"IHDR", header), chunk(b"PLTE", bytes(range(3 * colours)))]
        parts += [chunk(b"IDAT", zlib.compress(b"\0" + row)), chunk(b"IEND", b"")]
        data = b"\x89PNG\r\n\x1a\n" + b"".join(parts)
        if colours == 4:
            assert decode_labels(data, HERE).values.tolist() == [[2, 0, 3]]
            assert decode_image(data, HERE).shape == (1, 3)
            continue
        assert "a palette of 3 colours, but pixels of entry 3" in str(refusal(data))
        with pytest.raises(ImageError, match="pixels of entry 3"):
            decode_labels(data, HERE)


def palette_png(*more: bytes) -> bytes:
    header = struct.pack(">IIBBBBB", 3, 1, 8, 3, 0, 0, 0)
    parts = [chunk(b"IHDR", header), chunk(b"PLTE", bytes(range(9))), *more]
    parts += [chunk(b"IDAT", zlib.compress(b"\0\2\0\1")), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.mark.parametrize(
    "more",
    [(b"pHYs", b"\1"), (b"zTXt", b"a\0\0" + zlib.compress(bytes(3 << 20))), (b"zTXt", b"a\0\1")],
)
def test_labels_of_a_palette_with_a_damaged_chunk_are_refused(more: tuple[bytes, bytes]) -> None:
    assert decode_labels(palette_png(), HERE).values.tolist() == [[2, 0, 1]]
    with pytest.raises(ImageError, match="cannot be decoded") as caught:
        decode_labels(palette_png(chunk(*more)), HERE)
    assert caught.value.reason == "corrupt"
