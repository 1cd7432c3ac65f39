"""One synthetic image of a class, with its defect, its exact mask and its weak label.

Every image is a pure function of (class, index, seed, size). A class is a shape, which draws the
defect as a weight map, and a texture, which renders the grey image under that map. A defect-free
image is the same texture under a map of zeros.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tinyunet_deploy.contract import Image, Mask
from tinyunet_deploy.data.dataset import Ellipse
from tinyunet_deploy.data.masks import ellipse_mask
from tinyunet_deploy.data.synthetic import shapes, textures
from tinyunet_deploy.data.synthetic.noise import FloatImage, Rng, seed_sequence

__all__ = ["CLASSES", "Sample", "check_arguments", "sample", "weak_label"]

CLASSES: Final = range(1, 11)
_TRUTH: Final = 0.25
"""Weight above which a pixel counts as defect in the exact mask."""


class Sample(NamedTuple):
    """One image with its labels; without a defect all but the image are None."""

    image: Image
    """uint8 [size, size]: grey values."""
    label: Mask | None
    """uint8 [size, size], {0, 255}: the weak label, the ellipse as pixels."""
    truth: Mask | None
    """uint8 [size, size], {0, 255}: the exact defect pixels, all inside the ellipse."""
    ellipse: Ellipse | None
    """The weak label, drawn generously around the defect; it may reach beyond the image."""


class _Recipe(NamedTuple):
    """Texture and defect of one class, and how loose its labels are."""

    texture: Callable[[Rng, FloatImage], FloatImage]
    shape: Callable[[Rng, int], FloatImage]
    slim: float
    """Least ratio of the semi-axes of a label."""
    loose: float
    """Largest scale of a label over an ellipse that just encloses the defect."""


_RECIPES: Final = {
    1: _Recipe(textures.moire, shapes.blemish, slim=0.3, loose=1.7),
    2: _Recipe(textures.streaks, shapes.thread, slim=0.2, loose=1.25),
    3: _Recipe(textures.cloth, shapes.dots, slim=0.3, loose=2.2),
    4: _Recipe(textures.star, shapes.scratch, slim=0.25, loose=1.15),
    5: _Recipe(textures.grain, shapes.stripes, slim=0.4, loose=1.5),
    6: _Recipe(textures.speckle, shapes.band, slim=0.1, loose=1.15),
    7: _Recipe(textures.strokes, shapes.stain, slim=0.3, loose=1.3),
    8: _Recipe(textures.bands, shapes.hair, slim=0.2, loose=1.3),
    9: _Recipe(textures.blotches, shapes.ring, slim=0.4, loose=1.4),
    10: _Recipe(textures.funnel, shapes.crack, slim=0.2, loose=1.2),
}


def _enclose(truth: NDArray[np.bool_], rng: Rng, slim: float, loose: float) -> Ellipse:
    """Draw a generous ellipse that contains every true pixel of bool [size, size]."""
    rows, cols = np.nonzero(truth)
    dx, dy = cols - cols.mean(), rows - rows.mean()
    angle = 0.5 * float(np.arctan2(2 * (dx * dy).mean(), (dx * dx).mean() - (dy * dy).mean()))
    angle += rng.normal(0, 0.05)
    u, v = dx * np.cos(angle) + dy * np.sin(angle), dy * np.cos(angle) - dx * np.sin(angle)
    mid_u, mid_v = (u.min() + u.max()) / 2, (v.min() + v.max()) / 2
    a = max(float(np.ptp(u)) / 2, 2.0) * rng.uniform(1.0, 1.3)
    b = max(float(np.ptp(v)) / 2, 2.0, slim * a) * rng.uniform(1.0, 1.6)
    mid_u, mid_v = mid_u + rng.normal(0, 0.08) * a, mid_v + rng.normal(0, 0.08) * b
    reach = float(np.hypot((u - mid_u) / a, (v - mid_v) / b).max()) * rng.uniform(1.04, loose)
    x = cols.mean() + mid_u * np.cos(angle) - mid_v * np.sin(angle) + 1
    y = rows.mean() + mid_u * np.sin(angle) + mid_v * np.cos(angle) + 1
    return Ellipse(a * reach, b * reach, angle, float(x), float(y))


def weak_label(class_id: int, truth: NDArray[np.generic], rng: np.random.Generator) -> Ellipse:
    """Draw the label of a class around a defect: an ellipse that contains all of it.

    Args:
        class_id: 1 to 10; classes differ in how loose their labels are.
        truth: [H, W], not zero where the defect is.
        rng: source of the draw.
    """
    recipe = _RECIPES[class_id]
    return _enclose(truth != 0, rng, recipe.slim, recipe.loose)


def check_arguments(classes: Sequence[int], size: int, seed: int) -> None:
    """Check the arguments that a single image and a data set have in common.

    Raises:
        ValueError: an argument is out of its range.
    """
    for class_id in classes:
        if class_id not in CLASSES:
            raise ValueError(f"the class must be one of 1 to 10, not {class_id}")
    if size < 64 or size % 16:
        raise ValueError(f"the size must be a multiple of 16 and at least 64, not {size}")
    if seed < 0:
        raise ValueError(f"the seed must not be negative: {seed}")


def sample(class_id: int, index: int, *, defective: bool, seed: int = 0, size: int = 512) -> Sample:
    """Make one image of a class, always the same for the same arguments.

    Args:
        class_id: 1 to 10.
        index: number of the image, from 0.
        defective: add a defect; nothing else in the image changes.
        seed: another seed gives other images; not negative.
        size: height and width in pixels, a multiple of 16 and at least 64.

    Raises:
        ValueError: an argument is out of its range.
    """
    check_arguments([class_id], size, seed)
    if index < 0:
        raise ValueError(f"the index must not be negative: {index}")
    recipe = _RECIPES[class_id]
    words = (seed, class_id, index, size)
    background, flaw = (np.random.default_rng(s) for s in seed_sequence(*words).spawn(2))
    weight = recipe.shape(flaw, size) if defective else np.zeros((size, size), np.float32)
    image = np.clip(np.rint(recipe.texture(background, weight)), 0, 255).astype(np.uint8)
    if not defective:
        return Sample(image, None, None, None)
    truth = weight > _TRUTH
    ellipse = weak_label(class_id, truth, flaw)
    label = ellipse_mask(*ellipse, image.shape)
    return Sample(image, label, np.where(truth, 255, 0).astype(np.uint8), ellipse)
