"""The data-set model: one image with its labels, and the images of one folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, NamedTuple

__all__ = ["SPLITS", "Dataset", "Ellipse", "Item", "Layout", "Split"]

Split = Literal["train", "test"]
Layout = Literal["released", "development", "folders", "kolektorsdd2"]

SPLITS: Final[tuple[Split, ...]] = ("train", "test")


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
    """The mask file; None when there is none. Folders and KolektorSDD2 have one for
    defect-free images, too: it is all zero."""
    ellipse: Ellipse | None
    """The weak label of the development layout."""
    class_id: int | None
    """The K of ClassK, 1..10 in DAGM2007; None in layouts without classes."""
    split: Split | None
    """Split of the data set; None if the layout has none."""


@dataclass(frozen=True)
class Dataset:
    """The images of one folder."""

    root: Path
    layout: Layout
    items: tuple[Item, ...]
    """Images, sorted by class, split (train first) and name; never empty."""
