"""Count how many defects of each type are found, where the truth has types."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from tinyunet_deploy.contract import Mask, Score
from tinyunet_deploy.data.dataset import Item
from tinyunet_deploy.data.masks import read_mask_values
from tinyunet_deploy.inspection.defects import TrueDefect, Verdict, compare_with_truth
from tinyunet_deploy.quality.confidence import clopper_pearson_upper

__all__ = ["TypeRecall", "TypedDefects", "recall_by_type", "typed_defects"]

TypedDefects = Mapping[str, Sequence[TrueDefect]]
"""Defect type -> the defects of that type in one image."""


class TypeRecall(NamedTuple):
    """Found and all defects and parts of one defect type."""

    type: str
    defects: int
    """Number of defects of this type in the truth."""
    hit: int
    """Number of these that share a pixel with a defect that was found."""
    parts: int
    """Number of parts with such a defect."""
    escapes: int
    """Number of these parts with verdict OK."""

    @property
    def recall(self) -> float:
        """Share of the defects that was hit, 0..1."""
        return self.hit / self.defects

    @property
    def recall_lower_95(self) -> float:
        """One-sided 95 % lower bound of the recall (Clopper & Pearson 1934)."""
        return 1 - clopper_pearson_upper(self.defects - self.hit, self.defects)

    @property
    def escape_rate_upper_95(self) -> float:
        """One-sided 95 % upper bound of the escapes among such parts (Clopper & Pearson 1934)."""
        return clopper_pearson_upper(self.escapes, self.parts)

    def as_fields(self) -> dict[str, Any]:
        """Return counts and figures for JSON."""
        return {
            **self._asdict(),
            "recall": self.recall,
            "recall_lower_95": self.recall_lower_95,
            "escape_rate": self.escapes / self.parts,
            "escape_rate_upper_95": self.escape_rate_upper_95,
        }


def typed_defects(
    item: Item,
    names: Mapping[int, str],
    score: Score,
    truth: Mask,
    threshold: float,
    min_area: int,
) -> TypedDefects:
    """Match the defects of one image with the score, each type by itself.

    The type is the item's, else the value in the mask. Defects of two types that touch are two
    defects here, but one where types do not matter.

    Args:
        names: value in a mask -> name of the type; a value without one is ``value N``.
        score, truth: uint8 [H, W].
        threshold, min_area: as for :func:`~tinyunet_deploy.inspection.defects.find_defects`.

    Returns:
        Empty for a good part, and where the truth has no types.
    """
    if not truth.any():
        return {}
    masks = (
        {item.defect_type: truth} if item.defect_type is not None else _masks(item, names, truth)
    )
    return {
        name: compare_with_truth(score, mask, threshold, min_area).truth
        for name, mask in masks.items()
    }


def _masks(item: Item, names: Mapping[int, str], truth: Mask) -> dict[str, Mask]:
    """Return type -> its part of the truth."""
    has_types = item.rule is not None and item.rule.threshold is None and not item.rule.inverted
    if item.mask is None or not (names or has_types):
        return {}
    values = read_mask_values(item.mask)
    if values is None:
        return {}
    return {
        names.get(value, f"value {value}"): np.where(values == value, truth, np.uint8(0))
        for value in np.unique(values[truth != 0]).tolist()
    }


def recall_by_type(images: Sequence[TypedDefects], verdicts: Sequence[Verdict]) -> list[TypeRecall]:
    """Count defects and parts of each type, sorted by name.

    Args:
        images: typed defects of each image.
        verdicts: verdict on each image.

    Returns:
        Empty if no image has types.
    """
    rows = []
    for name in sorted({name for image in images for name in image}):
        of_type = [
            (image[name], verdict)
            for image, verdict in zip(images, verdicts, strict=True)
            if name in image
        ]
        defects = [defect for image, _ in of_type for defect in image]
        rows.append(
            TypeRecall(
                type=name,
                defects=len(defects),
                hit=sum(defect.hit for defect in defects),
                parts=len(of_type),
                escapes=sum(verdict == "OK" for _, verdict in of_type),
            )
        )
    return rows
