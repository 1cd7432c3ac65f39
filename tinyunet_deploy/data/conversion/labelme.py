"""Read LabelMe: one JSON file for each image, with shapes."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinyunet_deploy.data.conversion.drawing import Unfit, cropped, require_pixels
from tinyunet_deploy.data.conversion.ellipses import ellipse_corners
from tinyunet_deploy.data.conversion.model import (
    AnnotatedImage,
    AnnotatedSet,
    Annotation,
    Bitmap,
    Outline,
)
from tinyunet_deploy.data.conversion.sources import clean_name, find_image, split_of, without_split
from tinyunet_deploy.data.decoding import decode_labels
from tinyunet_deploy.errors import DataError, ImageError

__all__ = ["is_labelme", "read_labelme"]


def is_labelme(content: object) -> bool:
    """Return whether the content of a JSON file is that of LabelMe."""
    return isinstance(content, dict) and {"shapes", "imagePath"} <= content.keys()


def read_labelme(root: Path, files: Mapping[Path, Any]) -> AnnotatedSet:
    """Read LabelMe files; a folder above an image that is named for a split states its split.

    Args:
        root: folder below which the images lie.
        files: path -> content of each file for which :func:`is_labelme` is true.

    Raises:
        DataError: a shape is not understood or has no area, or an image is missing.
    """
    images: dict[Path, AnnotatedImage] = {}
    for path, content in files.items():
        name = clean_name(content["imagePath"], path)
        image = find_image(name, [path.parent], root, path)
        if image in images:
            raise DataError(path, f"annotates {image}, as {images[image].source} does", "keep one")
        place = image.relative_to(root)
        split = split_of(place.parent.parts)
        shapes = content["shapes"]
        if not isinstance(shapes, list) or not all(isinstance(shape, dict) for shape in shapes):
            raise DataError(path, "has shapes that are not a list")
        images[image] = AnnotatedImage(
            image=image,
            source=path,
            name=without_split(place),
            split=split,
            size=_size(path, content),
            annotations=tuple(_annotation(path, n, shape) for n, shape in enumerate(shapes, 1)),
        )
    labels = sorted({entry.label for image in images.values() for entry in image.annotations})
    return AnnotatedSet("labelme", tuple(labels), tuple(images.values()))


def _size(path: Path, content: dict[str, Any]) -> tuple[int, int] | None:
    height, width = content.get("imageHeight"), content.get("imageWidth")
    if height is None and width is None:
        return None
    if not isinstance(height, int) or not isinstance(width, int):
        raise DataError(path, f"has the image size {width}x{height}")
    return height, width


def _annotation(path: Path, number: int, shape: dict[str, Any]) -> Annotation:
    where = f"shape {number}"
    label, kind = shape.get("label"), shape.get("shape_type", "polygon")
    if not isinstance(label, str) or not label.strip():
        raise DataError(path, f"{where} has the label {label!r}", "expected a name")
    try:
        points = np.array(shape.get("points"), np.float64)
    except (ValueError, TypeError, OverflowError) as error:
        raise DataError(path, f"{where} has points that are not numbers") from error
    if points.ndim != 2 or points.shape[1] != 2 or not np.isfinite(points).all():
        raise DataError(path, f"{where} has points that are not pairs of x and y")
    if kind in ("polygon", "rectangle", "circle"):
        try:
            require_pixels(points)
        except Unfit as error:
            raise DataError(path, f"{where} {error}") from error
    match kind, len(points):
        case "polygon", count if count >= 3:
            area: Outline | Bitmap = Outline(points)
        case "rectangle", 2 | 4:
            area = Outline(_rectangle(points))
        case "circle", 2:
            radius = float(np.hypot(*(points[1] - points[0])))
            area = Outline(
                ellipse_corners(float(points[0, 0]), float(points[0, 1]), radius, radius)
            )
        case "mask", 2:
            area = _bitmap(path, where, points, shape.get("mask"))
        case (("polygon" | "rectangle" | "circle" | "mask"), count):
            raise DataError(path, f"{where}, a {kind}, has {count} points")
        case _:
            raise DataError(
                path,
                f"{where} is of the kind {kind!r}, which has no area",
                "known: polygon, rectangle, circle, mask",
            )
    return Annotation(label.strip(), (area,), where)


def _rectangle(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the four corners; newer versions store all of them, older ones two."""
    if len(points) == 4:
        return points
    (x0, y0), (x1, y1) = points
    return np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)])


def _bitmap(path: Path, where: str, points: NDArray[np.float64], mask: object) -> Bitmap:
    """Return a mask, a PNG in base64 whose first pixel is at the first point."""
    left, top = (int(value) for value in np.rint(points[0]))
    try:
        if not isinstance(mask, str):
            raise ValueError("there is none")
        values = decode_labels(base64.b64decode(mask, validate=True), path).values
    except (ValueError, binascii.Error) as error:
        raise DataError(path, f"{where} has an unusable mask: {error}") from error
    except ImageError as error:
        raise DataError(path, f"{where} has an unusable mask: it {error.what}") from error
    if values.ndim != 2:
        raise DataError(path, f"{where} has a mask with colours", "expected a grey one")
    if not values.any():
        raise DataError(path, f"{where} covers no pixel")
    span = np.rint(points[1]) - np.rint(points[0])
    excess = values.shape[::-1] - span
    if not ((excess >= -1) & (excess <= 2)).all():  # versions count the last pixel or not
        raise DataError(
            path,
            f"{where} has a mask of {values.shape[1]}x{values.shape[0]} pixels, but its points "
            f"span {span[0]:g}x{span[1]:g}",
            "mark the defect again, or remove the shape",
        )
    return cropped(values != 0, left, top)
