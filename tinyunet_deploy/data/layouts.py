"""DAGM2007 and a user's own images on disk: which images there are, which are defective, and where.

Wieler, Hahn, Hamprecht, "Weakly Supervised Learning for Industrial Optical Inspection", 2007,
doi:10.5281/zenodo.8086136. Three layouts are read::

    released      ClassK/{Train,Test}/0001.PNG, ClassK/{Train,Test}/Label/0002_label.PNG,
                  ClassK/{Train,Test}/Label/Labels.txt; ClassK may hold another ClassK, and all may
                  lie below DAGM_KaggleUpload/; a single ClassK folder is a data set, too
    development   ClassK_def/1.png (defective), ClassK_def/labels.txt (ellipses), ClassK/1.png
                  (defect-free): the release of 2007
    folders       images/ and masks/ with the same names at any depth, in the data set's folder or
                  below its train/ and test/; an all-zero mask means defect-free

The development release shows the same images as the released set: never train on one and test on
the other.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Collection, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, NamedTuple

import numpy as np

from tinyunet_deploy.contract import Image, Mask
from tinyunet_deploy.data.decoding import IMAGE_SUFFIXES, read_image
from tinyunet_deploy.errors import DataError, ImageError

Split = Literal["train", "test"]
Layout = Literal["released", "development", "folders"]

SPLITS: Final[tuple[Split, ...]] = ("train", "test")

_TRAIN_DEFECTIVE = (79, 66, 66, 82, 70, 83, 150, 150, 150, 150)
_TEST_DEFECTIVE = (71, 84, 84, 68, 80, 67, 150, 150, 150, 150)
PUBLISHED_COUNTS: Final[dict[tuple[int, Split], tuple[int, int]]] = {
    (class_id, split): (575 if class_id <= 6 else 1150, defective[class_id - 1])
    for class_id in range(1, 11)
    for split, defective in zip(SPLITS, (_TRAIN_DEFECTIVE, _TEST_DEFECTIVE), strict=True)
}
"""(class 1..10, split) -> (images, defective images) of the whole released set."""


class Ellipse(NamedTuple):
    """A weak label: an ellipse drawn generously around a defect.

    With ``dx = column - (x - 1)``, ``dy = row - (y - 1)``, ``u = dx cos(angle) + dy sin(angle)``
    and ``v = dy cos(angle) - dx sin(angle)``, it covers ``(u / a)^2 + (v / b)^2 <= 1``. This rule
    gives the released masks to the pixel.
    """

    a: float
    """Semi-axis along ``angle``, pixels, > 0."""
    b: float
    """Semi-axis across ``angle``, pixels, > 0."""
    angle: float
    """Radians, from the column axis towards the row axis."""
    x: float
    """Centre, columns counted from 1."""
    y: float
    """Centre, rows counted from 1."""


@dataclass(frozen=True, slots=True)
class Item:
    """One image and what is known about it."""

    image: Path
    """The image file; it has not been decoded."""
    defective: bool
    """Whether the image shows a defect."""
    mask: Path | None
    """The mask file; None when there is none: the image is defect-free or has an ellipse."""
    ellipse: Ellipse | None
    """The weak label of the development layout."""
    class_id: int | None
    """The K of ClassK, 1..10 in DAGM2007; None for a user's own images."""
    split: Split | None
    """None where the layout has no split."""


@dataclass(frozen=True)
class Dataset:
    """The images of one folder."""

    root: Path
    layout: Layout
    items: tuple[Item, ...]
    """Sorted by class, split (train first) and name; never empty."""


def ellipse_mask(
    a: float, b: float, angle: float, x: float, y: float, shape: tuple[int, int]
) -> Mask:
    """The pixels of an :class:`Ellipse` in an image of ``shape`` (height, width).

    Returns:
        uint8 [H, W], {0, 255}.
    """
    dx = np.arange(shape[1]) - (x - 1)
    dy = np.arange(shape[0])[:, None] - (y - 1)
    u = dx * math.cos(angle) + dy * math.sin(angle)
    v = dy * math.cos(angle) - dx * math.sin(angle)
    return np.where((u / a) ** 2 + (v / b) ** 2 <= 1, np.uint8(255), np.uint8(0))


