"""Read YOLO-seg: labels/NAME.txt with polygons for images/NAME.jpg, and data.yaml with names."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final

import numpy as np

from tinyunet_deploy.data.conversion.model import (
    AnnotatedImage,
    AnnotatedSet,
    Annotation,
    Outline,
    SplitName,
)
from tinyunet_deploy.data.conversion.sources import (
    files_below,
    read_text,
    split_of,
    without_split,
)
from tinyunet_deploy.data.decoding import IMAGE_SUFFIXES, image_size, read_bytes
from tinyunet_deploy.data.layouts.listing import entries, file_in, subfolder
from tinyunet_deploy.errors import DataError, ImageError, RuntimeUnavailable

__all__ = ["is_yolo", "read_yolo"]

_SPLITS: Final[tuple[SplitName, ...]] = ("train", "val", "test")


def is_yolo(root: Path) -> bool:
    """Return whether a folder has a labels folder, at the top or up to two levels below.

    Without a text file in them, and without a description, they are labels of another kind.
    """
    labels = _label_folders(root)
    texts = (text for folder in labels for text in files_below(folder, {".txt"}))
    return bool(labels) and (bool(_descriptions(root)) or next(iter(texts), None) is not None)


def _label_folders(root: Path, depth: int = 2) -> list[Path]:
    folders = [Path(entry.path) for entry in entries(root) if entry.is_dir()]
    labels = [folder for folder in folders if folder.name.lower() == "labels"]
    if depth:
        for folder in folders:
            if folder not in labels:
                labels += _label_folders(folder, depth - 1)
    return labels


def read_yolo(root: Path) -> AnnotatedSet:
    """Read a YOLO-seg data set; an image without a file of labels is not labelled.

    Raises:
        DataError: an annotated image cannot be read, a file of labels has no image, a line is not a
            polygon, or data.yaml is unusable.
        RuntimeUnavailable: there is a data.yaml, and the package PyYAML is missing.
    """
    description = _read_description(root)
    names = _class_names(root, description)
    splits = _stated_splits(root, description)
    images: list[AnnotatedImage] = []
    for labels in _label_folders(root):
        folder = subfolder(labels.parent, "images")
        if folder is None:
            raise DataError(labels, "has no images", f"expected {labels.parent / 'images'}")
        texts = {_key(text, labels): text for text in files_below(labels, {".txt"})}
        for image in files_below(folder, IMAGE_SUFFIXES):
            text = texts.pop(_key(image, folder), None)
            split = splits.get(image) or split_of(image.relative_to(root).parent.parts)
            name = without_split(image.relative_to(folder))
            if text is None:  # a good part, as in training with YOLO
                images.append(AnnotatedImage(image, image, name, split, None, (), labelled=False))
                continue
            annotations = _read_labels(text, image, names)
            images.append(AnnotatedImage(image, text, name, split, None, annotations))
        for text in texts.values():
            if text.name.lower() != "classes.txt":
                wanted = folder / text.relative_to(labels).with_suffix(".jpg")
                raise DataError(text, "has no image", f"expected {wanted}, or of another format")
    used = {label.label for image in images for label in image.annotations}
    return AnnotatedSet("yolo", names or tuple(sorted(used, key=int)), tuple(images))


def _key(path: Path, folder: Path) -> str:
    return path.relative_to(folder).with_suffix("").as_posix()


def _descriptions(root: Path) -> list[Path]:
    return [Path(entry.path) for entry in entries(root) if entry.name.endswith((".yaml", ".yml"))]


def _read_description(root: Path) -> dict[str, Any]:
    """Return the content of the only YAML file at the top; empty without one."""
    files = _descriptions(root)
    if not files:
        return {}
    if len(files) > 1:
        raise DataError(files[1], f"is a second description beside {files[0].name}", "keep one")
    try:
        import yaml
    except ImportError as error:
        raise RuntimeUnavailable(
            "PyYAML",
            f"is missing, which reads {files[0]}",
            "pip install 'tinyunet-deploy[convert]'",
        ) from error
    try:
        content = yaml.safe_load(read_text(files[0]))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise DataError(files[0], f"is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise DataError(files[0], "has no names and splits", "expected the data.yaml of YOLO")
    if content.get("kpt_shape") is not None:
        raise DataError(
            files[0],
            "has kpt_shape, so its labels are boxes with keypoints, not polygons",
            "a box is not a mask: draw outlines",
        )
    return content


def _class_names(root: Path, description: dict[str, Any]) -> tuple[str, ...]:
    """Return the names of the classes 0, 1, ...; empty if nothing states them."""
    names = description.get("names")
    listed = file_in(root, "classes.txt")
    if names is None and listed is not None:
        names = [line.strip() for line in read_text(listed).split("\n") if line.strip()]
    if names is None:
        return ()
    if isinstance(names, dict):
        if sorted(names, key=str) != sorted(range(len(names)), key=str):
            raise DataError(root, f"has the class numbers {list(names)}", "expected 0, 1, ...")
        names = [names[number] for number in range(len(names))]
    if not isinstance(names, list) or len(set(map(str, names))) < len(names):
        raise DataError(root, f"has the class names {names}", "expected a list, each name once")
    return tuple(str(name).strip() for name in names)


def _stated_splits(root: Path, description: dict[str, Any]) -> dict[Path, SplitName]:
    """Return image -> split, as the folders and lists of images in data.yaml state it."""
    splits: dict[Path, SplitName] = {}
    for split in _SPLITS:
        stated = description.get(split) or []
        for value in stated if isinstance(stated, list) else [stated]:
            for image in _images_of(root, description, split, value):
                if splits.setdefault(image, split) != split:
                    raise DataError(image, f"is in the splits {splits[image]} and {split}")
    return splits


def _images_of(
    root: Path, description: dict[str, Any], split: SplitName, value: object
) -> list[Path]:
    """Return the images of one entry of a split: a folder, or a text file with a path a line.

    Tools write them relative to the data set, to its parent (``../train/images``), or to a folder
    of the machine where they ran; the end of a path that exists here is the one.
    """
    place = _ending(root, value)
    if place is None:
        raise DataError(
            root, f"states {value!r} for {split} in data.yaml, which does not exist below it"
        )
    if place.is_dir():
        return list(files_below(place, IMAGE_SUFFIXES))
    images = []
    for line in filter(None, map(str.strip, read_text(place).split("\n"))):
        image = _ending(root, line)
        if image is None:
            raise DataError(place, f"names {line}, which does not exist below {root}")
        images.append(image)
    return images


def _ending(root: Path, value: object) -> Path | None:
    """Return the existing path below ``root`` of the longest end of a stated path."""
    parts = [
        part for part in str(value).replace("\\", "/").split("/") if part not in ("", ".", "..")
    ]
    for start in range(len(parts)):
        path = root.joinpath(*parts[start:])
        if path.exists():
            return path
    return None


def _read_labels(text: Path, image: Path, names: tuple[str, ...]) -> tuple[Annotation, ...]:
    try:
        height, width = image_size(read_bytes(image), image)
    except ImageError as error:
        raise DataError(image, error.what, error.hint) from error
    annotations = []
    for number, line in enumerate(read_text(text).split("\n"), start=1):
        fields = line.split()
        if not fields:
            continue
        where = f"line {number}"
        if len(fields) == 5:
            raise DataError(
                text, f"{where} is a box, not a polygon", "a box is not a mask: draw outlines"
            )
        try:
            values = np.array(fields[1:], np.float64)
        except ValueError as error:
            raise DataError(text, f"{where} is not a list of numbers") from error
        if values.size < 6 or values.size % 2 or not re.fullmatch("[0-9]{1,6}", fields[0]):
            raise DataError(
                text,
                f"{where} has {len(fields)} values",
                "expected a class and x, y of each corner",
            )
        label = int(fields[0])
        if names and label >= len(names):
            raise DataError(text, f"{where} has the class {label}", f"there are {len(names)} names")
        corners = values.reshape(-1, 2) * (width, height)
        name = names[label] if names else str(label)
        annotations.append(Annotation(name, (Outline(corners),), where))
    return tuple(annotations)
