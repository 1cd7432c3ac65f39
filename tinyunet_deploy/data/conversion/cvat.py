"""Read "CVAT for images 1.1": an XML file of images with polygons, masks, boxes and ellipses."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from tinyunet_deploy.data.conversion.drawing import cropped
from tinyunet_deploy.data.conversion.ellipses import ellipse_corners, turned
from tinyunet_deploy.data.conversion.model import (
    AnnotatedImage,
    AnnotatedSet,
    Annotation,
    Bitmap,
    Outline,
)
from tinyunet_deploy.data.conversion.run_lengths import decode_runs
from tinyunet_deploy.data.conversion.sources import (
    clean_name,
    find_image,
    read_text,
    relative,
    split_of,
)
from tinyunet_deploy.data.decoding import MAX_PIXELS
from tinyunet_deploy.errors import DataError

__all__ = ["is_cvat", "read_cvat"]


class _Builder(ElementTree.TreeBuilder):
    """Builds a tree; a document type, through which a small file can declare enormous text, is an
    error before any of it is read."""

    def doctype(self, name: str, public: str | None, system: str | None) -> None:
        raise ValueError("it has a document type")


def is_cvat(path: Path) -> bool:
    """Return whether an XML file begins as CVAT's do."""
    with path.open("rb") as file:
        return b"<annotations" in file.read(4096)


def read_cvat(root: Path, files: Sequence[Path]) -> AnnotatedSet:
    """Read XML files of CVAT; the subset of an image or a folder above its file states its split.

    Args:
        root: folder below which the images lie.
        files: those for which :func:`is_cvat` is true.

    Raises:
        DataError: an element is not understood or has no area, or an image is missing.
    """
    labels: dict[str, None] = {}
    images: list[AnnotatedImage] = []
    for path in files:
        declared, listed = _read_file(root, path)
        labels.update(dict.fromkeys(declared))
        images += listed
    used = sorted({entry.label for image in images for entry in image.annotations} - set(labels))
    return AnnotatedSet("cvat", (*labels, *used), tuple(images))


def _read_file(root: Path, path: Path) -> tuple[list[str], list[AnnotatedImage]]:
    """Return the declared labels and the images of one file."""
    top = _parse(path)
    declared = [name.text or "" for name in top.iterfind("./meta//labels/label/name")]
    images = []
    for element in top:
        if element.tag == "track":
            raise DataError(
                path, "has tracks of a video", "export the task as 'CVAT for images 1.1'"
            )
        if element.tag == "image":
            images.append(_image(root, path, element))
        elif element.tag not in ("version", "meta"):
            raise DataError(path, f"has the unknown element {element.tag!r}")
    return list(filter(None, map(str.strip, declared))), images


def _parse(path: Path) -> ElementTree.Element:
    text = read_text(path)
    try:
        top = ElementTree.fromstring(text, ElementTree.XMLParser(target=_Builder()))
    except (ElementTree.ParseError, ValueError) as error:
        raise DataError(path, f"is not usable XML: {error}") from error
    if top.tag != "annotations":
        raise DataError(path, f"has the top element {top.tag!r}", "expected annotations")
    return top


def _image(root: Path, path: Path, element: ElementTree.Element) -> AnnotatedImage:
    name = clean_name(element.get("name"), path)
    subset = element.get("subset", "")
    base = path.parent
    folders = [base, base / "images"]
    if subset:
        folders += [base / "images" / subset, base / subset, base / subset / "images"]
    return AnnotatedImage(
        image=find_image(name, folders, root, path),
        source=path,
        name=relative(name),
        split=split_of([subset, *reversed(path.relative_to(root).parent.parts)]),
        size=(_whole(path, element, "height"), _whole(path, element, "width")),
        annotations=tuple(_annotation(path, name, n, shape) for n, shape in enumerate(element, 1)),
    )


def _annotation(path: Path, image: str, number: int, shape: ElementTree.Element) -> Annotation:
    where = f"{shape.tag} {number} of {image}"
    label = shape.get("label", "").strip()
    if not label:
        raise DataError(path, f"{where} has no label")
    match shape.tag:
        case "polygon":
            area: Outline | Bitmap = Outline(_points(path, where, shape))
        case "mask":
            area = _bitmap(path, where, shape)
        case "box":
            x0, y0, x1, y1 = (_number(path, shape, key) for key in ("xtl", "ytl", "xbr", "ybr"))
            corners = np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)])
            centre = (x0 + x1) / 2, (y0 + y1) / 2
            area = Outline(turned(corners, centre, _number(path, shape, "rotation", 0)))
        case "ellipse":
            x, y, rx, ry = (_number(path, shape, key) for key in ("cx", "cy", "rx", "ry"))
            corners = ellipse_corners(x, y, rx, ry)
            area = Outline(turned(corners, (x, y), _number(path, shape, "rotation", 0)))
        case _:
            raise DataError(
                path,
                f"{where} is of a kind that has no area",
                "known: polygon, mask, box, ellipse",
            )
    return Annotation(label, (area,), where)


def _points(path: Path, where: str, shape: ElementTree.Element) -> NDArray[np.float64]:
    try:
        pairs = [pair.split(",") for pair in shape.get("points", "").split(";")]
        points = np.array(pairs, np.float64)
    except ValueError as error:
        raise DataError(path, f"{where} has points that are not pairs of numbers") from error
    if points.ndim != 2 or points.shape[1] != 2 or len(points) < 3:
        raise DataError(path, f"{where} has no list of three points or more")
    return points


def _bitmap(path: Path, where: str, shape: ElementTree.Element) -> Bitmap:
    left, top, width, height = (
        _whole(path, shape, key) for key in ("left", "top", "width", "height")
    )
    if not 0 < height * width <= MAX_PIXELS:
        raise DataError(path, f"{where} has {width}x{height} pixels")
    try:
        runs = [int(run) for run in shape.get("rle", "").split(",")]
        pixels = decode_runs(runs, height * width).reshape(height, width)  # along the rows
        return cropped(pixels, left, top)
    except ValueError as error:
        raise DataError(path, f"{where} has an unusable mask: it {error}") from error


def _number(
    path: Path, element: ElementTree.Element, key: str, default: float | None = None
) -> float:
    value = element.get(key)
    if value is None and default is not None:
        return default
    try:
        number = float(value or "")
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise DataError(path, f"has a {element.tag} with {key}={value!r}, not a number")
    return number


def _whole(path: Path, element: ElementTree.Element, key: str) -> int:
    value = _number(path, element, key)
    if not value.is_integer():
        raise DataError(path, f"has a {element.tag} with {key}={value:g}, not a whole number")
    return int(value)
