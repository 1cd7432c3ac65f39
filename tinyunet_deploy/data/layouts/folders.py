"""The layout of a user's own images: images/ and masks/ with the same names, at any depth."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tinyunet_deploy.data.dataset import SPLITS, Item, Split
from tinyunet_deploy.data.layouts.listing import entries, images_in, subfolder
from tinyunet_deploy.data.masks import read_mask_file
from tinyunet_deploy.errors import DataError

__all__ = ["image_folders", "read_folders"]


def image_folders(root: Path) -> list[tuple[Split | None, Path]]:
    """Return the folders that contain images/, with their split: ``root``, train/ or test/.

    Raises:
        DataError: images/ exists both in ``root`` and below train/ or test/.
    """
    folders: list[tuple[Split | None, Path]] = []
    for split, folder in [(None, root), *((split, subfolder(root, split)) for split in SPLITS)]:
        if folder is not None and subfolder(folder, "images") is not None:
            folders.append((split, folder))
    if len(folders) > 1 and folders[0][0] is None:
        raise DataError(
            root, "has images/ both directly in it and in train/ or test/", "keep one of the two"
        )
    return folders


def read_folders(
    root: Path, folders: list[tuple[Split | None, Path]], split: Split | None
) -> Iterator[Item]:
    """List a user's own images with their masks; an image with an empty mask is defect-free.

    Args:
        root: the data set's folder, for errors.
        folders: result of :func:`image_folders`.
        split: list only this one; None lists all.

    Raises:
        DataError: a split or a mask is missing, a mask is ambiguous or cannot be decoded.
    """
    if split is not None:
        folders = [(name, folder) for name, folder in folders if name == split]
        if not folders:
            raise DataError(
                root, f"has no {split} split", f"expected {split}/images and {split}/masks"
            )
    for name, folder in folders:
        images, masks = (_image_tree(folder, part) for part in ("images", "masks"))
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
            defective = pool.map(lambda pair: bool(read_mask_file(pair[1]).any()), pairs)
            for (image, mask_path), is_defective in zip(pairs, defective, strict=True):
                yield Item(image, is_defective, mask_path, None, None, name)


def _image_tree(folder: Path, part: str) -> dict[str, list[Path]]:
    """Return path below ``part`` without its suffix -> the images of that name, sorted."""
    top = subfolder(folder, part)
    files: dict[str, list[Path]] = {}
    pending = [] if top is None else [top]
    paths: list[Path] = []
    while pending:
        current = pending.pop()
        paths += images_in(current).values()
        pending += [Path(entry.path) for entry in entries(current) if entry.is_dir()]
    for path in sorted(paths):
        assert top is not None
        files.setdefault(path.relative_to(top).with_suffix("").as_posix(), []).append(path)
    return files
