from __future__ import annotations

import io
import os
import resource
import struct
import threading
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tinyunet_deploy.contract import Image
from tinyunet_deploy.data.decoding import MAX_PIXELS, decode_image, read_image, require_content
from tinyunet_deploy.data.encoding import encode_png, write_png
from tinyunet_deploy.errors import DataError, ImageError

HERE = Path("part.png")
HEIGHT, WIDTH = 48, 80


def grey_image() -> Image:
    """Every grey value, a shape that no rotation leaves alone, and no symmetry."""
    values = np.arange(HEIGHT * WIDTH) % 256
    return values.reshape(HEIGHT, WIDTH).astype(np.uint8)


def smooth_image() -> Image:
    """One that survives JPEG."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    return (2.0 * x + y).astype(np.uint8)


def save(array: NDArray[Any], kind: str, mode: str | None = None, **options: Any) -> bytes:
    """A file as another program writes it."""
    picture = PIL.Image.fromarray(array)
    file = io.BytesIO()
    (picture.convert(mode) if mode else picture).save(file, kind, **options)
    return file.getvalue()


def reason(data: bytes) -> str:
    with pytest.raises(ImageError) as caught:
        decode_image(data, HERE)
    assert caught.value.where == "part.png"
    assert caught.value.exit_code == 3
    return caught.value.reason


def peak_memory_kib() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def within(seconds: float, call: Callable[[], object]) -> BaseException | None:
    """What a call raises; fails if it hangs."""
    raised: list[BaseException | None] = []

    def catch() -> None:
        try:
            call()
            raised.append(None)
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=catch, daemon=True)
    thread.start()
    thread.join(seconds)
    assert not thread.is_alive(), f"hangs for {seconds} s"
    return raised[0]


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF"])
@pytest.mark.parametrize("mode", ["L", "RGB", "P"])
def test_grey_is_the_same_however_it_is_stored(kind: str, mode: str) -> None:
    image = decode_image(save(grey_image(), kind, mode), HERE)
    assert image.dtype == np.uint8
    assert np.array_equal(image, grey_image())


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_changes_no_grey_value(mode: str) -> None:
    alpha = np.roll(grey_image(), 5)
    planes = [grey_image()] * (3 if mode == "RGBA" else 1)
    picture = PIL.Image.merge(mode, [*map(PIL.Image.fromarray, planes), PIL.Image.fromarray(alpha)])
    file = io.BytesIO()
    picture.save(file, "PNG")
    assert np.array_equal(decode_image(file.getvalue(), HERE), grey_image())


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_deflate", "packbits"])
def test_compressed_tiff(compression: str) -> None:
    data = save(grey_image(), "TIFF", compression=compression)
    assert np.array_equal(decode_image(data, HERE), grey_image())


def big_endian_tiff(*more: tuple[int, int]) -> bytes:
    """``grey_image`` by hand, with more (tag, number) fields if given."""
    fields = [(256, WIDTH), (257, HEIGHT), (258, 8), (262, 1), (278, HEIGHT), *more]
    short = [struct.pack(">HHIHH", tag, 3, 1, value, 0) for tag, value in fields]
    long = [struct.pack(">HHII", tag, 4, 1, value) for tag, value in ((273, 8), (279, 3840))]
    directory = struct.pack(">H", len(short + long)) + b"".join(sorted(short + long)) + bytes(4)
    return b"MM\0*" + struct.pack(">I", 8 + 3840) + grey_image().tobytes() + directory


def test_big_endian_tiff() -> None:
    assert np.array_equal(decode_image(big_endian_tiff(), HERE), grey_image())
    assert np.array_equal(decode_image(big_endian_tiff((274, 6)), HERE), grey_image())


def test_a_header_with_two_sizes_is_no_way_around_the_limit() -> None:
    assert reason(big_endian_tiff((256, WIDTH + 1))) == "corrupt"
    assert reason(big_endian_tiff((256, 65_000), (257, 65_000))) == "corrupt"


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bits_are_scaled_to_8_not_clipped(kind: str) -> None:
    values = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    image = decode_image(save(values, kind), HERE)
    assert image.dtype == np.uint8
    assert np.abs(image - values / 257.0).max() < 1.0


def test_colour_becomes_luminance() -> None:
    colours = np.zeros((16, 16, 3), np.uint8)
    colours[:, :8] = 200, 100, 50
    for kind in ("PNG", "BMP", "TIFF"):
        image = decode_image(save(colours, kind), HERE)
        wanted = 0.299 * 200 + 0.587 * 100 + 0.114 * 50  # Rec. 601
        assert abs(int(image[0, 0]) - wanted) <= 1, kind
        assert image[0, 15] == 0


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("progressive", [False, True])
def test_jpeg_is_close_to_what_was_saved(mode: str, progressive: bool) -> None:
    data = save(smooth_image(), "JPEG", mode, quality=100, progressive=progressive)
    assert np.abs(decode_image(data, HERE).astype(int) - smooth_image()).max() <= 2


def test_grey_jpeg_is_the_same_as_rgb_jpeg() -> None:
    grey, rgb = (save(smooth_image(), "JPEG", mode, quality=90) for mode in ("L", "RGB"))
    assert np.array_equal(decode_image(grey, HERE), decode_image(rgb, HERE))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_stored_rotation_is_ignored_since_masks_lie_on_stored_pixels(
    kind: str, orientation: int
) -> None:
    if kind == "TIFF":
        data = save(smooth_image(), kind, tiffinfo={274: orientation})
    else:
        exif = PIL.Image.Exif()
        exif[274] = orientation
        data = save(smooth_image(), kind, exif=exif, **({"quality": 100} if kind == "JPEG" else {}))
    image = decode_image(data, HERE)
    assert image.shape == (HEIGHT, WIDTH)
    assert np.abs(image.astype(int) - smooth_image()).max() <= 2


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_a_file_cut_off_anywhere_is_truncated(kind: str) -> None:
    data = save(smooth_image(), kind)
    for length in [*range(8, len(data), 3), *range(len(data) - 20, len(data))]:
        assert reason(data[:length]) == "truncated", length


@pytest.mark.parametrize("kind", ["BMP", "TIFF"])
def test_a_cut_bmp_or_tiff_is_no_image(kind: str) -> None:
    data = save(smooth_image(), kind)
    for length in (10, 40, len(data) // 2, len(data) - 200):
        assert reason(data[:length]) in ("truncated", "corrupt"), length


def test_the_end_of_a_thumbnail_is_not_the_end_of_the_jpeg() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH), dtype=np.uint8)
    thumbnail = save(smooth_image()[:16, :16], "JPEG")
    whole = save(noise, "JPEG", exif=b"Exif\0\0" + thumbnail)
    assert thumbnail in whole
    decode_image(whole, HERE)
    assert reason(whole[: len(whole) // 2]) == "truncated"


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_data_after_the_end_of_an_image_does_no_harm(kind: str) -> None:
    data = save(smooth_image(), kind)
    assert np.array_equal(decode_image(data + bytes(5000), HERE), decode_image(data, HERE))


@given(st.data())
def test_a_flipped_bit_of_a_png_is_noticed(data: st.DataObject) -> None:
    file = bytearray(encode_png(smooth_image()))
    at = data.draw(st.integers(0, len(file) - 5))  # the last four bytes guard nothing
    file[at] ^= 1 << data.draw(st.integers(0, 7))
    reason(bytes(file))


@given(st.binary(max_size=200), st.sampled_from([b"", b"\x89PNG\r\n\x1a\n", b"BM", b"II*\0"]))
def test_junk_is_an_image_error_and_nothing_else(junk: bytes, signature: bytes) -> None:
    reason(signature + junk)


@given(st.data())
def test_a_damaged_file_gives_an_image_of_the_size_in_its_header_or_an_image_error(
    data: st.DataObject,
) -> None:
    kind = data.draw(st.sampled_from(["JPEG", "TIFF", "BMP"]))
    file = bytearray(save(smooth_image(), kind))
    for _ in range(data.draw(st.integers(1, 4))):
        file[data.draw(st.integers(0, len(file) - 1))] = data.draw(st.integers(0, 255))
    try:
        image = decode_image(bytes(file), HERE, max_pixels=10_000)
    except ImageError:
        return
    assert image.dtype == np.uint8
    assert image.ndim == 2
    assert image.size <= 10_000


@pytest.mark.parametrize("bit", [16, 24, 31])
def test_a_damaged_chunk_length_takes_no_memory(bit: int) -> None:
    file = bytearray(encode_png(smooth_image()))
    at = file.index(b"IDAT") - 4
    file[at + 3 - bit // 8] ^= 1 << bit % 8
    before = peak_memory_kib()
    assert reason(bytes(file)) == "truncated"
    assert peak_memory_kib() - before < 50_000


def test_an_empty_file() -> None:
    assert reason(b"") == "empty"


@pytest.mark.parametrize(
    "data",
    [b"hello\n", b"\x7fELF", b"\x89PN", b"%PDF", b"RIFF\0\0\0\0WAVE", b"P5 x", b"P9\n1 1\n255\n"],
)
def test_what_is_no_image(data: bytes) -> None:
    assert reason(data) == "not-an-image"


def test_floating_point_tiff_is_refused_not_wrapped_around() -> None:
    assert reason(save(grey_image().astype(np.float32), "TIFF")) == "unsupported"


def hollow_png(width: int, height: int) -> bytes:
    """A well-formed PNG file of a few bytes whose header claims any size."""

    def chunk(name: bytes, content: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(name + content))
        return struct.pack(">I", len(content)) + name + content + checksum

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(bytes(1000)))
    return b"\x89PNG\r\n\x1a\n" + header + pixels + chunk(b"IEND", b"")


def hollow_bmp(width: int, height: int) -> bytes:
    head = struct.pack("<2sIHHI", b"BM", 54, 0, 0, 54)
    return head + struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)


def hollow_jpeg(width: int, height: int) -> bytes:
    frame = struct.pack(">BHHB", 8, height, width, 1) + b"\x01\x11\0"
    return b"\xff\xd8\xff\xc0" + struct.pack(">H", 2 + len(frame)) + frame + b"\xff\xd9"


def hollow_tiff(width: int, height: int) -> bytes:
    fields = struct.pack("<HHIIHHII", 256, 4, 1, width, 257, 4, 1, height)
    return b"II*\0" + struct.pack("<IH", 8, 2) + fields + bytes(4)


@pytest.mark.parametrize("hollow", [hollow_png, hollow_bmp, hollow_jpeg, hollow_tiff])
def test_a_small_file_that_claims_to_be_enormous_is_refused_without_decoding(
    hollow: Callable[[int, int], bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cv2.imdecode", lambda *_: pytest.fail("decoded"))
    before = peak_memory_kib()
    assert reason(hollow(65_000, 65_000)) == "too-large"
    assert peak_memory_kib() - before < 50_000


def test_the_pixel_limit_counts_pixels() -> None:
    data = encode_png(grey_image())
    assert decode_image(data, HERE, max_pixels=HEIGHT * WIDTH).shape == (HEIGHT, WIDTH)
    with pytest.raises(ImageError, match=f"has {WIDTH}x{HEIGHT} pixels, more than 3839") as caught:
        decode_image(data, HERE, max_pixels=HEIGHT * WIDTH - 1)
    assert caught.value.reason == "too-large"
    assert MAX_PIXELS >= 8192 * 8192, "a line camera's image"


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "sparse.png"
    with path.open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(ImageError) as caught:
        read_image(path)
    assert caught.value.reason == "too-large"


@pytest.mark.parametrize("name", ["part.png", "no suffix", "TÜR.PNG", "検査.png", "a\nb.png"])
def test_a_file_is_read_by_content_whatever_its_name(tmp_path: Path, name: str) -> None:
    write_png(tmp_path / name, grey_image())
    assert np.array_equal(read_image(tmp_path / name), grey_image())


def test_a_name_that_is_no_utf_8(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"part-\xff\xfe.png")
    write_png(path, grey_image())
    assert np.array_equal(read_image(path), grey_image())
    path.write_bytes(b"")
    with pytest.raises(ImageError) as caught:
        read_image(path)
    assert str(caught.value).endswith("part-\\udcff\\udcfe.png: is an empty file")


def make_fifo(path: Path) -> None:
    os.mkfifo(path)


def make_dangling_link(path: Path) -> None:
    path.symlink_to("nowhere")


def make_link_to_itself(path: Path) -> None:
    path.symlink_to(path)


@pytest.mark.parametrize(
    ("make", "wanted"),
    [
        (make_fifo, "not-a-file"),
        (Path.mkdir, "not-a-file"),
        (lambda path: path.symlink_to("/dev/zero"), "not-a-file"),
        (lambda path: None, "missing"),
        (make_dangling_link, "missing"),
        (make_link_to_itself, "unreadable"),
        (Path.touch, "empty"),
    ],
)
def test_what_cannot_be_read_is_told_and_never_hangs(
    tmp_path: Path, make: Callable[[Path], None], wanted: str
) -> None:
    path = tmp_path / "part.png"
    make(path)
    error = within(10, lambda: read_image(path))
    assert isinstance(error, ImageError)
    assert error.reason == wanted
    assert str(error).startswith(f"{path}: ")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission_is_unreadable(tmp_path: Path) -> None:
    path = tmp_path / "part.png"
    write_png(path, grey_image())
    path.chmod(0)
    with pytest.raises(ImageError, match="Permission denied") as caught:
        read_image(path)
    assert caught.value.reason == "unreadable"


def test_a_link_to_an_image_is_an_image(tmp_path: Path) -> None:
    write_png(tmp_path / "part.png", grey_image())
    (tmp_path / "link.png").symlink_to("part.png")
    assert np.array_equal(read_image(tmp_path / "link.png"), grey_image())


def test_real_images_decode_as_elsewhere(real_dagm2007: Path) -> None:
    paths = sorted(real_dagm2007.rglob("*.PNG"))[:6]
    assert paths
    for path in paths:
        with PIL.Image.open(path) as picture:
            assert np.array_equal(read_image(path), np.asarray(picture.convert("L"))), path


def test_an_image_without_content_is_refused_for_comparisons() -> None:
    where = Path("dark.png")
    with pytest.raises(DataError, match="the grey value 7 throughout"):
        require_content(np.full((4, 5), 7, np.uint8), where)
    require_content(np.eye(4, dtype=np.uint8), where)
