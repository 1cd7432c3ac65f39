"""Recognise the layout of a folder."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from tinyunet_deploy.data.dataset import SPLITS, Item, Layout, Split
from tinyunet_deploy.data.description import DESCRIPTION, Description, MaskFiles
from tinyunet_deploy.data.layouts.development import read_development
from tinyunet_deploy.data.layouts.folders import folder_groups, image_folders
from tinyunet_deploy.data.layouts.listing import (
    class_folders,
    images_in,
    require_splits,
    subfolder,
)
from tinyunet_deploy.data.layouts.mvtec import mvtec_products, mvtec_splits, read_mvtec
from tinyunet_deploy.data.layouts.pairing import PairGroup, paired_items
from tinyunet_deploy.data.layouts.pairs import pair_folders, pair_groups
from tinyunet_deploy.data.layouts.released import read_released, released_classes, released_splits
from tinyunet_deploy.data.layouts.visa import MASK_RULE, read_visa, visa_rows, visa_table
from tinyunet_deploy.errors import DataError

__all__ = ["Reader", "UnknownLayout", "known_reader", "paired_reader"]


class UnknownLayout(DataError):
    """A folder has none of the known layouts; it may still contain images."""


@dataclass(frozen=True)
class Reader:
    """A layout that a folder has, and the function that lists its images."""

    layout: Layout
    read: Callable[[Collection[int] | None, Collection[Split] | None], Iterable[Item]]
    """Takes the classes and the splits; None lists all."""
    splits: Collection[Split | None] = ()
    """Splits that the folder has."""
    classes: Collection[int] = ()
    class_names: Mapping[int, str] = field(default_factory=dict)
    groups: Callable[[Collection[Split] | None], Iterable[PairGroup]] | None = None
    """Lists the images of these splits with their masks, which are not decoded; None in a layout
    that does not look for the mask of each image."""


def paired_reader(
    layout: Layout,
    groups: Callable[[Collection[Split] | None], Iterable[PairGroup]],
    splits: Collection[Split | None],
    masks: MaskFiles,
    class_names: Mapping[int, str] | None = None,
) -> Reader:
    """Return the reader of a layout that looks for the mask of each image."""

    def read(classes: Collection[int] | None, splits: Collection[Split] | None) -> Iterable[Item]:
        for group in groups(splits):
            for item in paired_items(group, masks.rule, masks.missing):
                if classes is None or item.class_id in classes:
                    yield item

    names = class_names or {}
    return Reader(layout, read, splits, names, names, groups)


def known_reader(root: Path, description: Description) -> Reader:
    """Return the reader of a folder in one of the known layouts.

    Args:
        description: its layout chooses, where a folder has two; its masks are read by it.

    Raises:
        UnknownLayout: the folder is in none of the layouts.
        DataError: it is in two layouts, or not in the one of its description.
    """
    readers = _readers(root, description)
    wanted = description.layout
    if wanted is not None:
        readers = [reader for reader in readers if reader.layout == wanted]
        if not readers:
            raise DataError(root / DESCRIPTION, f"says layout = {wanted!r}, but there is none such")
    if len(readers) > 1:
        raise DataError(
            root,
            f"is in two layouts, {readers[0].layout} and {readers[1].layout}",
            f"keep the files of one, or choose with layout = ... in {DESCRIPTION}",
        )
    if not readers:
        raise UnknownLayout(
            root,
            "contains no data set",
            "expected ClassK/Train and ClassK/Test, ClassK_def, images and masks, masks beside "
            "their images such as a_mask.png, ground_truth (MVTec AD), split_csv (VisA), or a "
            f"{DESCRIPTION}",
        )
    return readers[0]


def _readers(root: Path, description: Description) -> list[Reader]:
    """Return the reader of each layout that a folder has."""
    released, development = _released(root), _development(root)
    if released is not None and description.layout != "development":
        development = None  # the same images: the released set has a test part
    folders, pairs = image_folders(root), pair_folders(root)
    masks = description.masks
    own: list[Reader] = []
    if folders and (pairs is None or any(folder.masks.is_dir() for folder in folders)):
        splits = [folder.split for folder in folders]
        own.append(paired_reader("folders", partial(folder_groups, root, folders), splits, masks))
    if pairs is not None:
        groups = partial(pair_groups, root, pairs)
        own.append(paired_reader(pairs.layout, groups, pairs.folders, masks))
    candidates = (released, development, *own, _mvtec(root), _visa(root))
    return [reader for reader in candidates if reader is not None]


def _released(root: Path) -> Reader | None:
    for base in (root, subfolder(root, "DAGM_KaggleUpload")):
        if base is not None and (released := released_classes(base)):
            return Reader(
                "released",
                lambda classes, splits: read_released(released, classes, splits),
                released_splits(released),
                released,
            )
    return None


def _development(root: Path) -> Reader | None:
    defective = class_folders(root, "_def")
    defect_free = class_folders(root, "")
    if not defective and not any(images_in(folder) for folder in defect_free.values()):
        return None

    def read(classes: Collection[int] | None, splits: Collection[Split] | None) -> Iterable[Item]:
        for split in splits or ():
            raise DataError(
                root,
                f"has no {split} split: the development release has none",
                "use the released set, or leave the split out",
            )
        return read_development(defective, defect_free, classes)

    return Reader("development", read, (), defective.keys() | defect_free.keys())


def _mvtec(root: Path) -> Reader | None:
    products = mvtec_products(root)
    if not products:
        return None
    present = mvtec_splits(products)

    def read(classes: Collection[int] | None, splits: Collection[Split] | None) -> Iterable[Item]:
        require_splits(root, splits, present)
        return read_mvtec(products, classes, splits)

    names = {number: name for number, name in enumerate(products, start=1) if name}
    return Reader("mvtec", read, present, names, names)


def _visa(root: Path) -> Reader | None:
    table = visa_table(root)
    if table is None:
        return None
    rows = visa_rows(root, table)
    names = dict(enumerate(sorted({row.product for row in rows}), start=1))
    present = [split for split in SPLITS if any(row.split == split for row in rows)]

    def read(classes: Collection[int] | None, splits: Collection[Split] | None) -> Iterable[Item]:
        require_splits(root, splits, present)
        return read_visa(rows, classes, splits, MASK_RULE)

    return Reader("visa", read, present, names, names)
