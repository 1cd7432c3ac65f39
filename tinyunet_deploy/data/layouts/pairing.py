"""Decide which images are defective by their masks, and what an image without a mask is."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

from tinyunet_deploy.data.dataset import Item, MaskRule, Missing, Split
from tinyunet_deploy.data.decoding import IMAGE_SUFFIXES
from tinyunet_deploy.data.layouts.label_names import image_of_label
from tinyunet_deploy.data.mask_survey import ignored_by_rule, looks_inverted
from tinyunet_deploy.data.masks import read_mask_file
from tinyunet_deploy.errors import DataError, printable

__all__ = ["GOOD_FOLDERS", "Pair", "PairGroup", "paired_items", "require_own_masks"]

log = logging.getLogger(__name__)

GOOD_FOLDERS: Final = frozenset({"good", "ok", "normal", "defect-free", "defect_free"})
"""Names, in lower case, of folders whose images are good parts."""


class Pair(NamedTuple):
    """An image and its mask."""

    image: Path
    mask: Path | None
    """None if there is no mask file."""
    class_id: int | None = None


class _Reading(NamedTuple):
    """What a mask says about its image."""

    mask: Path
    marks: bool
    """The image shows a defect."""
    inverted: bool
    """It looks inverted."""
    ignored: bool
    """It marks nothing by its rule, although it has other values than 0."""


class PairGroup(NamedTuple):
    """The images of one split, each with its mask."""

    split: Split | None
    pairs: list[Pair]
    orphans: list[Path]
    """Masks without an image."""
    expected: Callable[[Path], Path]
    """Returns the place where the mask of an image was looked for, for errors."""
    orphans_are_errors: bool = False
    """A mask without an image is refused; else it counts as a stray file."""


def paired_items(
    group: PairGroup, rule: MaskRule | None = None, missing: Missing | None = None
) -> Iterator[Item]:
    """Yield the images of one split; an image whose mask marks nothing is defect-free.

    An image without a mask is refused, unless all say that good parts have none: no mask of the
    split is empty, every mask has its image, and the image lies in a folder where others have a
    mask or that is called ``good`` or the like. Then the number of such images is logged, as is
    that of masks without an image.

    Args:
        rule: rule by which the masks are read.
        missing: meaning of an image without a mask; None decides as above.

    Raises:
        DataError: a mask or an image is missing, a mask is ambiguous or cannot be decoded.
    """
    pairs = group.pairs
    with_masks = [pair.mask for pair in pairs if pair.mask is not None]
    with ThreadPoolExecutor() as pool:
        readings = list(pool.map(partial(_read, rule=rule), with_masks))
    defective = {reading.mask: reading.marks for reading in readings}
    without = [pair.image for pair in pairs if pair.mask is None]
    _refuse_unread({image: group.expected(image) for image in without})
    if missing != "good":
        may_be_good = missing is None and not group.orphans and all(defective.values())
        _require_masks(pairs, without, group.expected, may_be_good)
    if group.orphans_are_errors:
        _require_images(group.orphans)
    if group.orphans:
        log.warning(
            "%s: masks without an image that is read are left out: %d, the first is %s",
            printable(str(group.orphans[0].parent)), len(group.orphans),
            printable(group.orphans[0].name),
        )  # fmt: skip
    if without:
        log.warning(
            "%s: %d of %d images have no mask and count as good parts; the first is %s",
            printable(str(without[0].parent)), len(without), len(pairs), printable(without[0].name),
        )  # fmt: skip
    _warn_of_doubtful(readings)
    for image, mask, class_id in pairs:
        yield Item(
            image,
            mask is not None and defective[mask],
            mask,
            None,
            class_id,
            group.split,
            rule=rule,
        )


def require_own_masks(pairs: Iterable[tuple[Path, Path | None]]) -> None:
    """Refuse a mask of two images: it says nothing about at least one of them.

    Args:
        pairs: each image with its mask, if it has one.

    Raises:
        DataError: two images have the same mask.
    """
    images: dict[Path, Path] = {}
    for image, mask in pairs:
        other = image if mask is None else images.setdefault(mask, image)
        if other != image:
            raise DataError(
                image,
                f"has the same mask as {other}: {mask}",
                "a mask is of one image: move one of the two images away, or give it a name and a "
                "mask of its own",
            )


def _read(path: Path, *, rule: MaskRule | None) -> _Reading:
    mask = read_mask_file(path, rule)
    marks = bool(mask.any())
    ignored = not marks and ignored_by_rule(path, rule)
    return _Reading(path, marks, marks and looks_inverted(mask), ignored)


def _warn_of_doubtful(readings: Sequence[_Reading]) -> None:
    """Log the number of masks that may mean something else than they are read as."""
    for doubtful, what in (
        (
            [reading.mask for reading in readings if reading.inverted],
            "mark most of the border as defect, so they look inverted",
        ),
        (
            [reading.mask for reading in readings if reading.ignored],
            "have values of which dataset.toml counts none as defect, so their images count as "
            "good parts",
        ),
    ):
        if doubtful:
            log.warning(
                "%s: %d of %d masks %s; the first is %s; tinyunet data check lists them",
                printable(str(doubtful[0].parent)), len(doubtful), len(readings), what,
                printable(doubtful[0].name),
            )  # fmt: skip


def _require_images(masks: Sequence[Path]) -> None:
    """Raise DataError if there is a mask without an image."""
    for mask in masks:
        image = mask.with_name(f"{image_of_label(mask.stem) or mask.stem}.png")
        raise DataError(mask, "has no image", f"expected {image}")


def _refuse_unread(places: Mapping[Path, Path]) -> None:
    """Refuse a file in the place of a mask whose format is not read: its part may be defective.

    Args:
        places: image without a mask -> place where its mask was looked for.
    """
    images: dict[Path, list[Path]] = {}
    for image, place in places.items():
        images.setdefault(place.parent, []).append(image)
    for folder in filter(Path.is_dir, images):
        unread = [file for file in folder.iterdir() if file.suffix.lower() not in IMAGE_SUFFIXES]
        by_name = {file.stem.casefold(): file for file in unread}
        by_label = {(image_of_label(file.stem) or "").casefold(): file for file in unread}
        for image in images[folder]:
            place = places[image]
            path = by_label.get(image.stem.casefold())
            if path is None and (place.stem != image.stem or folder != image.parent):
                # else it may be of another kind, such as the annotation of the image
                path = by_name.get(place.stem.casefold())
            if path is not None:
                raise DataError(
                    path,
                    f"is in the place of the mask of {image.name}, but is of a format that is not "
                    "read",
                    f"save it as {place.name}",
                )


def _require_masks(
    pairs: Sequence[Pair],
    without: Sequence[Path],
    expected: Callable[[Path], Path],
    only_defects_have_masks: bool,
) -> None:
    """Refuse the first image without a mask that is not, by all signs, a good part."""
    folders = {pair.image.parent for pair in pairs if pair.mask is not None}
    for image in without:
        shows_good = bool(folders) and (
            image.parent in folders or image.parent.name.lower() in GOOD_FOLDERS
        )
        if not (only_defects_have_masks and shows_good):
            raise DataError(
                image,
                "has no mask",
                f"expected {expected(image)}, all zero where defect-free; if good parts have no "
                'mask, say missing = "good" below [masks] in dataset.toml',
            )
