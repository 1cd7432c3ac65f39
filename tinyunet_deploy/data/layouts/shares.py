"""Divide the images of a set without train, val or test parts, by a draw that the names decide."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from tinyunet_deploy.data.dataset import SPLITS, Item, Split
from tinyunet_deploy.data.description import DESCRIPTION, Shares
from tinyunet_deploy.errors import DataError

__all__ = ["divide", "require_shares"]


def require_shares(root: Path, shares: Shares, present: Collection[Split | None]) -> None:
    """Raise DataError if shares do not fit the splits that a folder has."""
    splits = {split for split in present if split is not None}
    faults = (
        (bool(shares.test and "test" in splits), "test_share", "but there is a test part"),
        (bool(shares.val and "val" in splits), "val_share", "but there is a val part"),
        (
            bool(shares.defects_to_train and "test" not in splits),
            "defects_to_train",
            "but there is no test part",
        ),
    )
    for wrong, key, why in faults:
        if wrong:
            raise DataError(root / DESCRIPTION, f"gives splits.{key}, {why}", "leave it out")


def divide(root: Path, items: Sequence[Item], shares: Shares) -> list[Item]:
    """Return all images with the splits that the shares give them, sorted as in a data set.

    Images without a split become train; then test, defects for train, and val are drawn. Each
    draw takes the same share of every class, of its defective and of its defect-free images; the
    paths below ``root`` decide which.
    """
    divided = [
        dataclasses.replace(item, split="train") if item.split is None else item for item in items
    ]
    if shares.test:
        divided = _moved(root, divided, lambda item: item.split == "train", shares.test, "test")
    if shares.defects_to_train:
        share = shares.defects_to_train
        divided = _moved(
            root, divided, lambda item: item.split == "test" and item.defective, share, "train"
        )
    if shares.val:
        divided = _moved(root, divided, lambda item: item.split == "train", shares.val, "val")
    return sorted(
        divided,
        key=lambda item: (item.class_id or 0, SPLITS.index(item.split or "train"), item.image),
    )


def _moved(
    root: Path, items: Sequence[Item], may_move: Callable[[Item], bool], share: float, to: Split
) -> list[Item]:
    """Return all items, a share of those that may move in another split."""
    groups: dict[tuple[int | None, bool], list[Item]] = defaultdict(list)
    for item in items:
        if may_move(item):
            groups[item.class_id, item.defective].append(item)
    moved: set[Item] = set()
    for group in groups.values():
        drawn = sorted(group, key=lambda item: _lot(root, item))
        moved.update(drawn[: round(share * len(group))])
    return [dataclasses.replace(item, split=to) if item in moved else item for item in items]


def _lot(root: Path, item: Item) -> str:
    """Return the key by which images are ordered for a draw."""
    return hashlib.sha256(os.fsencode(item.image.relative_to(root).as_posix())).hexdigest()
