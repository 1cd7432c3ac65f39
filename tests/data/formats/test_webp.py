from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

from tinyunet_deploy.data.decoding import decode_image, decode_labels
from tinyunet_deploy.errors import ImageError

HERE = Path("part.webp")
GREY = np.arange(48 * 80, dtype=np.int64).reshape(48, 80).astype(np.uint8)


def webp(*arrays: np.ndarray, **options: Any) -> bytes:
    first, *more = [PIL.Image.fromarray(array) for array in arrays]
    file = io.BytesIO()
    first.save(file, "WEBP", append_images=more, save_all=bool(more), **options)
    return file.getvalue()


def reason(data: bytes) -> str:
    with pytest.raises(ImageError) as caught:
        decode_image(data, HERE)
    return caught.value.reason


def test_lossless_and_lossy_images() -> None:
    colours = np.dstack([GREY] * 3)
    assert np.array_equal(decode_image(webp(colours, lossless=True), HERE), GREY)
    smooth = (np.mgrid[:48, :80].sum(axis=0)).astype(np.uint8)
    lossy = decode_image(webp(np.dstack([smooth] * 3), quality=95), HERE)
    assert np.abs(lossy.astype(int) - smooth).max() <= 6


def test_transparency_changes_no_grey_value() -> None:
    colours = np.dstack([GREY, GREY, GREY, np.maximum(GREY[::-1], 1)])
    data = webp(colours, lossless=True, exact=True)
    assert np.array_equal(decode_image(data, HERE), GREY)
    assert np.array_equal(decode_labels(data, HERE).values, colours)


def test_an_animation_is_refused_with_its_count() -> None:
    frames = [np.full((16, 16, 3), value, np.uint8) for value in (0, 90, 200)]
    with pytest.raises(ImageError, match="contains 3 images, not one") as caught:
        decode_image(webp(*frames, lossless=True), HERE)
    assert caught.value.reason == "several-images"


@pytest.mark.parametrize("lossless", [True, False])
def test_a_cut_file_is_refused(lossless: bool) -> None:
    data = webp(np.random.default_rng(0).integers(0, 256, (48, 80, 3), np.uint8), lossless=lossless)
    for length in (12, 20, 30, len(data) // 2, len(data) - 1):
        assert reason(data[:length]) == "truncated"


def test_lost_data_are_noticed_though_the_sizes_fit() -> None:
    array = np.random.default_rng(0).integers(0, 256, (48, 80, 3), np.uint8)
    data = webp(array, lossless=True)
    for at in range(200, len(data) - 200, 500):
        damaged = data[:at] + data[at + 60 :] + bytes(60)
        try:
            assert not np.array_equal(decode_image(damaged, HERE), decode_image(data, HERE))
        except ImageError as error:
            assert error.reason == "corrupt"


def test_millions_of_chunks_are_not_walked_over() -> None:
    data = webp(np.dstack([GREY] * 3), lossless=True)
    more = data + b"abcd\0\0\0\0" * 1_000_000
    sized = more[:4] + (len(more) - 8).to_bytes(4, "little") + more[8:]
    with pytest.raises(ImageError, match="more than 10000 chunks"):
        decode_image(sized, HERE)
