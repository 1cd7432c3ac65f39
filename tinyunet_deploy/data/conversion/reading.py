"""Recognise the format of an annotated data set, and read it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

from tinyunet_deploy.data.conversion.coco import is_coco, read_coco
from tinyunet_deploy.data.conversion.cvat import is_cvat, read_cvat
from tinyunet_deploy.data.conversion.labelme import is_labelme, read_labelme
from tinyunet_deploy.data.conversion.model import AnnotatedImage, AnnotatedSet, Format
from tinyunet_deploy.data.conversion.sources import files_below, read_json, split_of, without_split
from tinyunet_deploy.data.conversion.yolo import is_yolo, read_yolo
from tinyunet_deploy.data.decoding import IMAGE_SUFFIXES
from tinyunet_deploy.data.layouts.label_names import in_a_mask_folder, label_files
from tinyunet_deploy.data.layouts.listing import entries
from tinyunet_deploy.errors import DataError

__all__ = ["read_annotations"]


def read_annotations(source: Path, chosen: Format | None = None) -> AnnotatedSet:
    """Read the annotations of a folder, or of one JSON or XML file.

    Args:
        chosen: the format; None recognises it.

    Raises:
        DataError: there are no annotations, those of several formats, or not those of ``chosen``;
            or as the reader of the format.
    """
    alone = source.is_file()
    root = _root(source)
    files = [source] if alone else list(files_below(root, {".json", ".xml"}))
    readers = _readers(root, files, yolo=not alone)
    if chosen is not None:
        readers = {name: read for name, read in readers.items() if name == chosen}
    if not readers:
        kinds = chosen or "COCO, YOLO-seg, LabelMe or CVAT"
        raise DataError(
            source,
            f"contains no annotations of {kinds}",
            "expected a COCO JSON file, labels/ beside images/, a JSON file for each image, or "
            "annotations.xml of 'CVAT for images 1.1'",
        )
    if len(readers) > 1:
        raise DataError(
            source, f"contains annotations of {' and '.join(readers)}", "choose one with --from"
        )
    (read,) = readers.values()
    annotated = read()
    if not annotated.images:
        raise DataError(source, "has annotations of no image")
    return _with_unlisted(annotated, root, alone=alone)


def _root(source: Path) -> Path:
    """Return the folder below which the images lie."""
    if source.is_file():
        folder = source.parent
        return folder.parent if folder.name.lower() == "annotations" else folder
    if not source.is_dir():
        raise DataError(source, "does not exist")
    content = entries(source)
    if len(content) == 1 and content[0].is_dir() and split_of([content[0].name]) is None:
        return _root(Path(content[0].path))  # as many archives unpack
    return source


def _readers(
    root: Path, files: list[Path], *, yolo: bool
) -> dict[Format, Callable[[], AnnotatedSet]]:
    """Return format -> reader of each format of which there are files."""
    contents = {path: read_json(path) for path in files if path.suffix.lower() == ".json"}
    coco = {path: content for path, content in contents.items() if is_coco(content)}
    labelme = {path: content for path, content in contents.items() if is_labelme(content)}
    cvat = [path for path in files if path.suffix.lower() == ".xml" and is_cvat(path)]
    readers: dict[Format, Callable[[], AnnotatedSet]] = {}
    if coco:
        readers["coco"] = lambda: read_coco(root, coco)
    if labelme:
        readers["labelme"] = lambda: read_labelme(root, labelme)
    if cvat:
        readers["cvat"] = lambda: read_cvat(root, cvat)
    if yolo and is_yolo(root):
        readers["yolo"] = lambda: read_yolo(root)
    return readers


def _with_unlisted(annotated: AnnotatedSet, root: Path, *, alone: bool) -> AnnotatedSet:
    """Sort the images, and add those of the source that have no annotations.

    Beside a single file, only the folders of its images are looked at: others may have a file of
    their own.

    Raises:
        DataError: an image without annotations is a mask by its name or folder.
    """
    listed = {image.image for image in annotated.images}
    folders = {image.parent for image in listed}
    present = list(files_below(root, IMAGE_SUFFIXES))
    unlisted = [
        path for path in present if path not in listed and (not alone or path.parent in folders)
    ]
    _require_no_masks(root, present, unlisted)
    images = [*annotated.images, *(_unlisted(root, path) for path in unlisted)]
    images.sort(key=lambda image: (image.split or "", image.name))
    return dataclasses.replace(annotated, images=tuple(images))


def _require_no_masks(root: Path, present: list[Path], unlisted: list[Path]) -> None:
    """Refuse masks, which would be taken as images of good parts.

    Args:
        present: all images below ``root``, beside which a mask is known by its name.
        unlisted: those without annotations.
    """
    names: dict[Path, list[str]] = {}
    for path in present:
        names.setdefault(path.parent, []).append(path.name)
    labels = {folder / name for folder, there in names.items() for name in label_files(there)}
    for path in unlisted:
        place = path.relative_to(root)
        folders = [part.lower() for part in place.parent.parts]
        if path in labels or "labels" in folders or in_a_mask_folder(place.as_posix()):
            raise DataError(
                path,
                "is a mask by its name or folder, but annotations are converted, not masks",
                f"move the masks out of {root}; or `tinyunet data init FOLDER` describes a folder "
                "of images and masks, which needs no conversion",
            )


def _unlisted(root: Path, path: Path) -> AnnotatedImage:
    place = path.relative_to(root)
    folders = [part for part in place.parent.parts if part.lower() != "images"]
    name = without_split(Path(*folders, place.name))
    return AnnotatedImage(path, path, name, split_of(folders), None, (), labelled=False)
