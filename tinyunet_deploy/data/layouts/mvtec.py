"""The layout of MVTec AD: train/good/, test/good/, test/DEFECT/ and ground_truth/DEFECT/.

Bergmann et al., "MVTec AD", CVPR 2019. The folder of one product is a data set, and so is the
folder above those of several products.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from tinyunet_deploy.data.dataset import SPLITS, Item, MaskRule, Split
from tinyunet_deploy.data.layouts.listing import (
    entries,
    images_in,
    split_folders,
    subfolder,
)
from tinyunet_deploy.data.layouts.pairing import GOOD_FOLDERS
from tinyunet_deploy.errors import DataError

__all__ = ["mvtec_products", "mvtec_splits", "read_mvtec"]


def mvtec_products(root: Path) -> dict[str, Path]:
    """Return name -> folder of each product, sorted; empty if ``root`` has another layout.

    A single product, which has no name, is ``root`` itself.
    """
    if _is_product(root):
        return {"": root}
    folders = (Path(entry.path) for entry in entries(root) if entry.is_dir())
    return {folder.name: folder for folder in folders if _is_product(folder)}


def mvtec_splits(products: Mapping[str, Path]) -> list[Split]:
    """Return the splits that a product has."""
    present = {split for folder in products.values() for split in split_folders(folder)}
    return [split for split in SPLITS if split in present]


def read_mvtec(
    products: Mapping[str, Path],
    classes: Collection[int] | None,
    splits: Collection[Split] | None,
    rule: MaskRule | None = None,
) -> Iterator[Item]:
    """List the images by product, split and path.

    Args:
        products: result of :func:`mvtec_products`; they are numbered from 1, unless it is one
            without a name.
        classes, splits: list only these; None lists all.
        rule: rule by which the masks are read.

    Raises:
        DataError: a mask or an image is missing, or an image lies outside good/ and the defects.
    """
    for number, (name, folder) in enumerate(products.items(), start=1):
        if classes is None or number in classes:
            for part, split_folder in split_folders(folder).items():
                if splits is None or part in splits:
                    class_id = number if name else None
                    yield from _read_split(folder, split_folder, part, class_id, rule)


def _is_product(folder: Path) -> bool:
    """Return whether a folder has ground_truth/ beside train/ or test/, with folders in them."""
    return subfolder(folder, "ground_truth") is not None and any(
        any(entry.is_dir() for entry in entries(part)) for part in split_folders(folder).values()
    )


def _read_split(
    product: Path, folder: Path, split: Split, class_id: int | None, rule: MaskRule | None
) -> Iterator[Item]:
    for image in images_in(folder).values():
        raise DataError(image, "lies in neither good/ nor the folder of a defect")
    for entry in entries(folder):
        if not entry.is_dir():
            continue
        images = images_in(Path(entry.path)).values()
        if entry.name.lower() in GOOD_FOLDERS:
            for image in images:
                yield Item(image, False, None, None, class_id, split, rule=rule)
            continue
        if split != "test":
            raise DataError(
                entry.path, f"is in {folder.name}/, but MVTec AD has defects only in test/",
                "put the images into test/, or describe the folder in dataset.toml",
            )  # fmt: skip
        truth = subfolder(product, "ground_truth")
        mask_folder = None if truth is None else subfolder(truth, entry.name)
        if mask_folder is None:
            raise DataError(
                entry.path, "has no masks", f"expected {product / 'ground_truth' / entry.name}"
            )
        masks = _masks(mask_folder)
        for image in images:
            mask = masks.get(image.stem)
            if mask is None:
                wanted = mask_folder / f"{image.stem}_mask.png"
                raise DataError(image, "has no mask", f"expected {wanted}")
            yield Item(image, True, mask, None, class_id, split, rule=rule, defect_type=entry.name)
        stems = {image.stem for image in images}
        for mask in (mask for name, mask in masks.items() if name not in stems):
            raise DataError(mask, "has no image", f"expected one of this name in {entry.path}")


def _masks(folder: Path) -> dict[str, Path]:
    """Return stem of an image -> its mask, ``000_mask.png`` or ``000.png``."""
    masks: dict[str, Path] = {}
    for path in images_in(folder).values():
        name = path.stem.removesuffix("_mask")
        if name in masks:
            raise DataError(path, f"is a second mask beside {masks[name].name}")
        masks[name] = path
    return masks
