from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import PIL.Image

from tinyunet_deploy.data.decoding import read_image
from tinyunet_deploy.data.encoding import encode_jpeg, encode_png, write_png


def grey_image() -> np.ndarray:
    return (np.arange(48 * 80) % 256).reshape(48, 80).astype(np.uint8)


def test_png_files_open_elsewhere_and_decode_to_the_same_values(tmp_path: Path) -> None:
    write_png(tmp_path / "part.png", grey_image())
    with PIL.Image.open(tmp_path / "part.png") as picture:
        assert picture.mode == "L"
        assert np.array_equal(np.asarray(picture), grey_image())
    assert np.array_equal(read_image(tmp_path / "part.png"), grey_image())
    assert encode_png(grey_image()) == encode_png(grey_image())


def test_jpeg_files_open_elsewhere() -> None:
    picture = np.dstack([grey_image()] * 3)
    with PIL.Image.open(io.BytesIO(encode_jpeg(picture))) as jpeg:
        assert (jpeg.format, jpeg.size) == ("JPEG", (80, 48))
