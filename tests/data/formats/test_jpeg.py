from __future__ import annotations

import io
import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from numpy.typing import NDArray

from tinyunet_deploy.data.decoding import decode_image
from tinyunet_deploy.data.formats.header import FormatError
from tinyunet_deploy.data.formats.jpeg import read_header
from tinyunet_deploy.errors import ImageError

HERE = Path("part.jpg")


def noise() -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (80, 72), np.uint8)


def jpeg(mode: str = "L", **options: Any) -> bytes:
    file = io.BytesIO()
    PIL.Image.fromarray(noise()).convert(mode).save(file, "JPEG", quality=90, **options)
    return file.getvalue()


def refusal(data: bytes) -> ImageError:
    with pytest.raises(ImageError) as caught:
        decode_image(data, HERE)
    return caught.value


def scans(data: bytes) -> list[tuple[int, int]]:
    """(begin, end) of each scan with its header."""
    begins = [match.start() for match in re.finditer(rb"\xff\xda", data)]
    return list(zip(begins, [*begins[1:], len(data) - 2], strict=True))


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_a_progressive_jpeg_without_its_last_scans_is_refused(count: int) -> None:
    data = jpeg(progressive=True)
    decode_image(data, HERE)
    begin = scans(data)[-count][0]
    assert refusal(data[:begin] + b"\xff\xd9").reason == "truncated"


@pytest.mark.parametrize("options", [{"progressive": True}, {"restart_marker_blocks": 6}])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_data_lost_at_the_end_of_a_scan_or_interval_is_noticed(
    mode: str, options: dict[str, Any]
) -> None:
    data = jpeg(mode, **options)
    decode_image(data, HERE)
    ends = [end for _, end in scans(data)]
    ends += [match.start() for match in re.finditer(rb"\xff[\xd0-\xd7]", data)][::4]
    for end in ends:
        assert refusal(data[: end - 12] + data[end:]).reason in ("truncated", "corrupt"), end


def test_a_lost_interval_between_restarts_is_noticed() -> None:
    data = jpeg(restart_marker_blocks=4)
    decode_image(data, HERE)
    markers = [match.start() for match in re.finditer(rb"\xff[\xd0-\xd7]", data)]
    assert len(markers) > 16
    for first, count in ((0, 1), (3, 8), (len(markers) - 9, 8)):  # 8 keep the numbers in order
        shorter = data[: markers[first]] + data[markers[first + count] :]
        assert refusal(shorter).reason in ("truncated", "corrupt")
    for lost in (1, 5):  # at the end, where no number shows it
        assert refusal(data[: markers[-lost]] + data[-2:]).reason == "truncated"
    doubled = data[: markers[0]] + data[markers[0] : markers[8]] * 2 + data[markers[8] :]
    assert refusal(doubled).reason == "corrupt"


def test_a_restart_marker_where_none_can_be_is_noticed() -> None:
    data = jpeg()
    middle = (scans(data)[0][0] + len(data)) // 2
    assert refusal(data[:middle] + b"\xff\xd0" + data[middle:]).reason == "corrupt"


@pytest.mark.parametrize("zeros", [100, 500, 2000])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_a_hole_of_zeros_in_the_middle_is_noticed(mode: str, zeros: int) -> None:
    data = jpeg(mode)
    at = (scans(data)[0][0] + len(data) - zeros) // 2
    error = refusal(data[:at] + bytes(zeros) + data[at + zeros :])
    assert error.reason == "corrupt"
    assert "more data than its pixels take" in str(error)