def read_mask(item: Item, shape: tuple[int, int]) -> Mask:
    """The defect pixels of an image of ``shape`` (height, width); none when it is defect-free.

    A mask file holds 0 and one other value, which may be 1, 255 or any other.

    Returns:
        uint8 [H, W], {0, 255}.

    Raises:
        DataError: the mask cannot be decoded, has another size or more than two values.
    """
    if not item.defective:
        return np.zeros(shape, np.uint8)
    if item.ellipse is not None:
        return ellipse_mask(*item.ellipse, shape)
    if item.mask is None:
        raise DataError(item.image, "is defective but has no mask")
    mask = _read_mask_file(item.mask)
    if mask.shape != shape:
        raise DataError(
            item.mask,
            f"is {mask.shape[1]}x{mask.shape[0]} pixels, its image {shape[1]}x{shape[0]}",
            "a mask has the size of its image",
        )
    defect = mask > 0
    if (mask[defect] != mask.max()).any():
        values = np.unique(mask).tolist()
        shown = ", ".join(map(str, values[:6])) + (", ..." if len(values) > 6 else "")
        raise DataError(
            item.mask,
            f"holds unknown values: {shown}",
            "a mask is 0 where the part is good and one other value at the defect",
        )
    return np.where(defect, np.uint8(255), np.uint8(0))


def read_dataset(
    root: Path, *, classes: Collection[int] | None = None, split: Split | None = None
) -> Dataset:
    """List the images of a folder in one of the three layouts; see the head of this module.

    No image is decoded, but the masks of the folders layout are, to know which are empty.

    Args:
        classes: only these; all that are there when None. None for a user's own images.
        split: only this one; both when None.

    Raises:
        DataError: the layout is unknown, a class, a split, an image or a mask is missing, or a
            label list disagrees with the files.
    """
    if not root.is_dir():
        raise DataError(root, "is not a folder" if root.exists() else "is not there")
    for base in (root, _folder(root, "DAGM_KaggleUpload")):
        if base is not None and (released := _released_classes(base)):
            _require_classes(root, classes, released)
            return _dataset(root, "released", _read_released(released, classes, split))
    defective = _class_folders(root, "_def")
    defect_free = _class_folders(root, "")
    if defective or any(_images(folder) for folder in defect_free.values()):
        _require_classes(root, classes, defective.keys() | defect_free.keys())
        if split is not None:
            raise DataError(
                root,
                f"has no {split} split: the development release has none",
                "use the released set, or leave the split out",
            )
        items = _read_development(defective, defect_free, classes)
        return _dataset(root, "development", items)
    pairs = _image_folders(root)
    if pairs:
        if classes is not None:
            raise DataError(root, "holds images/ and masks/, not classes", "leave the classes out")
        return _dataset(root, "folders", _read_folders(root, pairs, split))
    raise DataError(
        root,
        "holds no data set",
        "expected ClassK/Train and ClassK/Test, ClassK_def, or images and masks",
    )


def _dataset(root: Path, layout: Layout, items: Iterable[Item]) -> Dataset:
    found = tuple(items)
    if not found:
        raise DataError(root, "no images found")
    return Dataset(root, layout, found)


# --- finding files ------------------------------------------------------------------------------


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    """What is in a folder, by name, without hidden files."""
    with os.scandir(folder) as entries:
        return sorted((e for e in entries if not e.name.startswith(".")), key=lambda e: e.name)


def _folder(parent: Path, name: str) -> Path | None:
    """The folder ``name`` in ``parent``, in upper or lower case."""
    matches = (e for e in _entries(parent) if e.name.lower() == name.lower() and e.is_dir())
    return next((Path(entry.path) for entry in matches), None)


