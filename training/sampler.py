"""The batch of any step, as a pure function of the seed and the step.

Nothing is carried from one step to the next, so a resumed run, or several processes that share a
batch, see exactly what one uninterrupted process sees.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from tinyunet_deploy.data.tiles import Tiling, mirrored_window
from training.recipe import Augment, Recipe
from training.sources import Example, Source

__all__ = ["Sampler"]

# The words after the seed that keep the random streams of a run apart; int8_steps has 3.
_AUGMENTATION, _ORDER, _BLEND = 1, 2, 4
_APART = 1 << 40
"""Distance of the two images of a blend in the order of their source: no step gets so far."""


class Sampler:
    """Draws augmented crops.

    An image that the model would see extended by mirroring is extended in the same way: its crops
    reach beyond its edge by up to half their side. Without them, a network takes the edge of a part
    and its reflection, which no other crop shows, for a defect.

    The images of a run are numbered 0, 1, 2, ... over all steps. Number ``p`` decides everything:
    sources take turns, defective and defect-free images alternate in the recipe's proportion,
    each kind is walked in an order that is drawn anew for every pass, and the augmentation is drawn
    from a generator seeded with (seed, p).
    """

    def __init__(self, sources: Sequence[Source], recipe: Recipe, tiling: Tiling) -> None:
        """Take the images.

        Args:
            tiling: how the model takes images of another size than its own.
        """
        self._sources = sources
        self._recipe = recipe
        self._tiling = tiling

    def batch(self, step: int, part: slice = slice(None)) -> tuple[NDArray[np.uint8], ...]:
        """Draw the images of one step and what they are compared with.

        Args:
            step: 0 for the first.
            part: indices of the images in the batch; one of several processes takes its share.

        Returns:
            uint8 [N, 1, crop, crop] grey values and uint8 [N, 1, crop, crop] of {0, 1}, the masks.
            With a teacher also uint8 [N, 1, crop, crop], its scores, unless it scores crops, and
            uint8 [N], 1 for an image with a label and 0 for one without, whose mask says nothing.
        """
        first = step * self._recipe.batch
        positions = range(first, first + self._recipe.batch)[part]
        crops = [self._draw(position) for position in positions]
        images, masks, *scores = (np.stack(planes)[:, None] for planes in zip(*crops, strict=True))
        masks >>= np.uint8(7)
        if not scores and self._recipe.teacher_of == "images":
            return images, masks
        labelled = [
            not self._blend(image, position) and self._is_labelled(position)
            for (image,), position in zip(images, positions, strict=True)
        ]
        return images, masks, *scores, np.array(labelled, np.uint8)

    def _blend(self, image: NDArray[np.uint8], position: int) -> bool:
        """Blend the crop of a position, in place, with another of its source, or leave it.

        Returns:
            Whether it was blended, so that no label fits it.
        """
        mixed = self._recipe.augment.mixed
        if not mixed:
            return False
        rng = np.random.default_rng((self._recipe.seed, _BLEND, position))
        if rng.random() >= mixed:
            return False
        other, *_ = self._draw(position + len(self._sources) * _APART)
        weight = rng.random()
        image[:] = np.rint(weight * image + (1.0 - weight) * other)
        return True

    def _draw(self, position: int) -> list[NDArray[np.uint8]]:
        """Draw one crop of an image, its mask, and the teacher's score if it has one."""
        example = self._example(position)
        rng = np.random.default_rng((self._recipe.seed, _AUGMENTATION, position))
        y, x = self._corner(example, rng)
        side, augment = self._recipe.data.crop, self._recipe.augment
        planes = [example.image, example.mask]
        planes += [] if example.score is None else [example.score]
        if augment.warped and rng.random() < augment.warped:
            crops = _warped_crops(planes, y, x, side, augment, rng)
        else:
            crops = [mirrored_window(pixels, y, x, side, side) for pixels in planes]
        return _augmented(crops, augment, rng)

    def _corner(self, example: Example, rng: np.random.Generator) -> tuple[int, int]:
        """Draw the upper left corner of a crop, row and column."""
        side = self._recipe.data.crop
        extended = np.array(self._tiling.extended(example.image.shape))
        beyond = np.array(example.image.shape) + side // 2
        largest = np.maximum(np.minimum(extended, beyond) - side, 0)
        corner = rng.integers(0, largest + 1)
        if example.defect_yx is not None and rng.random() < self._recipe.data.crop_on_defect:
            pixel = example.defect_yx[rng.integers(len(example.defect_yx))]
            margin = self._recipe.data.defect_margin
            corner = np.clip(pixel - rng.integers(margin, side - margin, size=2), 0, largest)
        return int(corner[0]), int(corner[1])

    def _example(self, position: int) -> Example:
        turn, number = position % len(self._sources), position // len(self._sources)
        source = self._sources[turn]
        if source.unlabelled:
            return self._walk(source.unlabelled, number, (turn, 2))
        share = self._recipe.data.defect_free if source.defect_free else 0.0
        clean_so_far = int(number * share)
        if int((number + 1) * share) > clean_so_far:
            return self._walk(source.defect_free, clean_so_far, (turn, 0))
        return self._walk(source.defective, number - clean_so_far, (turn, 1))

    def _is_labelled(self, position: int) -> bool:
        return not self._sources[position % len(self._sources)].unlabelled

    def _walk(self, examples: tuple[Example, ...], number: int, stream: tuple[int, int]) -> Example:
        """Return example ``number`` of an endless series of passes, each in its own order."""
        lap, place = divmod(number, len(examples))
        order = np.random.default_rng((self._recipe.seed, _ORDER, *stream, lap))
        index = int(order.permutation(len(examples))[place])
        return examples[index]


