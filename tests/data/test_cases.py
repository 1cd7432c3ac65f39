"""Inputs that were once read wrongly, made here; and the collected ones, where they are present."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import tifffile

from tinyunet_deploy.data.check import check_dataset
from tinyunet_deploy.data.decoding import decode_image, read_image
from tinyunet_deploy.data.layouts import read_dataset
from tinyunet_deploy.errors import ImageError

HERE = Path("part")
CASES = Path(__file__).resolve().parents[2].parent / "shared" / "cases"


def part() -> np.ndarray:
    y, x = np.mgrid[:64, :64]
    return (60 + x + y // 2).astype(np.uint8)


def reason(data: bytes) -> str:
    with pytest.raises(ImageError) as caught:
        decode_image(data, HERE)
    return caught.value.reason


def test_a_mask_of_0_and_1_in_16_bits_is_as_one_in_8(tmp_path: Path) -> None:
    mask = np.zeros((64, 64), np.uint16)
    mask[20:30, 30:40] = 1
    for depth in (np.uint8, np.uint16):
        for name, array in (("images", part()), ("masks", mask.astype(depth))):
            folder = tmp_path / depth.__name__ / name
            folder.mkdir(parents=True)
            PIL.Image.fromarray(array).save(folder / "a.png")
        dataset = read_dataset(tmp_path / depth.__name__)
        assert [item.defective for item in dataset.items] == [True]
        assert check_dataset(dataset).oddities == []


def test_a_good_page_does_not_speak_for_a_defective_one() -> None:
    file = io.BytesIO()
    with tifffile.TiffWriter(file) as tiff:
        for page in (part(), 255 - part()):
            tiff.write(page, metadata=None, compression="zlib")
    assert reason(file.getvalue()) == "several-images"


def test_bytes_lost_inside_a_compressed_strip() -> None:
    file = io.BytesIO()
    tifffile.imwrite(file, part(), metadata=None, compression="zlib", rowsperstrip=8)
    data = file.getvalue()
    with tifffile.TiffFile(io.BytesIO(data)) as tiff:
        begin = tiff.pages[0].dataoffsets[4]
    damaged = data[: begin + 10] + bytes(20) + data[begin + 30 :]
    assert reason(damaged) == "corrupt"


def test_kinds_that_are_not_read_are_named() -> None:
    file = io.BytesIO()
    tifffile.imwrite(file, part().astype(np.float32) / 255, metadata=None)
    assert reason(file.getvalue()) == "unsupported"
    file = io.BytesIO()
    tifffile.imwrite(file, part(), metadata=None, compression="jpeg2000")
    assert reason(file.getvalue()) == "unsupported"


def test_kinds_that_are_read() -> None:
    file = io.BytesIO()
    tifffile.imwrite(file, part(), metadata=None, bigtiff=True, compression="zlib")
    palette = b"".join(bytes([value] * 3) for value in range(256))
    head = struct.pack("<2sIHHIIHHHH", b"BM", 794 + 4096, 0, 0, 794, 12, 64, 64, 1, 8)
    for data in (
        file.getvalue(),
        head + palette + part()[::-1].tobytes(),
        b"P5\n64 64\n255\n" + part().tobytes(),
    ):
        assert np.array_equal(decode_image(data, HERE), part())


def test_a_12_bit_camera_in_16_bits() -> None:
    values = part().astype(np.uint16) * 16
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)

    def chunk(name: bytes, content: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(name + content))
        return struct.pack(">I", len(content)) + name + content + checksum

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 64, 64, 16, 0, 0, 0, 0))
    data = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    told: list[tuple[Path, int]] = []
    decode_image(data, HERE, on_shallow=lambda *notice: told.append(notice))
    assert told == [(HERE, int(values.max()))]
    image = decode_image(data, HERE, bits=12, on_shallow=lambda *notice: told.append(notice))
    assert np.abs(image.astype(int) - part()).max() <= 1
    assert len(told) == 1, "a declared depth needs no notice"
    with pytest.raises(ImageError, match="more than 10 bits can hold") as caught:
        decode_image(data, HERE, bits=10)
    assert caught.value.reason == "bit-depth"


@pytest.mark.skipif(not CASES.is_dir(), reason="no collected cases beside the repository")
def test_the_collected_cases() -> None:
    def outcome(name: str) -> str:
        try:
            return str(len(np.unique(read_image(CASES / name))))
        except ImageError as error:
            return error.reason

    assert outcome("multipage_good_then_defect.tif") == "several-images"
    assert outcome("strip_lost_zlib.tif") == "corrupt"
    assert outcome("t_jp2.tif") == outcome("t_float32_01.tif") == "unsupported"
    for name in ("bigtiff.tif", "bmp_os2_header_64.bmp", "small.pgm"):
        assert int(outcome(name)) > 10, name
    told: list[int] = []
    camera = CASES / "p_mono12_in16.png"
    shallow = read_image(camera, on_shallow=lambda _path, largest: told.append(largest))
    assert told and max(told) <= 4095
    assert len(np.unique(read_image(camera, bits=12))) > 8 * len(np.unique(shallow))
    for depth in (8, 16):
        (item,) = read_dataset(CASES / f"mask_u{depth}_1").items
        assert item.defective