def _file(parent: Path, name: str) -> Path | None:
    """The file ``name`` in ``parent``, in upper or lower case."""
    matches = (e for e in _entries(parent) if e.name.lower() == name.lower() and e.is_file())
    return next((Path(entry.path) for entry in matches), None)


def _images(folder: Path) -> dict[str, Path]:
    """Lower-case name -> path of the images of one folder, by name."""
    images: dict[str, Path] = {}
    for entry in _entries(folder):
        key = entry.name.lower()
        if os.path.splitext(key)[1] not in IMAGE_SUFFIXES or not entry.is_file():  # noqa: PTH122
            continue
        if key in images:
            raise DataError(entry.path, f"differs from {images[key].name} only in case")
        images[key] = Path(entry.path)
    return images


def _class_folders(root: Path, suffix: Literal["", "_def"]) -> dict[int, Path]:
    """Class -> folder of the ``ClassK`` or ``ClassK_def`` in ``root``; of two nested, the inner."""
    folders: dict[int, Path] = {}
    for entry in _entries(root):
        match = re.fullmatch(rf"class([0-9]{{1,4}}){suffix}", entry.name, re.IGNORECASE)
        if match is None or not entry.is_dir():
            continue
        class_id = int(match[1])
        if class_id in folders:
            raise DataError(entry.path, f"is a second folder of class {class_id}")
        folder = Path(entry.path)
        inner = None if _has_split(folder) else _folder(folder, entry.name)
        folders[class_id] = inner or folder
    return folders


def _has_split(folder: Path) -> bool:
    return any(_folder(folder, split) for split in SPLITS)


def _released_classes(root: Path) -> dict[int, Path]:
    """Class -> the folder that holds its Train and Test; empty where this is another layout."""
    folders = {k: folder for k, folder in _class_folders(root, "").items() if _has_split(folder)}
    name = Path(os.path.abspath(root)).name  # noqa: PTH100 - keeps the name of a symbolic link
    match = re.fullmatch(r"class([0-9]{1,4})", name, re.IGNORECASE)
    if not folders and match is not None and _has_split(root):
        return {int(match[1]): root}
    return folders


def _require_classes(root: Path, classes: Collection[int] | None, present: Collection[int]) -> None:
    missing = sorted(set(classes or ()) - set(present))
    if missing:
        raise DataError(
            root, f"holds no class {_numbers(missing)}", f"it holds {_numbers(sorted(present))}"
        )


def _numbers(values: Iterable[int]) -> str:
    return ",".join(map(str, values))


# --- the released layout ------------------------------------------------------------------------


def _read_released(
    folders: dict[int, Path], classes: Collection[int] | None, split: Split | None
) -> Iterator[Item]:
    for class_id, folder in sorted(folders.items()):
        if classes is not None and class_id not in classes:
            continue
        found = False
        for name in SPLITS if split is None else (split,):
            split_folder = _folder(folder, name)
            if split_folder is not None:
                for item in _read_split(split_folder, class_id, name):
                    found = True
                    yield item
        if classes is not None and not found:
            wanted = "images" if split is None else f"{split} images"
            raise DataError(folder, f"holds no {wanted}", "choose another split or other classes")


