"""Count the images of a data set beside the numbers that were published for DAGM2007."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any, NamedTuple

from tinyunet_deploy.data.dataset import Dataset, Split
from tinyunet_deploy.data.layouts.released import PUBLISHED_COUNTS

__all__ = ["SplitCount", "count_splits"]


class SplitCount(NamedTuple):
    """Images of one class and split, and how many the release contains."""

    class_id: int | None
    """Number of the class; None for a user's own images."""
    split: Split | None
    """Split of the data set; None if the layout has none."""
    images: int
    defective: int
    published: tuple[int, int] | None
    """Images and defective images in the release; None if it has no such class and split."""

    @property
    def against_published(self) -> str:
        """``complete``, ``subset`` or ``not the release``; empty without published numbers."""
        if self.published is None:
            return ""
        if (self.images, self.defective) == self.published:
            return "complete"
        subset = self.images <= self.published[0] and self.defective <= self.published[1]
        return "subset" if subset else "not the release"


def count_splits(dataset: Dataset) -> list[SplitCount]:
    """Count the images of each class and split, in the order of the data set."""
    published: Mapping[Any, tuple[int, int]] = (
        PUBLISHED_COUNTS if dataset.layout == "released" else {}
    )
    images = Counter((item.class_id, item.split) for item in dataset.items)
    defective = Counter((item.class_id, item.split) for item in dataset.items if item.defective)
    return [
        SplitCount(*key, count, defective[key], published.get(key)) for key, count in images.items()
    ]
