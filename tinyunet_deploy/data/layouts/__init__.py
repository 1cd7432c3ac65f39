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
    described     as ``dataset.toml`` in the folder says (:mod:`tinyunet_deploy.data.description`),
                  which may also say more about a known layout

``released`` and ``development`` are those of DAGM2007: Wieler, Hahn, Hamprecht, "Weakly Supervised
Learning for Industrial Optical Inspection", 2007, doi:10.5281/zenodo.8086136. The development
release shows the same images as the released set: never train on one and test on the other.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable
from pathlib import Path

from tinyunet_deploy.data.dataset import Dataset, Item, Split
from tinyunet_deploy.data.description import DESCRIPTION, Description
from tinyunet_deploy.data.description_file import read_description
from tinyunet_deploy.data.layouts.described import describe_reader
from tinyunet_deploy.data.layouts.known import Reader, UnknownLayout, known_reader
from tinyunet_deploy.data.layouts.listing import require_classes, require_splits
from tinyunet_deploy.data.layouts.pairing import require_own_masks
from tinyunet_deploy.data.layouts.shares import divide, require_shares
from tinyunet_deploy.errors import DataError

__all__ = ["UnknownLayout", "read_dataset", "read_training_parts"]


def read_dataset(
    root: Path,
    *,
    classes: Collection[int] | None = None,
    split: Split | None = None,
    description: Description | None = None,
) -> Dataset:
    """List the images of a folder in one of the layouts at the head of this module.

    No image is decoded. In ``folders``, ``described`` and the layouts with pairs, masks are decoded
    to find the empty ones.

    Args:
        classes: list only these; None lists all. Must be None where the layout has no classes.
        split: list only this one; None lists all.
        description: replaces that in the folder's ``dataset.toml``; None reads it.

    Raises:
        UnknownLayout: the folder is in none of the layouts.
        DataError: a class, a split, an image or a mask is missing, two images have the same mask,
            a label list disagrees with the files, the folder is in two layouts, or its description
            is not valid.
    """
    described = _described(root, description)
    reader = _reader(root, described)
    return _listed(root, described, reader, classes, None if split is None else [split])


def read_training_parts(root: Path, *, classes: Collection[int] | None = None) -> Dataset:
    """List the images of train and val, as :func:`read_dataset` does; all of a set without splits.

    Raises:
        DataError: as for :func:`read_dataset`, or the folder has splits but no train part.
    """
    description = _described(root, None)
    reader = _reader(root, description)
    present = _splits_of(reader, description)
    wanted: list[Split] = ["train"]
    if "val" in present:
        wanted.append("val")
    return _listed(root, description, reader, classes, wanted if any(present) else None)


def _described(root: Path, description: Description | None) -> Description:
    if not root.is_dir():
        raise DataError(root, "is not a folder" if root.exists() else "does not exist")
    return description or read_description(root) or Description()


def _reader(root: Path, description: Description) -> Reader:
    if description.images.folder is not None:
        return describe_reader(root, description)
    reader = known_reader(root, description)
    if description.masks.missing is not None and reader.groups is None:
        raise DataError(
            root / DESCRIPTION,
            f"says masks.missing, which the layout {reader.layout} does not need",
            "leave it out",
        )
    return reader


def _splits_of(reader: Reader, description: Description) -> set[Split]:
    """Return the splits of a folder once the shares of its description are drawn."""
    present = {split for split in reader.splits if split is not None}
    shares = description.shares
    if shares.val or shares.test or shares.defects_to_train:
        present.add("train")
    if shares.val:
        present.add("val")
    if shares.test:
        present.add("test")
    return present


def _listed(
    root: Path,
    description: Description,
    reader: Reader,
    classes: Collection[int] | None,
    splits: Collection[Split] | None,
) -> Dataset:
    if classes is not None and not reader.classes:
        raise DataError(
            root, f"has the layout {reader.layout}, which has no classes", "leave the classes out"
        )
    require_classes(root, classes, reader.classes)
    rule, shares = description.masks.rule, description.shares
    items: Iterable[Item]
    if shares.val or shares.test or shares.defects_to_train:
        require_shares(root, shares, reader.splits)
        require_splits(root, splits, _splits_of(reader, description))
        divided = divide(root, list(reader.read(None, None)), shares)
        items = [
            item
            for item in divided
            if (classes is None or item.class_id in classes)
            and (splits is None or item.split in splits)
        ]
    else:
        items = reader.read(classes, splits)
    if rule is not None:
        items = [dataclasses.replace(item, rule=rule) for item in items]
    listed = tuple(items)
    if not listed:
        raise DataError(root, "no images found")
    require_own_masks((item.image, item.mask) for item in listed)
    return Dataset(
        root,
        reader.layout,
        listed,
        description.images.bit_depth,
        reader.class_names,
        description.defect_types,
    )