def _read_split(folder: Path, class_id: int, split: Split) -> Iterator[Item]:
    images = _images(folder)
    label_folder = _folder(folder, "Label")
    if not images and label_folder is None:
        return
    labels_txt = None if label_folder is None else _file(label_folder, "Labels.txt")
    if label_folder is None or labels_txt is None:
        raise DataError(
            folder / "Label" / "Labels.txt",
            "is missing, so nothing says which images are defective",
            "copy the Label folder of this split, too",
        )
    masks = _images(label_folder)
    listed: dict[Path, Path | None] = {}
    for where, image_name, mask_name in _read_labels_txt(labels_txt):
        image = images.get(image_name.lower())
        if image is None:
            raise DataError(where, f"{image_name} is not in {folder}")
        if image in listed:
            raise DataError(where, f"{image_name} is listed a second time")
        mask = None if mask_name is None else masks.pop(mask_name.lower(), None)
        if mask_name is not None and mask is None:
            raise DataError(
                where,
                f"{image_name} is defective, but its mask {mask_name} is not in {label_folder}",
                "copy it, too; two images cannot share a mask",
            )
        listed[image] = mask
    for image in images.values():
        if image not in listed:
            raise DataError(labels_txt, f"does not list {image.name}", f"it is in {folder}")
    for mask in masks.values():
        raise DataError(labels_txt, f"does not list the mask {mask.name}", "it lies beside it")
    for image in images.values():
        mask = listed[image]
        yield Item(image, mask is not None, mask, None, class_id, split)


def _lines(path: Path) -> list[str]:
    """The lines of a label list, which may end in LF or CRLF and in blank lines."""
    try:
        text = path.read_bytes().decode("ascii")
    except UnicodeDecodeError as error:
        raise DataError(path, "is not a plain text file") from error
    return text.replace("\r\n", "\n").rstrip().split("\n")


def _fields(line: str) -> list[str]:
    return [field.strip() for field in line.rstrip().split("\t")]


def _read_labels_txt(path: Path) -> Iterator[tuple[str, str, str | None]]:
    """(file:line, image name, mask name or None) of every line after the first."""
    first, *lines = _lines(path)
    if first.strip() != "1":
        raise DataError(f"{path}:1", f"is {first[:40]!r} where 1 is expected")
    for number, line in enumerate(lines, start=2):
        where = f"{path}:{number}"
        fields = _fields(line)
        if len(fields) == 4:  # some writers leave the mask of a defect-free image empty
            fields.append("0")
        if len(fields) != 5 or not all(fields):
            raise DataError(
                where,
                f"has {len(fields)} fields: {line[:60]!r}",
                "expected number, 0 or 1, image, 0, mask or 0, separated by tabs",
            )
        _, flag, image, _, mask = fields
        if flag not in ("0", "1"):
            raise DataError(where, f"flag {flag!r} is neither 0 (defect-free) nor 1 (defective)")
        if flag == "1" and mask == "0":
            raise DataError(where, f"{image} is defective but has no mask")
        if flag == "0" and mask != "0":
            raise DataError(where, f"{image} is defect-free but has the mask {mask}")
        yield where, image, mask if flag == "1" else None


# --- the development layout ---------------------------------------------------------------------


def _read_development(
    defective: dict[int, Path], defect_free: dict[int, Path], classes: Collection[int] | None
) -> Iterator[Item]:
    for class_id in sorted(defective.keys() | defect_free.keys()):
        if classes is not None and class_id not in classes:
            continue
        if class_id in defect_free:
            for image in _images(defect_free[class_id]).values():
                yield Item(image, False, None, None, class_id, None)
        if class_id not in defective:
            continue
        folder = defective[class_id]
        images = _images(folder).values()
        labels_txt = _file(folder, "labels.txt")
        if labels_txt is None and images:
            usable = [k for k in sorted(defective) if _file(defective[k], "labels.txt")]
            raise DataError(
                folder / "labels.txt",
                "is missing, so nothing says where the defects are",
                "add it" + (f", or choose classes that have it: {_numbers(usable)}" * bool(usable)),
            )
        ellipses = {} if labels_txt is None else _read_ellipses(labels_txt)
        for image in images:
            ellipse = ellipses.pop(int(image.stem), None) if image.stem.isdecimal() else None
            if ellipse is None:
                raise DataError(
                    image, "is defective, but labels.txt has no ellipse for it", "add its line"
                )
            yield Item(image, True, None, ellipse, class_id, None)
        for index in ellipses:
            raise DataError(folder / "labels.txt", f"lists {index}, but there is no {index}.png")