@pytest.mark.parametrize(
    "options",
    [
        {"restart_marker_rows": 1},
        {"restart_marker_rows": 2},
        {"restart_marker_blocks": 3},
        {"restart_marker_rows": 1, "subsampling": 2},
        {"restart_marker_blocks": 3, "subsampling": 1},
    ],
)
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_a_hole_of_zeros_between_restarts_is_noticed(mode: str, options: dict[str, Any]) -> None:
    data = jpeg(mode, **options)
    decode_image(data, HERE)
    begin = scans(data)[0][0] + 8 + 2 * (1 if mode == "L" else 3)
    markers = [match.start() for match in re.finditer(rb"\xff[\xd0-\xd7]", data)]
    begins = [begin, *(at + 2 for at in markers)]
    intervals = list(zip(begins, [*markers, len(data) - 2], strict=True))
    noticed = 0
    for first, end in intervals[::5]:
        assert end - first > 90
        at = first + 20
        try:
            decode_image(data[:at] + bytes(60) + data[at + 60 :], HERE)
        except ImageError as error:
            assert error.reason in ("corrupt", "truncated")
            noticed += 1
    assert noticed > 0.7 * len(intervals[::5])


@pytest.mark.parametrize("size", [(8, 8), (9, 17), (16, 200), (80, 72)])
@pytest.mark.parametrize("blocks", [1, 2, 3, 7])
@pytest.mark.parametrize("options", [{}, {"optimize": True}, {"subsampling": 2}])
def test_whole_intervals_of_any_length_are_read(
    size: tuple[int, int], blocks: int, options: dict[str, Any]
) -> None:
    content = np.resize(noise(), size)
    for values in (content, np.full_like(content, 128)):
        for mode in ("L", "RGB"):
            file = io.BytesIO()
            picture = PIL.Image.fromarray(values).convert(mode)
            picture.save(file, "JPEG", restart_marker_blocks=blocks, **options)
            assert decode_image(file.getvalue(), HERE).shape == size


def test_a_header_with_fewer_rows_than_the_file_is_noticed() -> None:
    data = jpeg()
    at = data.index(b"\xff\xc0") + 5
    for height in (40, 64, 72):
        shorter = data[:at] + struct.pack(">H", height) + data[at + 2 :]
        assert "more data than its pixels take" in str(refusal(shorter))


@pytest.mark.parametrize("side", [1, 7, 8, 9, 64])
@pytest.mark.parametrize("padding", [b"", b"\0", bytes(8), b"\xff" * 100])
@pytest.mark.parametrize("options", [{}, {"optimize": True}, {"subsampling": 2}])
def test_small_and_flat_images_and_padded_scans_are_whole(
    side: int, padding: bytes, options: dict[str, Any]
) -> None:
    """A scan of a few bytes is shorter than what an encoder may add to its end."""
    for content in (np.full((side, side), 128, np.uint8), noise()[:side, :side]):
        for mode in ("L", "RGB"):
            file = io.BytesIO()
            PIL.Image.fromarray(content).convert(mode).save(file, "JPEG", **options)
            data = file.getvalue()
            decode_image(data[:-2] + padding + data[-2:], HERE)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda data, at: data[: at + 4] + b"\x0c" + data[at + 5 :], "12-bit JPEG"),
        (lambda data, at: data[: at + 1] + b"\xc3" + data[at + 2 :], "lossless JPEG"),
        (lambda data, at: data[: at + 1] + b"\xf7" + data[at + 2 :], "JPEG-LS"),
    ],
)
def test_a_variant_that_is_not_read_is_named(
    change: Callable[[bytes, int], bytes], words: str
) -> None:
    data = jpeg()
    error = refusal(change(data, data.index(b"\xff\xc0")))
    assert error.reason == "unsupported"
    assert words in str(error)


def picture_index(*kinds: int) -> bytes:
    """The APP2 segment of a multi-picture file with pictures of these types."""
    entries = b"".join(struct.pack("<IIIHH", kind, 1000, 0, 0, 0) for kind in kinds)
    fields = struct.pack("<HHII", 0xB001, 4, 1, len(kinds))
    fields += struct.pack("<HHII", 0xB002, 7, len(entries), 8 + 2 + 24 + 4)
    index = b"II*\0" + struct.pack("<IH", 8, 2) + fields + bytes(4) + entries
    return b"\xff\xe2" + struct.pack(">H", 2 + 4 + len(index)) + b"MPF\0" + index


