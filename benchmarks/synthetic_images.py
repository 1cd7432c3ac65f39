"""Draw the synthetic images that are used for measurements."""

from __future__ import annotations

import numpy as np

from tinyunet_deploy.contract import Batch
from tinyunet_deploy.data import synthetic

__all__ = ["draw_images"]


def draw_images(count: int, height: int, width: int, *, defective_every: int) -> Batch:
    """Draw synthetic images of the ten classes, each with defects and without.

    Args:
        defective_every: images 0, n, 2n, ... have a defect, and each begins the next class; 1 gives
            every image one.

    Returns:
        uint8 [count, 1, height, width], the same for the same arguments.
    """
    images = np.empty((count, 1, height, width), np.uint8)
    for index in range(count):
        defective = index % defective_every == 0
        class_id = synthetic.CLASSES[index // defective_every % len(synthetic.CLASSES)]
        drawn = synthetic.sample(class_id, index, defective=defective, size=max(height, width))
        images[index, 0] = drawn.image[:height, :width]
    return images
