"""Layouts with each mask beside its image, as in KolektorSDD and KolektorSDD2."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Final, Literal, NamedTuple

from tinyunet_deploy.data.dataset import Split
from tinyunet_deploy.data.layouts.label_names import image_of_label, is_mask_folder, label_files
from tinyunet_deploy.data.layouts.listing import (
    entries,
    image_tree,
    images_in,
    require_splits,
    split_folders,
)
from tinyunet_deploy.data.layouts.pairing import Pair, PairGroup
from tinyunet_deploy.errors import DataError

__all__ = ["PairFolders", "pair_folders", "pair_groups"]

_LEFT_OUT: Final = frozenset({"10301 (copy).png", "10301_gt (copy).png"})
"""Copies of 10301 that the published archive of KolektorSDD2 contains by mistake; the checks list
them as stray."""


class PairFolders(NamedTuple):
    """Where the pairs of a data set are."""

    layout: Literal["pairs", "kolektorsdd", "kolektorsdd2"]
    folders: dict[Split | None, Path]
    """Split -> its folder; None -> the data set's folder if it has no splits."""


def pair_folders(root: Path) -> PairFolders | None:
    """Return where images lie beside their masks; None if ``root`` contains no such pair.

    Pairs are looked for in train/, val/ and test/, or in ``root``, and one folder deeper.

    Raises:
        DataError: pairs lie both in ``root`` and in a split.
    """
    splits = split_folders(root)
    if any(_has_pairs(folder) for folder in splits.values()):
        if _has_pairs_directly(root):
            raise DataError(
                root,
                "has masks beside images both directly in it and in train/, val/ or test/",
                "keep one of the two",
            )
        is_sdd2 = all(
            image_of_label(Path(name).stem) is None or Path(name).stem.endswith(("_gt", "(copy)"))
            for folder in splits.values()
            for name in images_in(folder)
        )
        return PairFolders("kolektorsdd2" if is_sdd2 else "pairs", dict(splits.items()))
    if not _has_pairs(root):
        return None
    parts = [entry.name for entry in entries(root) if entry.is_dir()]
    is_sdd = bool(parts) and all(re.fullmatch("kos[0-9]+", name) for name in parts)
    return PairFolders("kolektorsdd" if is_sdd else "pairs", {None: root})


def pair_groups(
    root: Path, pairs: PairFolders, splits: Collection[Split] | None
) -> Iterator[PairGroup]:
    """List the images by split and path, with their masks.

    The mask of ``a.png`` is ``a_GT``, ``a_mask`` or ``a_label``, with any suffix of an image.

    Args:
        root: the data set's folder, for errors.
        pairs: result of :func:`pair_folders`.
        splits: list only these; None lists all.

    Raises:
        DataError: the split is missing, or an image has two masks.
    """
    require_splits(root, splits, pairs.folders)
    for name, folder in pairs.folders.items():
        if splits is None or name in splits:
            yield PairGroup(name, *_pairs_below(folder, pairs.layout), _expected, True)


def _pairs_below(folder: Path, layout: str) -> tuple[list[Pair], list[Path]]:
    """Return the images below a folder with their masks, and the masks without an image."""
    by_folder: dict[Path, list[Path]] = defaultdict(list)
    for files in image_tree(folder).values():
        for path in files:
            if layout != "kolektorsdd2" or path.name.lower() not in _LEFT_OUT:
                by_folder[path.parent].append(path)
    pairs: list[Pair] = []
    orphans: list[Path] = []
    for files in by_folder.values():
        labels = label_files([path.name for path in files])
        masks: dict[str | None, Path] = {}
        for path in files:
            if path.name in labels:
                image = image_of_label(path.stem)
                if image in masks:
                    raise DataError(path, f"is a second mask beside {masks[image].name}")
                masks[image] = path
        for path in files:
            if path.name in labels:
                continue
            mask = masks.get(path.stem)
            if mask is None and image_of_label(path.stem) is not None:
                orphans.append(path)
            else:
                pairs.append(Pair(path, mask))
    return sorted(pairs), orphans


def _has_pairs(folder: Path) -> bool:
    names = [entry.name for entry in entries(folder) if entry.is_dir()]
    below = (folder / name for name in names if not is_mask_folder(name, names))
    return _has_pairs_directly(folder) or any(map(_has_pairs_directly, below))


def _has_pairs_directly(folder: Path) -> bool:
    return bool(label_files([path.name for path in images_in(folder).values()]))


def _expected(image: Path) -> Path:
    return image.with_name(f"{image.stem}_GT.png")
