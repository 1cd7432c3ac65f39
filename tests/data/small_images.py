"""Small images and masks, and putting them into a folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tinyunet_deploy.data.encoding import write_png

SHAPE = (24, 16)
SPOT = np.zeros(SHAPE, np.uint8)
"""A mask of one defect."""
SPOT[4:12, 4:12] = 255


def grey(value: int = 0) -> NDArray[np.uint8]:
    """An image of one grey value."""
    return np.full(SHAPE, value, np.uint8)


def put(path: Path, array: NDArray[np.uint8]) -> Path:
    """Write an image, and the folders that it needs."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_png(path, array)
    return path
