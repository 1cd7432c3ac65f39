"""The data-set model: one image with its labels, and the images of one folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal, NamedTuple

__all__ = ["SPLITS", "Dataset", "Ellipse", "Item", "Layout", "MaskRule", "Missing", "Split"]

Split = Literal["train", "val", "test"]
"""Images to train on; to choose steps, threshold and min_area on; and to test on."""
Layout = Literal[
    "released",
    "development",
    "folders",
    "pairs",
    "kolektorsdd",
    "kolektorsdd2",
    "mvtec",
    "visa",
    "described",
]

Missing = Literal["good", "error"]
"""Meaning of an image without a mask: it shows a good part, or it is an error."""

SPLITS: Final[tuple[Split, ...]] = ("train", "val", "test")


@dataclass(frozen=True, slots=True)
class MaskRule:
    """Rule for the stored values of a mask that mean defect.

    Exactly one of ``non_zero``, ``threshold`` and ``values`` must be given.
    """

    non_zero: bool = False
    """Every value but zero means defect, in a coloured mask every colour but black."""
    threshold: int | None = None
    """Value above which a pixel is a defect; the only rule that accepts lossy files."""
    values: frozenset[int] | None = None
    """Values that mean defect; all others mean good."""
    inverted: bool = False
    """The rule finds the good pixels; all others are defects."""

    def __post_init__(self) -> None:
        if self.non_zero + (self.threshold is not None) + (self.values is not None) != 1:
            raise ValueError("a mask rule has one of non_zero, a threshold and values")


class Ellipse(NamedTuple):
    """A weak label: an ellipse drawn generously around a defect.

    With ``dx = column - (x - 1)``, ``dy = row - (y - 1)``, ``u = dx cos(angle) + dy sin(angle)``
    and ``v = dy cos(angle) - dx sin(angle)``, it covers ``(u / a)^2 + (v / b)^2 <= 1``. This rule
    gives the released masks to the pixel.
    """

    a: float
    """Semi-axis along ``angle``, pixels, > 0."""
    b: float
    """Semi-axis across ``angle``, pixels, > 0."""
    angle: float
    """Angle of the first axis, radians from the column axis towards the row axis."""
    x: float
    """Centre, columns counted from 1."""
    y: float
    """Centre, rows counted from 1."""


@dataclass(frozen=True, slots=True)
class Item:
    """One image and its labels."""

    image: Path
    """The image file; it has not been decoded."""
    defective: bool
    """True if the image shows a defect."""
    mask: Path | None
    """The mask file; None when there is none. Some layouts have one for defect-free images, too: it
    marks nothing."""
    ellipse: Ellipse | None
    """The weak label of the development layout."""
    class_id: int | None
    """The K of ClassK, 1..10 in DAGM2007; the number of the product, from 1, in MVTec AD and VisA;
    None in layouts without classes."""
    split: Split | None
    """Split of the data set; None if it has none."""
    rule: MaskRule | None = None
    """Rule by which the mask is read; None reads masks of one or two values."""
    defect_type: str | None = None
    """Type of all defects of the image, where its folder states it."""


@dataclass(frozen=True)
class Dataset:
    """The images of one folder."""

    root: Path
    layout: Layout
    items: tuple[Item, ...]
    """Images, sorted by class, split (train, val, test) and name; never empty."""
    bits: int | None = None
    """Depth of the camera whose values 16-bit files contain, 8..16; None leaves it to the files."""
    class_names: Mapping[int, str] = field(default_factory=dict)
    """Class -> name of the product, where the layout names its products."""
    defect_types: Mapping[int, str] = field(default_factory=dict)
    """Value in the masks -> name of the defect type, where the data set names them."""
