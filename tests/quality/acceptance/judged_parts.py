"""Parts whose grey values are their scores, judged by a fake backend."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tinyunet_deploy.contract import Contract
from tinyunet_deploy.data.encoding import write_png
from tinyunet_deploy.data.layouts import read_dataset
from tinyunet_deploy.quality.evaluation import Evaluation, evaluate
from tinyunet_deploy.testing.fake_backend import FakeBackend

__all__ = ["backend", "judge_parts", "square", "write_part"]

SIZE = 32


def square(value: int, side: int = 8) -> NDArray[np.uint8]:
    """Return a black image with a square."""
    image = np.zeros((SIZE, SIZE), np.uint8)
    image[4 : 4 + side, 4 : 4 + side] = value
    return image


def write_part(
    root: Path, name: str, image: NDArray[np.uint8], mask: NDArray[np.uint8] | None = None
) -> None:
    """Write a part; without a mask it is a good one."""
    for folder, array in (("images", image), ("masks", square(0) if mask is None else mask)):
        (root / folder).mkdir(parents=True, exist_ok=True)
        write_png(root / folder / f"{name}.png", array)


def backend(threshold: float = 0.5) -> FakeBackend:
    """Return a model that gives each image back as its scores."""
    return FakeBackend(contract=Contract(SIZE, SIZE), threshold=threshold)


def judge_parts(
    root: Path,
    good: Mapping[str, int],
    defective: Mapping[str, int],
    *,
    threshold: float = 0.5,
    min_area: int = 1,
) -> Evaluation:
    """Write and judge parts.

    Args:
        good, defective: name of a part -> grey value of its square, which is a defect of 64 pixels
            in the defective ones.
    """
    for name, value in good.items():
        write_part(root, name, square(value))
    for name, value in defective.items():
        write_part(root, name, square(value), square(255))
    return evaluate(
        read_dataset(root),
        backend(threshold),
        threshold=threshold,
        min_area=min_area,
        batch_size=2,
        workers=1,
        with_statistics=True,
    )
