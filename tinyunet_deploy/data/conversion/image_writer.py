"""Write one annotated image: a copy of it, and its mask."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tinyunet_deploy.contract import Mask
from tinyunet_deploy.data.conversion.drawing import Unfit, draw
from tinyunet_deploy.data.conversion.model import AnnotatedImage
from tinyunet_deploy.data.decoding import image_size, read_bytes
from tinyunet_deploy.data.encoding import encode_png
from tinyunet_deploy.data.orientation import UPRIGHT, exif_orientation
from tinyunet_deploy.errors import DataError, ImageError
from tinyunet_deploy.files import writing

__all__ = ["Written", "write_image"]


class Written(NamedTuple):
    """Annotations of one image that was written."""

    drawn: Counter[str]
    """Label -> number of annotations in the mask."""
    left_out: Counter[str]
    """Label -> number of annotations that mean no defect."""
    error: DataError | None
    """Fault because of which nothing was written; None without one."""


def write_image(image: AnnotatedImage, types: Mapping[str, int], folder: Path) -> Written:
    """Copy an image below images/ and write its mask below masks/ of its split.

    Args:
        types: label -> value in the mask; other labels are left out.
        folder: folder of the converted data set.
    """
    labels = Counter(annotation.label for annotation in image.annotations)
    drawn = Counter({label: count for label, count in labels.items() if label in types})
    try:
        data = read_bytes(image.image)
        shape = image_size(data, image.image)
        _require_size(image, shape)
        _require_upright(image.image, data)
        mask = _mask(image, shape, types)
    except ImageError as error:
        fault = DataError(image.image, error.what, error.hint)
        return Written(drawn, labels - drawn, fault)
    except DataError as error:
        return Written(drawn, labels - drawn, error)
    base = folder / image.split if image.split else folder
    for path, content in (
        (base / "images" / image.name, data),
        ((base / "masks" / image.name).with_suffix(".png"), encode_png(mask)),
    ):
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    return Written(drawn, labels - drawn, None)


def _require_size(image: AnnotatedImage, shape: tuple[int, int]) -> None:
    if image.size is not None and image.size != shape:
        raise DataError(
            image.image,
            f"is {shape[1]}x{shape[0]} pixels, but {image.source} says "
            f"{image.size[1]}x{image.size[0]}",
            "annotate the file as it is",
        )


def _require_upright(path: Path, data: bytes) -> None:
    """Refuse an image that tools show turned, as their outlines are then turned, too."""
    orientation = exif_orientation(data)
    if orientation != UPRIGHT:
        raise DataError(
            path,
            f"has the EXIF orientation {orientation}, by which annotation tools turn it, but not "
            "this toolkit",
            "store it upright and annotate that",
        )


def _mask(image: AnnotatedImage, shape: tuple[int, int], types: Mapping[str, int]) -> Mask:
    """Draw the annotations of an image, the largest first.

    Raises:
        DataError: one leaves the image, or is covered by others.
    """
    mask = np.zeros(shape, np.uint8)
    areas = []
    for annotation in image.annotations:
        if annotation.label in types:
            try:
                areas.append((annotation, draw(annotation, shape)))
            except Unfit as error:
                raise DataError(image.source, f"{annotation.where} {error}") from error
    areas.sort(key=lambda area: -int(area[1].pixels.sum()))
    for annotation, (pixels, left, top) in areas:
        part = mask[top:, left:][: pixels.shape[0], : pixels.shape[1]]
        part[pixels] = types[annotation.label]
    for annotation, (pixels, left, top) in areas:
        part = mask[top:, left:][: pixels.shape[0], : pixels.shape[1]]
        if not (part[pixels] == types[annotation.label]).any():
            raise DataError(
                image.source,
                f"{annotation.where} is covered by annotations of other types",
                "remove one of them",
            )
    return mask
