"""Mutated image files, each held against a second, strict decoder.

Of what the library accepts, every pixel must be what the strict decoder gives. PNG, JPEG, BMP, PNM
and WebP are judged by Pillow, TIFF by tifffile with the codecs of imagecodecs.
"""

from __future__ import annotations

import io
import logging
import random
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import PIL.Image
from numpy.typing import NDArray

from tests.hostile import corpus
from tinyunet_deploy.contract import Image
from tinyunet_deploy.data.decoding import decode_image, decode_labels

HERE: Final = Path("part")
LUMINANCE: Final = np.array([0.299, 0.587, 0.114])
"""Rec. 601."""


class Disagreement(AssertionError):
    """The library accepts what the strict decoder refuses or reads otherwise."""


class Family(NamedTuple):
    """The parents of the mutants of one decoder, and how they are judged."""

    parents: Callable[[], list[bytes]]
    judge: Callable[[bytes], None]


def parents_of(*suffixes: str) -> Callable[[], list[bytes]]:
    """Return a function that lists the good pictures of the corpus with these suffixes."""

    def parents() -> list[bytes]:
        pictures = {**corpus.same_picture(), **corpus.close_picture()}
        return [
            data
            for name, data in sorted(pictures.items())
            if name.endswith(suffixes) and not name.startswith("mislabelled")
        ]

    return parents


def tiffs(compression: str | None) -> Callable[[], list[bytes]]:
    """Return a function that writes the picture as TIFF files of one compression."""

    def parents() -> list[bytes]:
        import tifffile

        grey = corpus.picture()
        colours = np.dstack([grey, grey[::-1], np.roll(grey, 9)])
        kinds: list[tuple[NDArray[Any], dict[str, Any]]] = [
            (grey, {"photometric": "minisblack", "rowsperstrip": 8}),
            (grey, {"photometric": "miniswhite", "rowsperstrip": 64, "byteorder": ">"}),
            (grey, {"photometric": "minisblack", "tile": (32, 48), "bigtiff": True}),
            (colours, {"photometric": "rgb", "rowsperstrip": 20}),
        ]
        if compression != "jpeg":
            deep = grey.astype(np.uint16) * 257
            kinds += [
                (deep, {"photometric": "minisblack", "rowsperstrip": 1}),
                (deep, {"photometric": "minisblack", "tile": (16, 16), "byteorder": ">"}),
                (np.moveaxis(colours, 2, 0), {"photometric": "rgb", "planarconfig": "separate"}),
                (grey > 90, {"photometric": "minisblack", "rowsperstrip": 16}),
            ]
        if compression in ("lzw", "zlib"):
            kinds += [(a, {**o, "predictor": True}) for a, o in kinds if a.dtype != np.bool_]
        files = []
        for array, options in kinds:
            file = io.BytesIO()
            tifffile.imwrite(file, array, compression=compression, metadata=None, **options)
            files.append(file.getvalue())
        return files

    return parents


def judge_by_pillow(data: bytes) -> None:
    """Decode, and compare the grey values with Pillow's.

    Raises:
        ImageError: the library refuses the file.
        Disagreement: Pillow refuses it, or has other values.
    """
    image = decode_image(data, HERE, size=(corpus.SIZE, corpus.SIZE))
    require_size(image)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with PIL.Image.open(io.BytesIO(data)) as picture:
                frames = getattr(picture, "n_frames", 1)
                exact, wanted = grey_of(picture)
    except Exception as error:
        raise Disagreement(f"accepted, but Pillow says {error!r}") from error
    if frames != 1:
        raise Disagreement(f"accepted, but Pillow counts {frames} images")
    tolerance = 0.5 if exact else 2.5 if data.startswith(b"\xff\xd8") else 1.5
    require_same(image, wanted, tolerance)


def grey_of(picture: PIL.Image.Image) -> tuple[bool, NDArray[np.floating[Any]]]:
    """Return whether the values are exact, and the luminance of an opened file, float [H, W]."""
    picture.draft("L", picture.size)  # the luminance that a JPEG stores
    picture.load()
    if picture.mode in ("1", "L", "LA"):
        return True, np.asarray(picture.convert("LA"))[..., 0].astype(float)
    if picture.mode.startswith("I"):
        return True, (np.asarray(picture) // 256).astype(float)
    return False, np.asarray(picture.convert("RGB")) @ LUMINANCE


def judge_by_tifffile(data: bytes) -> None:
    """Decode, and compare the stored values with those of tifffile.

    Raises:
        ImageError: the library refuses the file.
        Disagreement: tifffile refuses it, or has other values.
    """
    import tifffile

    image = decode_image(data, HERE, size=(corpus.SIZE, corpus.SIZE))
    require_size(image)
    labels = decode_labels(data, HERE)
    logging.getLogger("tifffile").disabled = True
    try:
        with tifffile.TiffFile(io.BytesIO(data)) as file:
            pages = [page for page in file.pages if not page.is_reduced]
            wanted = pages[0].asarray()
            if pages[0].planarconfig == 2 and wanted.ndim == 3:
                wanted = np.moveaxis(wanted, 0, 2)
    except Exception as error:
        raise Disagreement(f"accepted, but tifffile says {error!r}") from error
    if len(pages) != 1:
        raise Disagreement(f"accepted, but tifffile counts {len(pages)} pages")
    if wanted.ndim == 3 and wanted.shape[2] == 1:
        wanted = wanted[..., 0]
    require_same(labels.values, wanted, 2.5 if labels.lossy else 0.5)


def require_size(image: Image) -> None:
    assert image.shape == (corpus.SIZE, corpus.SIZE)
    assert image.dtype == np.uint8


def require_same(values: NDArray[Any], wanted: NDArray[Any], tolerance: float) -> None:
    """Raise Disagreement if two arrays differ in shape, or by more than the tolerance."""
    if values.shape != wanted.shape:
        raise Disagreement(f"has the shape {values.shape}, not {wanted.shape}")
    difference = np.abs(values.astype(float) - wanted.astype(float))
    if difference.max() > tolerance:
        share = float((difference > tolerance).mean())
        raise Disagreement(f"differs by up to {difference.max():.1f}, in {100 * share:.1f} %")


FAMILIES: Final = {
    "png": Family(parents_of(".png"), judge_by_pillow),
    "jpeg": Family(parents_of(".jpg", ".jpeg"), judge_by_pillow),
    "bmp": Family(parents_of(".bmp"), judge_by_pillow),
    "pnm": Family(parents_of(".pgm", ".ppm", ".pnm"), judge_by_pillow),
    "webp": Family(parents_of(".webp"), judge_by_pillow),
    "tiff": Family(tiffs(None), judge_by_tifffile),
    "tiff-lzw": Family(tiffs("lzw"), judge_by_tifffile),
    "tiff-deflate": Family(tiffs("zlib"), judge_by_tifffile),
    "tiff-packbits": Family(tiffs("packbits"), judge_by_tifffile),
    "tiff-jpeg": Family(tiffs("jpeg"), judge_by_tifffile),
}


class Images:
    """Mutants of the files of one decoder."""

    def __init__(self, name: str, mutate: Callable[[bytes, random.Random], bytes]) -> None:
        self.family = FAMILIES[name]
        self.parents = self.family.parents()
        self.mutate = mutate

    def data(self, seed: int) -> bytes:
        rng = random.Random(seed)
        return self.mutate(rng.choice(self.parents), rng)

    def run(self, seed: int) -> str:
        self.family.judge(self.data(seed))
        return "decoded"