def _warped_crops(
    planes: Sequence[NDArray[np.uint8]],
    y: int,
    x: int,
    side: int,
    augment: Augment,
    rng: np.random.Generator,
) -> list[NDArray[np.uint8]]:
    """Cut crops out of planes of one size that are scaled and rotated alike around their centre.

    The first plane, the image, is interpolated bicubically, which blurs it less than bilinearly.
    """
    scale = (1.0 + augment.scale) ** rng.uniform(-1.0, 1.0)
    angle = rng.uniform(-augment.angle, augment.angle)
    margin = math.ceil(side * (math.sqrt(2.0) * (1.0 + augment.scale) - 1.0) / 2.0) + 2
    top, left = max(y - margin, 0), max(x - margin, 0)
    middle = (side - 1) / 2.0
    centre = (x - left + middle, y - top + middle)
    matrix = cv2.getRotationMatrix2D(centre, angle, scale)
    matrix = matrix - np.outer(np.subtract(centre, middle), (0.0, 0.0, 1.0))
    return [
        cv2.warpAffine(
            mirrored_window(plane, top, left, side + 2 * margin, side + 2 * margin),
            matrix,
            (side, side),
            flags=cv2.INTER_LINEAR if number else cv2.INTER_CUBIC,
            borderMode=cv2.BORDER_REFLECT_101,
        ).astype(np.uint8, copy=False)
        for number, plane in enumerate(planes)
    ]


def _augmented(
    planes: Sequence[NDArray[np.uint8]], augment: Augment, rng: np.random.Generator
) -> list[NDArray[np.uint8]]:
    """Turn and flip planes of one size alike; change the grey values of the first, the image."""
    turns = augment.rotations[rng.integers(len(augment.rotations))] // 90
    image, *others = (np.rot90(plane, turns) for plane in planes)
    if rng.random() < augment.flip_horizontal:
        image, *others = (plane[:, ::-1] for plane in (image, *others))
    if rng.random() < augment.flip_vertical:
        image, *others = (plane[::-1] for plane in (image, *others))
    if augment.contrast or augment.brightness:
        scale = rng.uniform(1.0 - augment.contrast, 1.0 + augment.contrast)
        shift = rng.uniform(-augment.brightness, augment.brightness)
        table = (np.arange(256) - 127.5) * scale + 127.5 + shift
        image = np.clip(np.rint(table), 0, 255).astype(np.uint8)[image]
    return [image, *others]
