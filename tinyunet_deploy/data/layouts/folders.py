"""The layout of a user's own images: images/ and masks/ with the same names, at any depth."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from tinyunet_deploy.data.dataset import Split
from tinyunet_deploy.data.layouts.label_names import image_of_label
from tinyunet_deploy.data.layouts.listing import (
    entries,
    image_tree,
    images_in,
    require_splits,
    split_folders,
    subfolder,
)
from tinyunet_deploy.data.layouts.pairing import Pair, PairGroup
from tinyunet_deploy.errors import DataError

__all__ = ["ImageFolder", "folder_groups", "image_folders"]


class ImageFolder(NamedTuple):
    """The images and masks of one split."""

    split: Split | None
    images: Path
    masks: Path
    """It may not exist."""


def image_folders(root: Path) -> list[ImageFolder]:
    """Return where the images and masks of a folder are.

    They are ``images`` and ``masks``, below train/, val/ and test/ or above them.

    Raises:
        DataError: images/ exists both in ``root`` and below a split, or contains splits beside
            other images.
    """
    below = [
        ImageFolder(split, images, _masks(folder))
        for split, folder in split_folders(root).items()
        if (images := subfolder(folder, "images")) is not None
    ]
    images = subfolder(root, "images")
    if images is None:
        return below
    if below:
        raise DataError(
            root,
            "has images/ both directly in it and in train/, val/ or test/",
            "keep one of the two",
        )
    masks = _masks(root)
    splits = split_folders(images)
    if not splits:
        return [ImageFolder(None, images, masks)]
    others = [entry.name for entry in entries(images) if entry.is_dir()]
    others = [name for name in others if images / name not in splits.values()]
    if others or images_in(images):
        beside = f"{others[0]}/" if others else "images"
        raise DataError(
            images,
            f"contains {next(iter(splits.values())).name}/ and, beside it, {beside}",
            "put all of it into train/, val/ and test/, or describe it in dataset.toml",
        )
    mask_splits = split_folders(masks) if masks.is_dir() else {}
    return [
        ImageFolder(split, folder, mask_splits.get(split, masks / folder.name))
        for split, folder in splits.items()
    ]


def folder_groups(
    root: Path,
    folders: Sequence[ImageFolder],
    splits: Collection[Split] | None,
) -> Iterator[PairGroup]:
    """List a user's own images with their masks.

    The mask of ``images/a.png`` is ``masks/a`` with any suffix of an image, or with ``_mask``,
    ``_label`` or ``_GT`` behind its name.

    Args:
        root: the data set's folder, for errors.
        folders: result of :func:`image_folders`.
        splits: list only these; None lists all.

    Raises:
        DataError: a split is missing, or an image has two masks.
    """
    require_splits(root, splits, [folder.split for folder in folders])
    for folder in folders:
        if splits is not None and folder.split not in splits:
            continue
        images = image_tree(folder.images)
        masks = image_tree(folder.masks) if folder.masks.is_dir() else {}
        masks_left = _masks_by_image(images.keys(), masks)
        pairs = []
        for key, files in images.items():
            mask = masks_left.pop(key, [])
            if len(mask) > 1:
                raise DataError(mask[1], f"is a second mask beside {mask[0].name}")
            pairs += [Pair(image, mask[0] if mask else None) for image in files]
        orphans = [mask for files in masks_left.values() for mask in files]
        yield PairGroup(folder.split, pairs, orphans, partial(_expected, folder))


def _masks(folder: Path) -> Path:
    return subfolder(folder, "masks") or folder / "masks"


def _masks_by_image(
    images: Collection[str], masks: Mapping[str, list[Path]]
) -> dict[str, list[Path]]:
    """Return key of an image -> its masks; a mask without an image keeps its own key."""
    by_image: dict[str, list[Path]] = {}
    for key, files in masks.items():
        name = None if key in images else image_of_label(key)
        own = name if name is not None and name in images else key
        by_image.setdefault(own, []).extend(files)
    return by_image


def _expected(folder: ImageFolder, image: Path) -> Path:
    return folder.masks / image.relative_to(folder.images).with_suffix(".png")