def test_several_pictures_in_one_file_are_refused_with_their_count() -> None:
    data = jpeg()
    error = refusal(data[:2] + picture_index(0x20030000, 0x20002, 0x20002) + data[2:])
    assert error.reason == "several-images"
    assert "contains 3 images" in str(error)


@pytest.mark.parametrize("between", [b"", bytes(9)])
def test_another_jpeg_behind_the_end_is_another_image(between: bytes) -> None:
    assert refusal(jpeg() + between + jpeg()).reason == "several-images"
    assert decode_image(jpeg() + between + b"words", HERE).shape == noise().shape[:2]


def test_a_height_behind_the_pixels_is_named() -> None:
    data = bytearray(jpeg())
    at = data.index(b"\xff\xc0")
    data[at + 5 : at + 7] = bytes(2)
    error = refusal(bytes(data))
    assert error.reason == "unsupported"
    assert "height behind its pixels" in str(error)


def test_previews_of_the_picture_are_not_further_images() -> None:
    data = jpeg()
    index = picture_index(0x20030000, 0x10001, 0x10002)
    assert np.array_equal(decode_image(data[:2] + index + data[2:], HERE), decode_image(data, HERE))


def test_megabytes_of_padding_are_one_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sixteen of them once took twelve seconds in a loop over each byte."""
    data = jpeg()
    padded = data[:2] + b"\xff" * (16 << 20) + data[2:-2] + b"\xff" * 100_000 + data[-2:]
    steps = 0
    pattern = re.compile(rb"\xff+")

    class Counted:
        def match(self, *args: Any) -> re.Match[bytes] | None:
            nonlocal steps
            steps += 1
            return pattern.match(*args)

    monkeypatch.setattr("tinyunet_deploy.data.formats.jpeg._PADDING", Counted())
    assert np.array_equal(decode_image(padded, HERE), decode_image(data, HERE))
    assert steps < 100


def test_millions_of_segments_are_not_walked_over() -> None:
    data = jpeg()
    error = refusal(data[:2] + b"\xff\xe3\0\2" * 1_000_000 + data[2:])
    assert "more than 10000 segments" in str(error)


def test_the_passes_over_a_large_image_are_bounded() -> None:
    data = jpeg(progressive=True)
    begin, end = scans(data)[-1]
    assert refusal(data[:end] + data[begin:end] * 300 + data[-2:]).reason == "corrupt"
    at = data.index(b"\xff\xc2")
    large = data[: at + 5] + struct.pack(">HH", 16_000, 16_000) + data[at + 9 :]
    error = refusal(large[:end] + large[begin:end] * 9 + large[-2:])
    assert error.reason in ("too-large", "corrupt")


VARIANTS = {
    0xC3: "lossless", 0xC5: "hierarchical", 0xC6: "hierarchical", 0xC7: "hierarchical lossless",
    0xCB: "lossless arithmetic", 0xCD: "hierarchical", 0xCE: "hierarchical",
    0xCF: "hierarchical lossless", 0xF7: "JPEG-LS",
}  # fmt: skip


@pytest.mark.parametrize(("code", "variant"), VARIANTS.items())
def test_a_frame_that_is_not_read_is_named_even_if_nothing_follows_it(
    code: int, variant: str
) -> None:
    data = jpeg()
    at = data.index(b"\xff\xc0")
    changed = data[: at + 1] + bytes([code]) + data[at + 2 :]
    end = at + 2 + struct.unpack_from(">H", data, at + 2)[0]
    for whole in (changed, changed[:end]):
        with pytest.raises(FormatError) as caught:
            read_header(whole)
        assert (caught.value.reason, caught.value.what) == ("unsupported", f"is a {variant} JPEG")
    with pytest.raises(EOFError):
        read_header(changed[: end - 1])


@pytest.mark.parametrize("code", [0x02, 0xBF, 0xC4, 0xC8, 0xCC, 0xDA + 1, 0xE0, 0xEF, 0xFE])
def test_segments_of_other_kinds_are_walked_over(code: int) -> None:
    data = jpeg()
    header = read_header(data[:2] + b"\xff" + bytes([code]) + b"\0\5abc" + data[2:])
    assert (header.height, header.width, header.bits, header.lossy) == (80, 72, 8, True)


@pytest.mark.parametrize("code", [0x01, *range(0xD0, 0xDA)])
def test_a_marker_without_a_length_between_segments_is_the_end(code: int) -> None:
    data = jpeg()
    with pytest.raises(EOFError):
        read_header(data[:2] + b"\xff" + bytes([code]) + b"\0\2" + data[2:])


@pytest.mark.parametrize("kind", [b"\xc0", b"\xc3"])
def test_a_frame_header_without_a_byte_is_damage_not_an_unsupported_depth(kind: bytes) -> None:
    with pytest.raises(FormatError, match="damaged frame header") as caught:
        read_header(b"\xff\xd8\xff" + kind + b"\x00\x02\xff\xd9")
    assert caught.value.reason == "corrupt"


def test_other_bytes_before_the_frame_are_not_a_jpeg_and_no_bytes_a_short_file() -> None:
    begin = b"\xff\xd8\xff\xe0\0\4ab"
    for following in (b"x", b"\xff", b"more text"):
        with pytest.raises(FormatError) as caught:
            read_header(begin + following)
        assert caught.value.reason == "not-an-image"
    with pytest.raises(EOFError):
        read_header(begin)


def test_an_index_of_pictures_counts_in_its_own_segment_before_the_frame() -> None:
    data = jpeg()
    index = picture_index(0x20002, 0x20002)
    with pytest.raises(FormatError) as caught:
        read_header(data[:2] + index + data[2:])
    assert caught.value.what == "contains 2 images, not one"
    read_header(data[:2] + index[:1] + b"\xe3" + index[2:] + data[2:])
    read_header(data[:2] + index.replace(b"MPF\0", b"mpf\0") + data[2:])
    at = data.index(b"\xff\xda")
    read_header(data[:at] + index + data[at:])


@pytest.mark.parametrize(("entries", "count"), [(16, 16), (999, 999), (1000, 1000), (1001, 1000)])
def test_pictures_are_counted_up_to_a_thousand(entries: int, count: int) -> None:
    data = jpeg()
    with pytest.raises(FormatError, match=f"contains {count} images"):
        read_header(data[:2] + picture_index(*[0x20002] * entries) + data[2:])


def test_two_hundred_passes_are_walked_over() -> None:
    data = jpeg(progressive=True)
    begin, end = scans(data)[-1]
    others = len(scans(data))
    read_header(data[:end] + data[begin:end] * (200 - others) + data[-2:])
    with pytest.raises(FormatError, match="asks for 201 passes"):
        read_header(data[:end] + data[begin:end] * (201 - others) + data[-2:])


@pytest.mark.parametrize(
    ("height", "width", "passes", "accepted"),
    [
        (1 << 14, 1 << 14, 8, True),
        (1 << 14, 1 << 14, 9, False),
        ((1 << 15), (1 << 16) - 1, 1, True),
        ((1 << 15) + 1, (1 << 16) - 1, 1, False),
        ((1 << 16) - 1, (1 << 15) + 1, 1, False),
    ],
)
def test_all_passes_together_have_two_thousand_million_pixels_at_most(
    height: int, width: int, passes: int, accepted: bool
) -> None:
    data = jpeg()
    at = data.index(b"\xff\xc0")
    large = data[: at + 5] + struct.pack(">HH", height, width) + data[at + 9 :]
    begin, end = scans(large)[0]
    large = large[:begin] + large[begin:end] * passes + large[-2:]
    if accepted:
        assert len(read_header(large).details.scans) == passes
    else:
        with pytest.raises(FormatError, match=f"asks for {passes} passes"):
            read_header(large)
