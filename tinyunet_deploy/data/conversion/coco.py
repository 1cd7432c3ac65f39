"""Read COCO: JSON files with images, annotations and categories."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinyunet_deploy.data.conversion.drawing import OUTSIDE_PX, Unfit, cropped, require_pixels
from tinyunet_deploy.data.conversion.model import (
    AnnotatedImage,
    AnnotatedSet,
    Annotation,
    Bitmap,
    Outline,
    SplitName,
)
from tinyunet_deploy.data.conversion.run_lengths import decode_runs, parse_coco_string
from tinyunet_deploy.data.conversion.sources import clean_name, find_image, relative, split_of
from tinyunet_deploy.data.decoding import MAX_PIXELS
from tinyunet_deploy.errors import DataError

__all__ = ["is_coco", "read_coco"]


def is_coco(content: object) -> bool:
    """Return whether the content of a JSON file is that of COCO."""
    return isinstance(content, dict) and {"images", "annotations"} <= content.keys()


def read_coco(root: Path, files: Mapping[Path, Any]) -> AnnotatedSet:
    """Read COCO files; each states its split by its name or that of its folder.

    Args:
        root: folder below which the images lie.
        files: path -> content of each file for which :func:`is_coco` is true.

    Raises:
        DataError: an entry is not understood, an image is missing, or an annotation has no outline.
    """
    labels: dict[str, None] = {}
    images: list[AnnotatedImage] = []
    for path, content in files.items():
        split = _split(root, path, alone=len(files) == 1)
        names = _categories(path, content)
        labels.update(dict.fromkeys(names.values()))
        images += _images(root, path, content, names, split)
    return AnnotatedSet("coco", tuple(labels), tuple(images))


def _split(root: Path, path: Path, *, alone: bool) -> SplitName | None:
    folders = path.relative_to(root).parent.parts
    split = split_of((*re.split("[^A-Za-z0-9]+", path.stem), *reversed(folders)))
    if split is None and not alone:
        raise DataError(
            path,
            "is one of several COCO files, and its name states no split",
            "name it train.json, val.json or test.json, or give this file alone",
        )
    return split


def _categories(path: Path, content: dict[str, Any]) -> dict[int, str]:
    names: dict[int, str] = {}
    for entry in sorted(_entries(path, content, "categories"), key=lambda entry: str(entry["id"])):
        name = entry.get("name")
        if not isinstance(name, str) or not name.strip():
            raise DataError(path, f"has a category with the name {name!r}", "expected text")
        if entry["id"] in names:
            raise DataError(path, f"has two categories with the id {entry['id']}")
        names[entry["id"]] = name.strip()
    return dict(sorted(names.items()))


def _entries(path: Path, content: dict[str, Any], key: str) -> list[dict[str, Any]]:
    """Return the entries of a list, each of which has a whole number as its id."""
    values = content.get(key, [])
    if not isinstance(values, list):
        raise DataError(path, f"has {key} that are not a list")
    for value in values:
        if not isinstance(value, dict) or not _is_count(value.get("id")):
            raise DataError(path, f"has an entry without an id among its {key}")
    return values


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _images(
    root: Path,
    path: Path,
    content: dict[str, Any],
    names: dict[int, str],
    split: SplitName | None,
) -> Iterator[AnnotatedImage]:
    entries = {entry["id"]: entry for entry in _entries(path, content, "images")}
    if len(entries) < len(content["images"]):
        raise DataError(path, "has two images with the same id")
    by_image: dict[int, list[Annotation]] = {}
    for entry in _entries(path, content, "annotations"):
        image_id = entry.get("image_id")
        image = entries.get(image_id) if isinstance(image_id, int) else None
        if image is None:
            raise DataError(path, f"annotation {entry['id']} is of an image that is not listed")
        annotation = _annotation(path, entry, names, _size(path, image))
        by_image.setdefault(image["id"], []).append(annotation)
    folders = _image_folders(root, path)
    for image_id, entry in entries.items():
        name = clean_name(entry.get("file_name"), path)
        yield AnnotatedImage(
            image=find_image(name, folders, root, path),
            source=path,
            name=relative(name),
            split=split,
            size=_size(path, entry),
            annotations=tuple(by_image.get(image_id, ())),
        )


def _image_folders(root: Path, path: Path) -> list[Path]:
    """Return the folders where tools put the images of a COCO file."""
    word = path.stem.removeprefix("instances_")
    bases = [path.parent, root, root / "images"]
    return [*bases, *(base / word for base in bases), path.parent / "images"]


def _size(path: Path, image: dict[str, Any]) -> tuple[int, int]:
    height, width = image.get("height"), image.get("width")
    if not isinstance(height, int) or not isinstance(width, int) or min(height, width) < 1:
        raise DataError(path, f"image {image['id']} has the size {width}x{height}")
    return height, width


def _annotation(
    path: Path, entry: dict[str, Any], names: dict[int, str], size: tuple[int, int]
) -> Annotation:
    where = f"annotation {entry['id']}"
    category = entry.get("category_id")
    label = names.get(category) if isinstance(category, int) else None
    if label is None:
        raise DataError(path, f"{where} has the unknown category {category!r}")
    segmentation = entry.get("segmentation")
    try:
        areas = _areas(segmentation, size)
        if areas:
            _require_box(entry.get("bbox"), areas)
            return Annotation(label, areas, where)
    except ValueError as error:
        raise DataError(path, f"{where} {error}") from error
    except OverflowError as error:
        raise DataError(path, f"{where} has a number beyond any image") from error
    what = "a box but no outline" if entry.get("bbox") else "no outline"
    raise DataError(path, f"{where} has {what}", "a box is not a mask: draw outlines")


def _areas(segmentation: object, size: tuple[int, int]) -> tuple[Outline | Bitmap, ...]:
    """Return the areas of an annotation; none if it has no segmentation."""
    if isinstance(segmentation, dict):
        return (_bitmap(segmentation, size),)
    if not isinstance(segmentation, list) or not segmentation:
        return ()
    outlines = tuple(map(_outline, segmentation))
    require_pixels(np.concatenate([outline.corners for outline in outlines]))
    return outlines


def _outline(values: object) -> Outline:
    if not isinstance(values, list) or len(values) < 6 or len(values) % 2:
        raise ValueError("has a polygon that is not a list of x, y of three corners or more")
    if not all(isinstance(value, int | float) for value in values):
        raise ValueError("has a polygon with a corner that is not a number")
    return Outline(np.array(values, np.float64).reshape(-1, 2))


def _require_box(box: object, areas: Sequence[Outline | Bitmap]) -> None:
    """Refuse areas that lie outside the box of their annotation.

    How well they fill it says nothing: tools round it, draw it by hand, or state x and y of two
    corners. A box without an area stands for none.
    """
    if not isinstance(box, list) or len(box) != 4 or not all(map(_is_number, box)):
        return
    left, top, width, height = map(float, box)
    if not (width > 0 and height > 0):
        return
    corners = np.concatenate([_corners(area) for area in areas])
    first, last = corners.min(axis=0), corners.max(axis=0)
    gap = np.maximum(first - (left + width, top + height), (left, top) - last).max()
    if gap > 2 * OUTSIDE_PX:
        raise Unfit(
            f"has an area from x={first[0]:g}, y={first[1]:g} to x={last[0]:g}, y={last[1]:g}, "
            f"which lies outside its bbox of x={left:g}, y={top:g}, width={width:g}, "
            f"height={height:g}"
        )


def _corners(area: Outline | Bitmap) -> NDArray[np.float64]:
    """Return corners of an outline, or the first and last of a bitmap: x, y of each."""
    if isinstance(area, Outline):
        return area.corners
    height, width = area.pixels.shape
    return np.array([(area.left, area.top), (area.left + width, area.top + height)], np.float64)


def _bitmap(segmentation: dict[str, Any], size: tuple[int, int]) -> Bitmap:
    stated, counts = segmentation.get("size"), segmentation.get("counts")
    if stated != list(size):
        raise ValueError(f"has an RLE of the size {stated}, but its image has {list(size)}")
    if size[0] * size[1] > MAX_PIXELS:
        raise ValueError(f"is of an image of more than {MAX_PIXELS} pixels")
    if isinstance(counts, str):
        counts = parse_coco_string(counts)
    if not isinstance(counts, list) or not all(_is_count(count) for count in counts):
        raise ValueError("has an RLE whose counts are neither whole numbers nor text")
    pixels = decode_runs(counts, size[0] * size[1])
    return cropped(pixels.reshape(size[::-1]).T, 0, 0)  # runs go down the columns
