"""Guess where the images and masks of a folder are that has none of the known layouts."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from pathlib import Path, PurePosixPath
from typing import Final, NamedTuple

from tinyunet_deploy.data.dataset import Split
from tinyunet_deploy.data.description import SPLIT_FIELD, Description, ImageFiles, MaskFiles
from tinyunet_deploy.data.layouts.listing import image_tree, split_of

__all__ = ["guess_description"]

_IMAGES: Final = frozenset(
    {"images", "image", "imgs", "img", "photos", "pictures", "data", "jpegimages", "input", "x"}
)
"""Names of folders of images, in lower case."""
_MASKS: Final = frozenset(
    {
        *("masks", "mask", "labels", "label", "annotations", "annotation", "ground_truth"),
        *("groundtruth", "gt", "segmentation", "segmentationclass", "seg", "targets", "y"),
    }
)
"""Names of folders of masks, in lower case."""
_LOSSY: Final = (".jpg", ".jpeg")
_LEAST: Final = 0.5
"""Smallest share of the masks that must have an image."""


class _Place(NamedTuple):
    """A folder, with ``{split}`` in place of a split's folder, and what lies below it."""

    folder: str
    splits: dict[Split, str]
    keys: Counter[tuple[str, str]]
    """(split's folder, path below without suffix) -> files."""


def guess_description(root: Path) -> Description | None:
    """Return a description of images and masks by their names; None if nothing fits.

    Known are two folders such as ``photos`` and ``labels``, with splits above or below them and an
    ending at the masks, and images and masks in one folder that differ in their suffix.
    """
    files = [
        PurePosixPath(path.relative_to(root).as_posix())
        for paths in image_tree(root).values()
        for path in paths
    ]
    return _two_folders(files) or _two_suffixes(files)


def _two_folders(files: Sequence[PurePosixPath]) -> Description | None:
    places = {
        kind: _places(files, names) for kind, names in (("images", _IMAGES), ("masks", _MASKS))
    }
    best: tuple[float, Description] | None = None
    for images in places["images"]:
        for masks in places["masks"]:
            ending, matched = _ending(images.keys.keys(), masks.keys.keys())
            share = matched / masks.keys.total()
            if share >= _LEAST and (best is None or matched > best[0]):
                best = (
                    matched,
                    Description(
                        splits=images.splits,
                        images=ImageFiles(images.folder),
                        masks=MaskFiles(masks.folder, ending),
                    ),
                )
    return None if best is None else best[1]


def _places(files: Sequence[PurePosixPath], names: Collection[str]) -> list[_Place]:
    """Return the folders of these names, each with all its splits."""
    found: dict[str, list[tuple[Split | None, str, PurePosixPath]]] = defaultdict(list)
    for file in files:
        parts = file.parts[:-1]
        at = next((n for n, part in enumerate(parts) if part.lower() in names), None)
        if at is None:
            continue
        split_at = next((n for n, part in enumerate(parts[: at + 2]) if split_of(part)), None)
        end = at + 1 if split_at is None else max(at, split_at) + 1
        head = [SPLIT_FIELD if n == split_at else part for n, part in enumerate(parts[:end])]
        split = None if split_at is None else split_of(parts[split_at])
        name = "" if split_at is None else parts[split_at]
        below = PurePosixPath(*file.parts[end:])
        found["/".join(head)].append((split, name, below))
    places = []
    for folder, entries in found.items():
        keys = Counter((name, below.with_suffix("").as_posix()) for _, name, below in entries)
        splits = {split: name for split, name, _ in entries if split is not None}
        places.append(_Place(folder, splits, keys))
    return places


def _ending(
    images: Collection[tuple[str, str]], masks: Collection[tuple[str, str]]
) -> tuple[str, int]:
    """Return the end of a mask's name behind that of its image, and the masks that have it."""
    endings: Counter[str] = Counter()
    for name, key in masks:
        for cut in range(len(key), 0, -1):
            if (name, key[:cut]) in images:
                endings[key[cut:]] += 1
                break
    if not endings:
        return "", 0
    ending, matched = max(endings.items(), key=lambda item: (item[1], -len(item[0])))
    return ending, matched


def _two_suffixes(files: Sequence[PurePosixPath]) -> Description | None:
    """Return a description of images and masks that share folder and name, not their suffix."""
    by_name: dict[PurePosixPath, set[str]] = defaultdict(set)
    for file in files:
        by_name[file.with_suffix("")].add(file.suffix.lower())
    pairs = Counter(frozenset(suffixes) for suffixes in by_name.values() if len(suffixes) == 2)
    if not pairs:
        return None
    suffixes, count = pairs.most_common(1)[0]
    image = next((suffix for suffix in suffixes if suffix in _LOSSY), None)
    if image is None or 2 * count < _LEAST * len(files):
        return None
    (mask,) = suffixes - {image}
    heads = {file.parts[0] for file in files}
    splits = {split: head for head in heads if (split := split_of(head)) is not None}
    if len(splits) != len(heads) or any(len(file.parts) < 2 for file in files):
        return Description(images=ImageFiles(".", image), masks=MaskFiles(None, mask))
    return Description(
        splits=splits, images=ImageFiles(SPLIT_FIELD, image), masks=MaskFiles(None, mask)
    )
