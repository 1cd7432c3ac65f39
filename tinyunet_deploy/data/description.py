"""The description of a data set, ``dataset.toml`` in its folder.

Every key is optional, and an unknown one is refused::

    layout = "mvtec"               # only to choose, where a folder has two layouts

    [splits]
    train = "training"             # folder of a split, which stands for {split} below
    val = "validation"
    test = "testing"
    val_share = 0.2                # without a val part: share of the rest that becomes val
    test_share = 0.2               # without a test part: share of train that becomes test
    defects_to_train = 0.5         # share of the defective test images that becomes train

    [images]
    folder = "{split}/photos"      # images at any depth below it; not for a known layout
    ending = ".jpg"                # end of their names, with or without the suffix
    products = ["plate", "ring"]   # folders directly below it, --classes 1 and 2
    bit_depth = 12                 # of the camera whose values 16-bit files contain

    [masks]
    folder = "{split}/labels"      # that of the images if left out
    ending = "_seg.png"            # the mask of a.jpg is a_seg.png
    missing = "good"               # an image without a mask is a good part; or "error"
    non_zero = true                # every value but 0 means defect; or one of the next two
    threshold = 127                # values above it
    values = [1, 2]                # these values
    inverted = false               # the rule finds what is good; alone: 0 means defect

    [defects]                      # names of the values, if they number types of defects
    1 = "scratch"
    2 = "dent"

The shares are drawn by the names of the images, so that the same files give the same parts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Final

from tinyunet_deploy.data.dataset import Layout, MaskRule, Missing, Split
from tinyunet_deploy.data.decoding import IMAGE_SUFFIXES

__all__ = [
    "DESCRIPTION",
    "SPLIT_FIELD",
    "Description",
    "ImageFiles",
    "MaskFiles",
    "Shares",
    "name_without",
]

DESCRIPTION: Final = "dataset.toml"
"""File name of the description in the folder of a data set."""
SPLIT_FIELD: Final = "{split}"
"""Part of a folder's path in place of which the folder of a split is put."""


@dataclass(frozen=True)
class Shares:
    """Shares of the images that are moved between the splits, each 0..1."""

    val: float = 0.0
    """Share of the train images that becomes val, in a set without a val part."""
    test: float = 0.0
    """Share of the train images that becomes test, in a set without a test part."""
    defects_to_train: float = 0.0
    """Share of the defective test images that becomes train, for sets without defects in train."""


@dataclass(frozen=True)
class ImageFiles:
    """Places and names of the images."""

    folder: str | None = None
    """Folder below the data set's, with ``{split}`` if it has splits; None for a known layout."""
    ending: str = ""
    """End of the images' names, with or without the suffix; empty for any."""
    products: tuple[str, ...] = ()
    """Folders directly below ``folder``, one a product; empty without products."""
    bit_depth: int | None = None
    """Depth of the camera whose values 16-bit files contain, 8..16; None leaves it to the files."""


@dataclass(frozen=True)
class MaskFiles:
    """Places, names and meaning of the masks."""

    folder: str | None = None
    """Folder below the data set's; None for that of the images."""
    ending: str = ""
    """End of the masks' names, with or without the suffix, in place of that of the images."""
    missing: Missing | None = None
    """Meaning of an image without a mask; None leaves it to the signs of
    :func:`~tinyunet_deploy.data.layouts.pairing.paired_items`."""
    rule: MaskRule | None = None
    """Values that mean defect; None reads masks of one or two values."""


@dataclass(frozen=True)
class Description:
    """Content of a ``dataset.toml``."""

    layout: Layout | None = None
    splits: Mapping[Split, str] = field(default_factory=dict)
    """Split -> its folder, which stands for ``{split}``."""
    shares: Shares = field(default_factory=Shares)
    images: ImageFiles = field(default_factory=ImageFiles)
    masks: MaskFiles = field(default_factory=MaskFiles)
    defect_types: Mapping[int, str] = field(default_factory=dict)
    """Value in the masks -> name of the type of defect; it does not say what is a defect."""

    def folders(self) -> list[tuple[Split | None, PurePosixPath, PurePosixPath]]:
        """Return split, image folder and mask folder of each split; empty for a known layout."""
        images = self.images.folder
        if images is None:
            return []
        masks = images if self.masks.folder is None else self.masks.folder
        names: dict[Split | None, str] = dict(self.splits.items()) or {None: ""}

        def placed(folder: str, name: str) -> PurePosixPath:
            return PurePosixPath(folder.replace(SPLIT_FIELD, name))

        return [(split, placed(images, name), placed(masks, name)) for split, name in names.items()]

    def is_mask(self, path: PurePosixPath) -> bool:
        """Return whether a file is a mask by its place and name; False in a known layout.

        Args:
            path: path of an image file below the data set's folder.
        """
        for _, images, masks in self.folders():
            if images == masks and path.is_relative_to(images):
                return self._ends_as_a_mask(path.name)
            if path.is_relative_to(masks):
                return not (images.is_relative_to(masks) and path.is_relative_to(images))
        return False

    def _ends_as_a_mask(self, name: str) -> bool:
        """Return which ending a file beside both has: the longer one decides."""
        if name_without(name, self.masks.ending) is None:
            return False
        is_image = name_without(name, self.images.ending) is not None
        return not is_image or len(self.masks.ending) > len(self.images.ending)


def name_without(name: str, ending: str) -> str | None:
    """Return the name of a file without its ending and suffix; None if it has another ending.

    >>> name_without("a_seg.png", "_seg"), name_without("a_seg.PNG", "_seg.png")
    ('a', 'a')
    >>> name_without("a.png", "_seg"), name_without("a.png", ".jpg")
    (None, None)
    """
    has_suffix = PurePosixPath("x" + ending).suffix.lower() in IMAGE_SUFFIXES
    stem = name if has_suffix else name.rpartition(".")[0]
    if not stem.lower().endswith(ending.lower()) or len(stem) == len(ending):
        return None
    return stem[: len(stem) - len(ending)]
