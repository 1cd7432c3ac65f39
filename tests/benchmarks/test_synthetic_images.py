from __future__ import annotations

import numpy as np

from benchmarks.synthetic_images import draw_images
from tinyunet_deploy.data import synthetic


def test_images_have_the_asked_size_and_every_nth_a_defect() -> None:
    images = draw_images(12, 48, 64, defective_every=3)
    assert images.shape == (12, 1, 48, 64) and images.dtype == np.uint8
    for index in range(12):
        class_id = (1, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4, 4)[index]
        wanted = synthetic.sample(class_id, index, defective=index in (0, 3, 6, 9), size=64).image
        assert np.array_equal(images[index, 0], wanted[:48])