def _read_ellipses(path: Path) -> dict[int, Ellipse]:
    """Image number -> ellipse."""
    ellipses: dict[int, Ellipse] = {}
    for number, line in enumerate(_lines(path), start=1):
        where = f"{path}:{number}"
        try:
            index, *values = _fields(line)
            a, b, angle, x, y = map(float, values)
            ellipse = Ellipse(a, b, angle, x, y)
            key = int(index)
        except ValueError as error:
            raise DataError(
                where,
                f"is no ellipse: {line[:60]!r}",
                "expected number, semi-axes a and b, angle, x, y, separated by tabs",
            ) from error
        if not all(map(math.isfinite, ellipse)) or a <= 0 or b <= 0:
            raise DataError(where, f"ellipse {line[:60]!r} is not finite or has an axis <= 0")
        if key in ellipses:
            raise DataError(where, f"image {key} is listed a second time")
        ellipses[key] = ellipse
    return ellipses


# --- the layout of a user's own images ----------------------------------------------------------


def _image_folders(root: Path) -> list[tuple[Split | None, Path]]:
    """The folders that hold an images/ folder, with their splits."""
    folders: list[tuple[Split | None, Path]] = []
    for split, folder in [(None, root), *((split, _folder(root, split)) for split in SPLITS)]:
        if folder is not None and _folder(folder, "images") is not None:
            folders.append((split, folder))
    if len(folders) > 1 and folders[0][0] is None:
        raise DataError(
            root, "holds images/ both at its top and below train/ or test/", "keep one of the two"
        )
    return folders


def _read_folders(
    root: Path, folders: list[tuple[Split | None, Path]], split: Split | None
) -> Iterator[Item]:
    if split is not None:
        folders = [(name, folder) for name, folder in folders if name == split]
        if not folders:
            raise DataError(
                root, f"has no {split} split", f"expected {split}/images and {split}/masks"
            )
    for name, folder in folders:
        images, masks = (_tree(folder, part) for part in ("images", "masks"))
        pairs = []
        for key, files in images.items():
            mask = masks.get(key, [])
            for image in files:
                if not mask:
                    raise DataError(
                        image,
                        "has no mask",
                        f"expected {folder / 'masks' / key}.png, all zero where defect-free",
                    )
                if len(mask) > 1:
                    raise DataError(mask[1], f"is a second mask beside {mask[0].name}")
                pairs.append((image, mask[0]))
        with ThreadPoolExecutor() as pool:
            defective = pool.map(lambda pair: bool(_read_mask_file(pair[1]).any()), pairs)
            for (image, mask_path), is_defective in zip(pairs, defective, strict=True):
                yield Item(image, is_defective, mask_path, None, None, name)


def _tree(folder: Path, part: str) -> dict[str, list[Path]]:
    """Path below ``part`` without its suffix -> the images of that name, by name."""
    top = _folder(folder, part)
    files: dict[str, list[Path]] = {}
    pending = [] if top is None else [top]
    found: list[Path] = []
    while pending:
        current = pending.pop()
        found += _images(current).values()
        pending += [Path(entry.path) for entry in _entries(current) if entry.is_dir()]
    for path in sorted(found):
        assert top is not None
        files.setdefault(path.relative_to(top).with_suffix("").as_posix(), []).append(path)
    return files


def _read_mask_file(path: Path) -> Image:
    try:
        return read_image(path)
    except ImageError as error:
        raise DataError(path, f"is no usable mask: it {error.what}", error.hint) from error


def is_truth_folder(folder: Path) -> bool:
    """Whether a folder holds truth, not images: ``Label/`` with its list, ``Truth/`` beside it."""
    if folder.name == "Truth":
        folder = folder.with_name("Label")
    return folder.name == "Label" and (folder / "Labels.txt").is_file()
