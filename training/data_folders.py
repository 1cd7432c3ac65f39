"""The data of a run as its command line names them: folders, classes and bit depth."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from training.recipe import Recipe
from training.sources import Source, read_source, read_unlabelled

__all__ = ["DataFolders"]


@dataclass(frozen=True)
class DataFolders:
    """The arguments with which the images of a run are read, so that they can be read again."""

    folders: tuple[Path, ...]
    """Folders of images and masks; one that is named twice takes two turns."""
    classes: tuple[int, ...] | None = None
    """Classes that are used; None uses all."""
    bits: int | None = None
    """Depth of the camera whose values 16-bit files contain; None leaves it to the files."""
    unlabelled: tuple[Path, ...] = ()
    """Folders of images without labels, for which a teacher says what is a defect."""

    def read(self, recipe: Recipe) -> list[Source]:
        """Decode the training images of every folder, each folder with labels once.

        Raises:
            DataError: a folder has no usable training image, or a bad file.
        """
        read = functools.cache(
            functools.partial(read_source, classes=self.classes, recipe=recipe, bits=self.bits)
        )
        unlabelled = [read_unlabelled(folder, self.bits) for folder in self.unlabelled]
        return [*map(read, self.folders), *unlabelled]

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON, with absolute paths."""
        return {
            "folders": [str(folder.resolve()) for folder in self.folders],
            "classes": None if self.classes is None else list(self.classes),
            "bits": self.bits,
            "unlabelled": [str(folder.resolve()) for folder in self.unlabelled],
        }

    @classmethod
    def of(cls, values: Any) -> Self:
        """Return the folders of :meth:`as_dict`.

        Raises:
            ValueError: the values are not those of a run.
        """
        match values:
            case {
                "folders": [str(), *_] as folders,
                "classes": list() | None as classes,
                "bits": int() | None as bits,
                "unlabelled": list() as unlabelled,
            } if all(isinstance(folder, str) for folder in unlabelled):
                chosen = None if classes is None else tuple(map(int, classes))
                return cls(tuple(map(Path, folders)), chosen, bits, tuple(map(Path, unlabelled)))
        raise ValueError("it does not name the folders of its data")
