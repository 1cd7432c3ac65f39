"""Data-set layouts on disk: find the images of a folder, which are defective, and their masks.

One module per layout::

    released      ClassK/{Train,Test}/0001.PNG, ClassK/{Train,Test}/Label/0002_label.PNG,
                  ClassK/{Train,Test}/Label/Labels.txt; ClassK may contain another ClassK, and all
                  may lie below DAGM_KaggleUpload/; a single ClassK folder is a data set, too
    development   ClassK_def/1.png (defective), ClassK_def/labels.txt (ellipses), ClassK/1.png
                  (defect-free): the DAGM2007 release of 2007
    folders       images/ and masks/ with the same names at any depth, in the data set's folder,
                  below its train/, val/ and test/, or above them (images/train/); a mask that marks
                  nothing means defect-free
    pairs         a.png with its mask a_mask.png, a_label.png or a_GT.png beside it, in the data
                  set's folder or below its train/, val/ and test/
    kolektorsdd   kos01/Part0.jpg with its mask kos01/Part0_label.bmp; the same as pairs
    kolektorsdd2  {train,test}/10000.png with its mask {train,test}/10000_GT.png; the same as pairs
    mvtec         train/good/, test/good/, test/DEFECT/ and ground_truth/DEFECT/000_mask.png, or the
                  folders of several such products
    visa          a table split_csv/NAME.csv with the columns object, split, label, image, mask

``released`` and ``development`` are those of DAGM2007: Wieler, Hahn, Hamprecht, "Weakly Supervised
Learning for Industrial Optical Inspection", 2007, doi:10.5281/zenodo.8086136. The development
release shows the same images as the released set: never train on one and test on the other.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tinyunet_deploy.data.dataset import SPLITS, Dataset, Item, Layout, Split
from tinyunet_deploy.data.layouts.development import read_development
from tinyunet_deploy.data.layouts.folders import image_folders, read_folders
from tinyunet_deploy.data.layouts.listing import (
    class_folders,
    images_in,
    require_classes,
    require_splits,
    subfolder,
)
from tinyunet_deploy.data.layouts.mvtec import mvtec_products, mvtec_splits, read_mvtec
from tinyunet_deploy.data.layouts.pairs import pair_folders, read_pairs
from tinyunet_deploy.data.layouts.released import read_released, released_classes, released_splits
from tinyunet_deploy.data.layouts.visa import MASK_RULE, read_visa, visa_rows, visa_table
from tinyunet_deploy.errors import DataError

__all__ = ["UnknownLayout", "read_dataset", "read_training_parts"]


class UnknownLayout(DataError):
    """A folder has none of the known layouts; it may still contain images."""


@dataclass(frozen=True)
class _Reader:
    """A layout that a folder has, and the function that lists its images."""

    layout: Layout
    read: Callable[[Collection[int] | None, Collection[Split] | None], Iterable[Item]]
    """Takes the classes and the splits; None lists all."""
    splits: Collection[Split | None] = ()
    """Splits that the folder has."""
    classes: Collection[int] = ()
    class_names: Mapping[int, str] = field(default_factory=dict)


def read_dataset(
    root: Path, *, classes: Collection[int] | None = None, split: Split | None = None
) -> Dataset:
    """List the images of a folder in one of the layouts at the head of this module.

    No image is decoded. In ``folders`` and the layouts with pairs, masks are decoded to find the
    empty ones.

    Args:
        classes: list only these; None lists all. Must be None where the layout has no classes.
        split: list only this one; None lists all.

    Raises:
        UnknownLayout: the folder is in none of the layouts.
        DataError: a class, a split, an image or a mask is missing, a label list disagrees with the
            files, or the folder is in two layouts.
    """
    _require_folder(root)
    return _listed(root, _reader(root), classes, None if split is None else (split,))


def read_training_parts(root: Path, *, classes: Collection[int] | None = None) -> Dataset:
    """List the images of train and val, as :func:`read_dataset` does; all of a set without splits.

    Raises:
        DataError: as for :func:`read_dataset`, or the folder has splits but no train part.
    """
    _require_folder(root)
    reader = _reader(root)
    wanted: list[Split] = ["train"]
    if "val" in reader.splits:
        wanted.append("val")
    return _listed(root, reader, classes, wanted if any(reader.splits) else None)


def _listed(
    root: Path,
    reader: _Reader,
    classes: Collection[int] | None,
    splits: Collection[Split] | None,
) -> Dataset:
    if classes is not None and not reader.classes:
        raise DataError(
            root, f"has the layout {reader.layout}, which has no classes", "leave the classes out"
        )
    require_classes(root, classes, reader.classes)
    items = tuple(reader.read(classes, splits))
    if not items:
        raise DataError(root, "no images found")
    return Dataset(root, reader.layout, items, reader.class_names)


def _require_folder(root: Path) -> None:
    if not root.is_dir():
        raise DataError(root, "is not a folder" if root.exists() else "does not exist")


def _reader(root: Path) -> _Reader:
    """Return the only reader of a folder.

    Raises:
        UnknownLayout: it is in none of the layouts.
        DataError: it is in two layouts.
    """
    finders = (_dagm2007, _own_images, _mvtec, _visa)
    readers = [reader for find in finders if (reader := find(root)) is not None]
    if len(readers) > 1:
        raise DataError(
            root,
            f"is in two layouts, {readers[0].layout} and {readers[1].layout}",
            "keep the files of one of them",
        )
    if not readers:
        raise UnknownLayout(
            root,
            "contains no data set",
            "expected ClassK/Train and ClassK/Test, ClassK_def, images and masks, masks beside "
            "their images such as a_mask.png, ground_truth (MVTec AD), or split_csv (VisA)",
        )
    return readers[0]


def _dagm2007(root: Path) -> _Reader | None:
    """Return the reader of the released set, else that of the development release."""
    for base in (root, subfolder(root, "DAGM_KaggleUpload")):
        if base is not None and (released := released_classes(base)):
            return _Reader(
                "released",
                lambda classes, splits: read_released(released, classes, splits),
                released_splits(released),
                released,
            )
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

    return _Reader("development", read, (), defective.keys() | defect_free.keys())


def _own_images(root: Path) -> _Reader | None:
    """Return the reader of images/ and masks/, or of masks beside their images."""
    folders, pairs = image_folders(root), pair_folders(root)
    if pairs is None:
        if not folders:
            return None
        return _Reader(
            "folders",
            lambda _, splits: read_folders(root, folders, splits),
            [folder.split for folder in folders],
        )
    if any(folder.masks.is_dir() for folder in folders):
        raise DataError(
            root, "is in two layouts, folders and pairs", "keep the files of one of them"
        )
    return _Reader(pairs.layout, lambda _, splits: read_pairs(root, pairs, splits), pairs.folders)


def _mvtec(root: Path) -> _Reader | None:
    products = mvtec_products(root)
    if not products:
        return None

    present = mvtec_splits(products)

    def read(classes: Collection[int] | None, splits: Collection[Split] | None) -> Iterable[Item]:
        require_splits(root, splits, present)
        return read_mvtec(products, classes, splits)

    names = {number: name for number, name in enumerate(products, start=1) if name}
    return _Reader("mvtec", read, present, names, names)


def _visa(root: Path) -> _Reader | None:
    table = visa_table(root)
    if table is None:
        return None
    rows = visa_rows(root, table)
    names = dict(enumerate(sorted({row.product for row in rows}), start=1))

    present = [split for split in SPLITS if any(row.split == split for row in rows)]

    def read(classes: Collection[int] | None, splits: Collection[Split] | None) -> Iterable[Item]:
        require_splits(root, splits, present)
        return read_visa(rows, classes, splits, MASK_RULE)

    return _Reader("visa", read, present, names, names)
