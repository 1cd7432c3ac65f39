"""Images in memory, and the batch of any step as a pure function of the seed and the step.

Nothing is carried from one step to the next, so a resumed run, or several processes that share a
batch, see exactly what one uninterrupted process sees.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tinyunet_deploy.artifacts.sidecar import digest
from tinyunet_deploy.contract import Image, Mask
from tinyunet_deploy.data.dataset import Item
from tinyunet_deploy.data.decoding import read_image
from tinyunet_deploy.data.layouts import read_dataset
from tinyunet_deploy.data.masks import read_mask
from tinyunet_deploy.errors import DataError
from tinyunet_deploy.host import processor_count
from training.recipe import Recipe


@dataclass(frozen=True)
class Example:
    """One decoded image with its truth."""

    item: Item
    image: Image
    mask: Mask
    """uint8 [H, W], {0, 255}."""
    defect_yx: NDArray[np.int32] | None
    """int32 [K, 2], some pixels of the defect; None for a defect-free image."""


@dataclass(frozen=True)
class Source:
    """One data folder's images, split into those that train and those that validate."""

    name: str
    """The folder's own name."""
    defective: tuple[Example, ...]
    defect_free: tuple[Example, ...]
    validation: tuple[Example, ...]


def read_source(root: Path, classes: Sequence[int] | None, recipe: Recipe) -> Source:
    """Decode the Train part of a data folder into memory.

    Raises:
        DataError: no usable training image, a crop larger than an image, a bad mask.
    """
    items = read_dataset(root, classes=classes, split="train").items
    with ThreadPoolExecutor(processor_count()) as pool:
        examples = list(pool.map(_read_example, items))
    for example in examples:
        if min(example.image.shape) < recipe.data.crop:
            height, width = example.image.shape
            raise DataError(
                example.item.image,
                f"has {width}x{height} pixels, fewer than the recipe's crop of {recipe.data.crop}",
                "set a smaller [data] crop",
            )
    validation = set(_held_apart(items, recipe.data.validation))
    training = [example for example in examples if example.item not in validation]
    defective = tuple(example for example in training if example.item.defective)
    defect_free = tuple(example for example in training if not example.item.defective)
    if not defective:
        raise DataError(root, "holds no defective image to train on")
    if recipe.data.defect_free and not defect_free:
        raise DataError(root, "holds no defect-free image", "set [data] defect_free = 0")
    held_apart = tuple(example for example in examples if example.item in validation)
    return Source(root.resolve().name, defective, defect_free, held_apart)


def different(sources: Sequence[Source]) -> list[Source]:
    """Each source once, though it may take several turns."""
    return list({id(source): source for source in sources}.values())


def sources_digest(sources: Sequence[Source]) -> str:
    """sha256 over the pixels of all images and masks, in order."""
    known = {
        id(source): "".join(
            digest(example.image.tobytes() + example.mask.tobytes())
            for example in (*source.defective, *source.defect_free, *source.validation)
        )
        for source in different(sources)
    }
    return digest("".join(known[id(source)] for source in sources).encode())


class Sampler:
    """Draws augmented crops.

    The images of a run are numbered 0, 1, 2, ... over all steps. Number ``p`` decides everything:
    sources take turns, defective and defect-free images alternate in the recipe's proportion,
    each of the two is walked in an order drawn anew for every pass, and the augmentation is drawn
    from a generator seeded with (seed, p).
    """

    def __init__(self, sources: Sequence[Source], recipe: Recipe) -> None:
        self._sources = sources
        self._recipe = recipe

    def batch(
        self, step: int, part: slice = slice(None)
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Images and masks of one step.

        Args:
            step: 0 for the first.
            part: which of the batch's images; a process of several takes its share.

        Returns:
            uint8 [N, 1, crop, crop] grey values and uint8 [N, 1, crop, crop] of {0, 1}.
        """
        first = step * self._recipe.batch
        positions = range(first, first + self._recipe.batch)[part]
        pairs = [self._crop(position) for position in positions]
        images = np.stack([image for image, _ in pairs])[:, None]
        masks = np.stack([mask for _, mask in pairs])[:, None]
        return images, masks >> 7

    def _crop(self, position: int) -> tuple[Image, Mask]:
        recipe = self._recipe
        example = self._example(position)
        rng = np.random.default_rng((recipe.seed, 1, position))
        side = recipe.data.crop
        rooms = np.array(example.image.shape) - side
        corner = rng.integers(0, rooms + 1)
        if example.defect_yx is not None and rng.random() < recipe.data.crop_on_defect:
            pixel = example.defect_yx[rng.integers(len(example.defect_yx))]
            margin = recipe.data.defect_margin
            corner = np.clip(pixel - rng.integers(margin, side - margin, size=2), 0, rooms)
        y, x = corner
        image, mask = (a[y : y + side, x : x + side] for a in (example.image, example.mask))
        augment = recipe.augment
        turns = augment.rotations[rng.integers(len(augment.rotations))] // 90
        image, mask = np.rot90(image, turns), np.rot90(mask, turns)
        if rng.random() < augment.flip_horizontal:
            image, mask = image[:, ::-1], mask[:, ::-1]
        if rng.random() < augment.flip_vertical:
            image, mask = image[::-1], mask[::-1]
        if augment.contrast or augment.brightness:
            scale = rng.uniform(1.0 - augment.contrast, 1.0 + augment.contrast)
            shift = rng.uniform(-augment.brightness, augment.brightness)
            table = (np.arange(256) - 127.5) * scale + 127.5 + shift
            image = np.clip(np.rint(table), 0, 255).astype(np.uint8)[image]
        return image, mask

    def _example(self, position: int) -> Example:
        turn, number = position % len(self._sources), position // len(self._sources)
        source = self._sources[turn]
        share = self._recipe.data.defect_free
        clean_so_far = int(number * share)
        if int((number + 1) * share) > clean_so_far:
            return self._walk(source.defect_free, clean_so_far, (turn, 0))
        return self._walk(source.defective, number - clean_so_far, (turn, 1))

    def _walk(self, examples: tuple[Example, ...], number: int, which: tuple[int, int]) -> Example:
        lap, place = divmod(number, len(examples))
        order = np.random.default_rng((self._recipe.seed, 2, *which, lap))
        return examples[order.permutation(len(examples))[place]]


def _read_example(item: Item) -> Example:
    image = read_image(item.image)
    mask = read_mask(item, image.shape)
    pixels = None
    if item.defective and mask.any():
        yx = np.argwhere(mask).astype(np.int32)
        pixels = yx[:: max(1, len(yx) // 256)]
    return Example(item, image, mask, pixels)


def _held_apart(items: Sequence[Item], share: float) -> list[Item]:
    """The same share of each class, defective and defect-free, by a draw that the names decide."""
    groups: dict[tuple[int | None, bool], list[Item]] = defaultdict(list)
    for item in items:
        groups[item.class_id, item.defective].append(item)
    held = []
    for group in groups.values():
        drawn = sorted(group, key=lambda item: digest(item.image.name.encode()))
        held += drawn[: round(share * len(group))]
    return held
