"""Data-set layouts on disk: find the images of a folder, which are defective, and their masks.

One module per layout::

    released      ClassK/{Train,Test}/0001.PNG, ClassK/{Train,Test}/Label/0002_label.PNG,
                  ClassK/{Train,Test}/Label/Labels.txt; ClassK may contain another ClassK, and all
                  may lie below DAGM_KaggleUpload/; a single ClassK folder is a data set, too
    development   ClassK_def/1.png (defective), ClassK_def/labels.txt (ellipses), ClassK/1.png
                  (defect-free): the DAGM2007 release of 2007
    folders       images/ and masks/ with the same names at any depth, in the data set's folder or
                  below its train/ and test/; an all-zero mask means defect-free
    kolektorsdd2  {train,test}/10000.png with its mask {train,test}/10000_GT.png beside it; an
                  all-zero mask means defect-free

``released`` and ``development`` are those of DAGM2007: Wieler, Hahn, Hamprecht, "Weakly Supervised
Learning for Industrial Optical Inspection", 2007, doi:10.5281/zenodo.8086136. The development
release shows the same images as the released set: never train on one and test on the other.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from pathlib import Path

from tinyunet_deploy.data.dataset import Dataset, Item, Layout, Split
from tinyunet_deploy.data.layouts.development import read_development
from tinyunet_deploy.data.layouts.folders import image_folders, read_folders
from tinyunet_deploy.data.layouts.kolektorsdd2 import kolektorsdd2_splits, read_kolektorsdd2
from tinyunet_deploy.data.layouts.listing import (
    class_folders,
    images_in,
    require_classes,
    subfolder,
)
from tinyunet_deploy.data.layouts.released import read_released, released_classes
from tinyunet_deploy.errors import DataError

__all__ = ["UnknownLayout", "read_dataset"]


class UnknownLayout(DataError):
    """A folder has none of the known layouts; it may still contain images."""


def read_dataset(
    root: Path, *, classes: Collection[int] | None = None, split: Split | None = None
) -> Dataset:
    """List the images of a folder in one of the layouts at the head of this module.

    No image is decoded. In ``folders`` and ``kolektorsdd2``, masks are decoded to find the empty
    ones.

    Args:
        classes: list only these; None lists all. Must be None where the layout has no ClassK.
        split: list only this one; None lists both.

    Raises:
        UnknownLayout: the folder is in none of the layouts.
        DataError: a class, a split, an image or a mask is missing, or a label list disagrees with
            the files.
    """
    if not root.is_dir():
        raise DataError(root, "is not a folder" if root.exists() else "does not exist")
    for base in (root, subfolder(root, "DAGM_KaggleUpload")):
        if base is not None and (released := released_classes(base)):
            require_classes(root, classes, released)
            return _dataset(root, "released", read_released(released, classes, split))
    defective = class_folders(root, "_def")
    defect_free = class_folders(root, "")
    if defective or any(images_in(folder) for folder in defect_free.values()):
        require_classes(root, classes, defective.keys() | defect_free.keys())
        if split is not None:
            raise DataError(
                root,
                f"has no {split} split: the development release has none",
                "use the released set, or leave the split out",
            )
        items = read_development(defective, defect_free, classes)
        return _dataset(root, "development", items)
    pairs = image_folders(root)
    if pairs:
        if classes is not None:
            raise DataError(root, "has images/ and masks/, not classes", "leave the classes out")
        return _dataset(root, "folders", read_folders(root, pairs, split))
    splits = kolektorsdd2_splits(root)
    if splits:
        if classes is not None:
            raise DataError(root, "is KolektorSDD2, which has no classes", "leave the classes out")
        return _dataset(root, "kolektorsdd2", read_kolektorsdd2(root, splits, split))
    raise UnknownLayout(
        root,
        "contains no data set",
        "expected ClassK/Train and ClassK/Test, ClassK_def, images and masks, "
        "or train/10000.png with train/10000_GT.png",
    )


def _dataset(root: Path, layout: Layout, items: Iterable[Item]) -> Dataset:
    listed = tuple(items)
    if not listed:
        raise DataError(root, "no images found")
    return Dataset(root, layout, listed)
