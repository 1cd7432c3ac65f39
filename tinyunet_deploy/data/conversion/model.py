"""The annotations of a data set, as the readers of all formats give them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["FORMATS", "AnnotatedImage", "AnnotatedSet", "Annotation", "Bitmap", "Format", "Outline"]

Format = Literal["coco", "yolo", "labelme", "cvat"]
FORMATS: Final[tuple[Format, ...]] = ("coco", "yolo", "labelme", "cvat")

SplitName = Literal["train", "val", "test"]


class Outline(NamedTuple):
    """The area inside a closed polygon."""

    corners: NDArray[np.float64]
    """x, y of each corner, [N, 2], N >= 3, pixels: (0, 0) is the outer corner of the top left
    pixel, whose centre is (0.5, 0.5)."""


class Bitmap(NamedTuple):
    """The true pixels of a small mask that lies in the image."""

    pixels: NDArray[np.bool_]
    """[h, w]."""
    left: int
    """Column of the mask's first pixel in the image."""
    top: int
    """Row of the mask's first pixel in the image."""


@dataclass(frozen=True, slots=True)
class Annotation:
    """One annotated defect: the union of its areas."""

    label: str
    """Name of the defect type."""
    areas: tuple[Outline | Bitmap, ...]
    """At least one."""
    where: str
    """The annotation's place in its file, such as ``annotation 17``, for errors."""


@dataclass(frozen=True, slots=True)
class AnnotatedImage:
    """One image with its annotations."""

    image: Path
    """The image file; it exists."""
    source: Path
    """The file that contains the annotations, for errors."""
    name: str
    """Path of the image in the converted data set, below images/, with ``/``."""
    split: SplitName | None
    """None where the source has no splits."""
    size: tuple[int, int] | None
    """(height, width) that the annotations state; None where the format does not."""
    annotations: tuple[Annotation, ...]
    """None for a good part."""
    labelled: bool = True
    """False if no entry and no file says anything about the image."""


@dataclass(frozen=True)
class AnnotatedSet:
    """The annotations of one data set."""

    format: Format
    labels: tuple[str, ...]
    """Names of the defect types, in the order in which the source declares them, else sorted."""
    images: tuple[AnnotatedImage, ...]
    """Sorted by split and name."""
