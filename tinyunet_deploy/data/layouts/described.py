"""The layout that a ``dataset.toml`` describes: its own folders, endings and products."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from functools import partial
from pathlib import Path, PurePosixPath

from tinyunet_deploy.data.dataset import Item, Split
from tinyunet_deploy.data.description import DESCRIPTION, Description, name_without
from tinyunet_deploy.data.layouts.known import Reader, paired_reader
from tinyunet_deploy.data.layouts.listing import image_tree, require_splits
from tinyunet_deploy.data.layouts.pairing import Pair, PairGroup
from tinyunet_deploy.errors import DataError

__all__ = ["describe_reader"]


def describe_reader(root: Path, description: Description) -> Reader:
    """Return the reader of a folder whose images and masks a description places.

    Args:
        description: ``images.folder`` is given.

    Raises:
        DataError: a folder of images does not exist.
    """
    present = [split for split, _, _ in description.folders()]
    for _, images, _ in description.folders():
        if not (root / images).is_dir():
            raise DataError(
                root / DESCRIPTION, f"images.folder names {images}, which is not a folder"
            )
    names = dict(enumerate(description.images.products, start=1))

    groups = partial(_groups, root, description)
    reader = paired_reader("described", groups, present, description.masks, names)

    def read(classes: Collection[int] | None, splits: Collection[Split] | None) -> Iterable[Item]:
        items = reader.read(classes, splits)
        return sorted(items, key=lambda item: item.class_id or 0)  # within a class as they are

    return dataclasses.replace(reader, read=read)


def _groups(
    root: Path, description: Description, splits: Collection[Split] | None
) -> Iterable[PairGroup]:
    require_splits(root, splits, [split for split, _, _ in description.folders()])
    for split, image_folder, mask_folder in description.folders():
        if splits is not None and split not in splits:
            continue
        images = _images(root, image_folder, description)
        masks = _masks(root, mask_folder, description)
        pairs = []
        for key, files in images.items():
            mask = masks.pop(key, [])
            if len(mask) > 1:
                raise DataError(mask[1], f"is a second mask beside {mask[0].name}")
            for image in files:
                class_id = _product(root / image_folder, image, description.images.products)
                pairs.append(Pair(image, mask[0] if mask else None, class_id))
        orphans = [mask for group in masks.values() for mask in group]
        expected = partial(_expected, description, root / image_folder, root / mask_folder)
        yield PairGroup(split, sorted(pairs), orphans, expected, image_folder == mask_folder)


def _images(
    root: Path, folder: PurePosixPath, description: Description
) -> Mapping[str, list[Path]]:
    """Return path of an image below its folder, without its ending -> files of that name."""
    images: dict[str, list[Path]] = defaultdict(list)
    for path in _files(root / folder):
        name = name_without(path.name, description.images.ending)
        if name is not None and not description.is_mask(_below(root, path)):
            images[_below(root / folder, path).with_name(name).as_posix()].append(path)
    return images


def _masks(root: Path, folder: PurePosixPath, description: Description) -> dict[str, list[Path]]:
    masks: dict[str, list[Path]] = defaultdict(list)
    for path in _files(root / folder) if (root / folder).is_dir() else []:
        name = name_without(path.name, description.masks.ending)
        if name is not None and description.is_mask(_below(root, path)):
            masks[_below(root / folder, path).with_name(name).as_posix()].append(path)
    return masks


def _files(folder: Path) -> list[Path]:
    return [path for files in image_tree(folder).values() for path in files]


def _below(root: Path, path: Path) -> PurePosixPath:
    return PurePosixPath(path.relative_to(root).as_posix())


def _product(folder: Path, image: Path, products: Collection[str]) -> int | None:
    """Return the number of the product in whose folder an image lies; None without products."""
    if not products:
        return None
    parts = _below(folder, image).parts
    numbers = {name: number for number, name in enumerate(products, start=1)}
    if len(parts) < 2 or parts[0] not in numbers:
        raise DataError(
            image, "is in the folder of no product", f"images.products names {', '.join(products)}"
        )
    return numbers[parts[0]]


def _expected(description: Description, images: Path, masks: Path, image: Path) -> Path:
    """Return a place at which the mask of an image is looked for."""
    name = name_without(image.name, description.images.ending) or image.stem
    ending = description.masks.ending
    suffix = "" if PurePosixPath("x" + ending).suffix else ".png"
    return masks / image.relative_to(images).with_name(name + ending + suffix)
