"""The layout of the DAGM2007 release of 2007: ClassK_def with ellipses, ClassK without defects."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from pathlib import Path

from tinyunet_deploy.data.dataset import Ellipse, Item
from tinyunet_deploy.data.layouts.listing import (
    comma_separated,
    file_in,
    images_in,
    label_fields,
    label_lines,
)
from tinyunet_deploy.errors import DataError

__all__ = ["read_development"]


def read_development(
    defective: dict[int, Path], defect_free: dict[int, Path], classes: Collection[int] | None
) -> Iterator[Item]:
    """List the images of the development layout, by class, defect-free ones first.

    Args:
        defective, defect_free: class -> folder ``ClassK_def`` and ``ClassK``.
        classes: list only these; None lists all.

    Raises:
        DataError: an image has no ellipse, an ellipse has no image, or a line is malformed.
    """
    for class_id in sorted(defective.keys() | defect_free.keys()):
        if classes is not None and class_id not in classes:
            continue
        if class_id in defect_free:
            for image in images_in(defect_free[class_id]).values():
                yield Item(image, False, None, None, class_id, None)
        if class_id not in defective:
            continue
        folder = defective[class_id]
        images = images_in(folder).values()
        labels_txt = file_in(folder, "labels.txt")
        if labels_txt is None and images:
            usable = [k for k in sorted(defective) if file_in(defective[k], "labels.txt")]
            choice = (
                f", or choose classes that have it: {comma_separated(usable)}" if usable else ""
            )
            raise DataError(
                folder / "labels.txt",
                "is missing, so nothing says where the defects are",
                f"add it{choice}",
            )
        ellipses = {} if labels_txt is None else _read_ellipses(labels_txt)
        for image in images:
            ellipse = ellipses.pop(int(image.stem), None) if image.stem.isdecimal() else None
            if ellipse is None:
                raise DataError(
                    image, "is defective, but labels.txt has no ellipse for it", "add its line"
                )
            yield Item(image, True, None, ellipse, class_id, None)
        for index in ellipses:
            raise DataError(folder / "labels.txt", f"lists {index}, but there is no {index}.png")


def _read_ellipses(path: Path) -> dict[int, Ellipse]:
    """Return image number -> ellipse."""
    ellipses: dict[int, Ellipse] = {}
    for number, line in enumerate(label_lines(path), start=1):
        where = f"{path}:{number}"
        try:
            index, *values = label_fields(line)
            a, b, angle, x, y = map(float, values)
            ellipse = Ellipse(a, b, angle, x, y)
            key = int(index)
        except ValueError as error:
            raise DataError(
                where,
                f"is not an ellipse: {line[:60]!r}",
                "expected number, semi-axes a and b, angle, x, y, separated by tabs",
            ) from error
        if not all(map(math.isfinite, ellipse)) or a <= 0 or b <= 0:
            raise DataError(where, f"ellipse {line[:60]!r} is not finite or has an axis <= 0")
        if key in ellipses:
            raise DataError(where, f"image {key} is listed a second time")
        ellipses[key] = ellipse
    return ellipses
