"""The layout of KolektorSDD2: train/ and test/, each image beside its mask with _GT in its name."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from tinyunet_deploy.data.dataset import SPLITS, Item, Split
from tinyunet_deploy.data.layouts.listing import images_in, subfolder
from tinyunet_deploy.data.masks import read_mask_file
from tinyunet_deploy.errors import DataError

__all__ = ["kolektorsdd2_splits", "read_kolektorsdd2"]

_MASK_END: Final = "_gt"
"""End of a mask's name before its suffix, in lower case as ``images_in`` gives names."""


_LEFT_OUT: Final = frozenset({"10301 (copy).png", "10301_gt (copy).png"})
"""Copies of 10301 that the published archive contains by mistake; the checks list them as stray."""


def kolektorsdd2_splits(root: Path) -> dict[Split, Path]:
    """Return split -> its folder; empty unless train/ or test/ contains a mask of this layout."""
    subfolders = {split: subfolder(root, split) for split in SPLITS}
    folders = {split: folder for split, folder in subfolders.items() if folder is not None}
    has_masks = any(_is_mask(name) for folder in folders.values() for name in images_in(folder))
    return folders if has_masks else {}


def read_kolektorsdd2(
    root: Path, folders: dict[Split, Path], split: Split | None
) -> Iterator[Item]:
    """List the images by split and name; an image with an all-zero mask is defect-free.

    Args:
        root: the data set's folder, for errors.
        folders: result of :func:`kolektorsdd2_splits`.
        split: list only this one; None lists both.

    Raises:
        DataError: the split, an image or a mask is missing, or a mask cannot be decoded.
    """
    if split is not None and split not in folders:
        raise DataError(root, f"has no {split} split", f"it has {', '.join(folders)}")
    for name, folder in folders.items():
        if split is None or name == split:
            yield from _read_split(folder, name)


def _read_split(folder: Path, split: Split) -> Iterator[Item]:
    files = {name: path for name, path in images_in(folder).items() if name not in _LEFT_OUT}
    masks: dict[str, Path] = {}
    for name, path in files.items():
        if _is_mask(name):
            image_name = Path(name).stem.removesuffix(_MASK_END)
            if image_name in masks:
                raise DataError(path, f"is a second mask beside {masks[image_name].name}")
            masks[image_name] = path
    pairs: list[tuple[Path, Path]] = []
    for name, image in files.items():
        if _is_mask(name):
            continue
        mask = masks.pop(Path(name).stem, None)
        if mask is None:
            wanted = image.with_name(f"{image.stem}_GT.png")
            raise DataError(image, "has no mask", f"expected {wanted}, all zero where defect-free")
        pairs.append((image, mask))
    for image_name, mask in masks.items():
        raise DataError(mask, "has no image", f"expected {mask.with_name(image_name)}.png")
    with ThreadPoolExecutor() as pool:
        defective = pool.map(lambda pair: bool(read_mask_file(pair[1]).any()), pairs)
        for (image, mask), is_defective in zip(pairs, defective, strict=True):
            yield Item(image, is_defective, mask, None, None, split)


def _is_mask(name: str) -> bool:
    return Path(name).stem.endswith(_MASK_END)
