"""The fast way through plain PNG files: OpenCV's values, and nothing that OpenCV refuses."""

from __future__ import annotations

import random
import struct
import zlib
from collections.abc import Iterator
from itertools import islice

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.hostile.mutate import mutated
from tinyunet_deploy.contract import Image
from tinyunet_deploy.data.formats import png, png_rows
from tinyunet_deploy.data.formats.header import FormatError

NONE, SUB, UP, AVERAGE = 0, 1, 2, 3


@pytest.fixture(params=["libdeflate", "zlib"], autouse=True)
def _inflater(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run each test with the package deflate, and as where it is missing."""
    if request.param == "zlib":
        monkeypatch.setattr(png_rows, "deflate", None)
        monkeypatch.setattr(png_rows, "_crc32", zlib.crc32)


def chunk(name: bytes, content: bytes) -> bytes:
    checksum = struct.pack(">I", zlib.crc32(name + content))
    return struct.pack(">I", len(content)) + name + content + checksum


def file_of(
    shape: tuple[int, int],
    stream: bytes,
    *,
    pieces: int = 1,
    before: bytes = b"",
    after: bytes = b"",
    kind: tuple[int, ...] = (8, 0, 0, 0, 0),
) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", shape[1], shape[0], *kind))
    step = -(-len(stream) // pieces)
    parts = [chunk(b"IDAT", stream[at : at + step]) for at in range(0, len(stream), step)]
    return png.SIGNATURE + header + before + b"".join(parts) + after + chunk(b"IEND", b"")


def filtered(image: Image, filters: NDArray[np.uint8]) -> bytes:
    """Return the rows of an image, each with the filter NONE or SUB, as they are compressed."""
    left = np.pad(image, ((0, 0), (1, 0)))[:, :-1]
    rows = np.where(filters[:, None] == SUB, image - left, image)
    return np.column_stack([filters, rows]).astype(np.uint8).tobytes()


def by_rows(data: bytes) -> Image | None:
    return png_rows.decode_rows(data, png.read_header(data).details.chunks)


def by_opencv(data: bytes) -> Image | None:
    try:
        values = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE)
    except cv2.error:
        return None
    return values  # type: ignore[return-value]


def noise(height: int, width: int, seed: int = 0) -> Image:
    return np.random.default_rng(seed).integers(0, 256, (height, width), np.uint8)


@settings(max_examples=60, deadline=None)
@given(
    height=st.integers(1, 40),
    width=st.integers(1, 300),
    pieces=st.integers(1, 4),
    level=st.integers(0, 9),
    seed=st.integers(0, 1000),
    share=st.sampled_from([0.0, 0.5, 1.0]),
)
def test_the_values_are_those_that_were_written(
    height: int, width: int, pieces: int, level: int, seed: int, share: float
) -> None:
    image = noise(height, width, seed) // (1 + seed % 5)
    filters = (np.random.default_rng(seed).random(height) < share).astype(np.uint8)
    stream = zlib.compress(filtered(image, filters), level)
    values = by_rows(file_of((height, width), stream, pieces=pieces))
    assert values is not None
    assert values.flags.c_contiguous
    assert np.array_equal(values, image)


def test_files_of_opencv_are_taken_and_their_sums_go_over_strips() -> None:
    for image in (noise(400, 640), noise(3, 100_000), np.full((512, 512), 255, np.uint8)):
        data = cv2.imencode(".png", image)[1].tobytes()
        values = by_rows(data)
        assert values is not None
        assert np.array_equal(values, image)


def test_chunks_without_grey_values_are_passed_over() -> None:
    image = noise(20, 30)
    stream = zlib.compress(filtered(image, np.ones(20, np.uint8)))
    more = {"before": chunk(b"pHYs", bytes(9)), "after": chunk(b"tIME", bytes(7))}
    values = by_rows(file_of((20, 30), stream, **more))  # type: ignore[arg-type]
    assert values is not None
    assert np.array_equal(values, image)


def other_files() -> Iterator[tuple[str, bytes]]:
    """Name and bytes of files that are left to OpenCV, whether it takes or refuses them."""
    image = noise(20, 30)
    raw = filtered(image, np.ones(20, np.uint8))
    stream = zlib.compress(raw)
    for filter_type in (UP, AVERAGE):
        for row in (0, 19):
            rows = bytearray(raw)
            rows[31 * row] = filter_type
            yield f"filter {filter_type} in row {row}", file_of((20, 30), zlib.compress(rows))
    yield "too few rows", file_of((20, 30), zlib.compress(raw[:-31]))
    yield "too many rows", file_of((20, 30), zlib.compress(raw + raw))
    yield "a bomb", file_of((20, 30), zlib.compress(raw + bytes(10_000_000)))
    yield "a stream without its end", file_of((20, 30), stream[:-4])
    yield "a wrong sum of the stream", file_of((20, 30), stream[:-1] + bytes([stream[-1] ^ 1]))
    yield "no stream", file_of((20, 30), b"\0")
    yield "pixels in two places", file_of((20, 30), stream[:50], after=chunk(b"IDAT", stream[50:]))
    pieces = file_of((20, 30), stream[:50], after=chunk(b"tIME", bytes(7)))
    end = chunk(b"IEND", b"")
    yield "pixels apart", pieces.removesuffix(end) + chunk(b"IDAT", stream[50:]) + end
    yield "interlaced", file_of((20, 30), stream, kind=(8, 0, 0, 0, 1))
    yield "an unknown filter method", file_of((20, 30), stream, kind=(8, 0, 0, 1, 0))
    yield "an unknown compression", file_of((20, 30), stream, kind=(8, 0, 1, 0, 0))
    yield "16 bits", file_of((20, 15), stream, kind=(16, 0, 0, 0, 0))
    yield "a transparent grey", file_of((20, 30), stream, before=chunk(b"tRNS", bytes(2)))
    yield "a palette", file_of((20, 30), stream, before=chunk(b"PLTE", bytes(6)))
    yield "a long text", file_of((20, 30), stream, before=chunk(b"tEXt", bytes(70_000)))
    yield "an end with data", file_of((20, 30), stream).removesuffix(end) + chunk(b"IEND", b"x")
    nothing = pieces.replace(chunk(b"tIME", bytes(7)), chunk(b"tEXt", b""))
    yield "pixels apart by nothing", nothing.removesuffix(end) + chunk(b"IDAT", stream[50:]) + end
    twice = zlib.compress(raw + raw)
    small = zlib.compressobj(wbits=9).compress(b"")
    yield "a stream that refers back beyond its window", file_of((40, 30), small + twice[2:])
    yield "more pixels than are worth the memory", file_of((2049, 2048), zlib.compress(bytes(9)))


@pytest.mark.parametrize(
    ("name", "data"), [pytest.param(*file, id=file[0]) for file in other_files()]
)
def test_everything_else_is_left_to_opencv(name: str, data: bytes) -> None:
    try:
        values = by_rows(data)
    except (FormatError, EOFError):
        return  # refused already
    if name != "pixels in two places":
        assert values is None, name
    elif values is not None:
        wanted = by_opencv(data)
        assert wanted is not None
        assert np.array_equal(values, wanted)


def require_no_more_than_opencv(data: bytes) -> bool:
    """Return whether a file is taken, which OpenCV then takes, too, with the same values."""
    try:
        values = by_rows(data)
    except (FormatError, struct.error, EOFError):
        return False
    if values is None:
        return False
    wanted = by_opencv(data)
    assert wanted is not None, "accepted, but OpenCV refuses it"
    assert np.array_equal(values, wanted)
    return True


def test_a_file_with_any_byte_changed_is_never_taken_for_whole() -> None:
    image = noise(6, 9)
    data = file_of((6, 9), zlib.compress(filtered(image, np.ones(6, np.uint8))), pieces=2)
    for at in range(len(png.SIGNATURE), len(data)):
        for change in (1, 0x80, 0xFF):
            damaged = bytearray(data)
            damaged[at] ^= change
            assert not require_no_more_than_opencv(bytes(damaged)), at


def repaired(seed: int) -> bytes:
    """Return a file whose stream is damaged while the checksums of its chunks are right."""
    rng = random.Random(seed)
    image = noise(12, 40, seed % 7) // (1, 9, 40)[seed % 3]
    filters = np.full(12, (NONE, SUB)[seed % 2], np.uint8)
    stream = mutated(zlib.compress(filtered(image, filters), (1, 6, 9)[seed % 3]), rng)
    return file_of((12, 40), stream or b"\0", pieces=1 + seed % 2)


def test_a_damaged_stream_in_sound_chunks_is_not_taken() -> None:
    assert sum(map(require_no_more_than_opencv, map(repaired, range(1500)))) < 100


def resummed(seed: int) -> bytes | None:
    """Return a damaged stream that zlib inflates, with the checksum of what it inflates to."""
    rng = random.Random(seed)
    raw = filtered(noise(12, 40, seed % 7) // 40, np.full(12, SUB, np.uint8))
    body = bytearray(zlib.compress(raw)[2:-4])
    body[rng.randrange(len(body))] ^= 1 << rng.randrange(8)
    try:
        inflated = zlib.decompressobj(-15).decompress(bytes(body))
    except zlib.error:
        return None
    if len(inflated) != len(raw):
        return None
    end = struct.pack(">I", zlib.adler32(inflated))
    return file_of((12, 40), b"\x78\x9c" + bytes(body) + end)


def test_whatever_has_right_checksums_has_the_values_of_opencv() -> None:
    candidates = (resummed(seed) for seed in range(3000))
    files = list(islice((data for data in candidates if data is not None), 200))
    assert len(files) > 20
    for data in files:
        require_no_more_than_opencv(data)
