"""The images that decide about an int8 file: three lots of training images that never overlap."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from tinyunet_deploy.artifacts.sidecar import digest
from tinyunet_deploy.contract import Contract, Image, Mask
from tinyunet_deploy.data import synthetic
from tinyunet_deploy.data.dataset import Item
from tinyunet_deploy.data.decoding import read_image
from tinyunet_deploy.data.layouts import read_dataset
from tinyunet_deploy.data.masks import read_mask
from tinyunet_deploy.errors import DataError, ImageError

SEED: Final = 0
CALIBRATION_IMAGES: Final = 32
MEASURE_IMAGES: Final = 40
"""Largest selection and gate lot."""
SYNTHETIC_IMAGES: Final = 20
"""Each lot, where there is no data: one defective and one defect-free image of each class."""


@dataclass(frozen=True)
class Labelled:
    """One image and its defect pixels."""

    name: str
    image: Image
    truth: Mask
    class_id: int | None
    defective: bool


@dataclass(frozen=True)
class Lots:
    """Images for three purposes; none is in two of them."""

    source: str
    """``training images`` or ``synthetic images``."""
    calibration: tuple[Labelled, ...]
    """Ranges of the activations come from these."""
    selection: tuple[Labelled, ...]
    """The calibration method, and the convolutions that stay in float, are chosen on these."""
    gate: tuple[Labelled, ...]
    """What was chosen is judged on these."""

    def as_dict(self) -> dict[str, Any]:
        """What a sidecar says about them."""
        lots = {
            "calibration": self.calibration,
            "selection": self.selection,
            "gate": self.gate,
        }
        return {
            "source": self.source,
            "seed": SEED,
            **{
                name: {"images": len(lot), "sha256": images_digest(lot)}
                for name, lot in lots.items()
            },
        }


def images_digest(images: Iterable[Labelled]) -> str:
    """sha256 over the pixels of images and masks, in order."""
    parts = [digest(image.image.tobytes() + image.truth.tobytes()) for image in images]
    return digest("".join(parts).encode())


def read_lots(folders: Sequence[Path], contract: Contract) -> Lots:
    """Draw three lots from the training images of data folders, or make synthetic ones.

    Classes, and defective and defect-free images, are in each lot in turns. A quarter of the
    images calibrates, the rest is halved between selection and gate.

    Raises:
        DataError: too few images, none with a defect, or of another size than the contract's.
    """
    if not folders:
        lots = [
            tuple(_synthetic(contract, index) for index in range(k * per, (k + 1) * per))
            for k, per in enumerate([SYNTHETIC_IMAGES] * 3)
        ]
        return Lots("synthetic images", *lots)
    items = _shuffled(
        item for folder in folders for item in read_dataset(folder).items if item.split != "test"
    )
    calibration = min(CALIBRATION_IMAGES, len(items) // 4)
    measure = min(MEASURE_IMAGES, (len(items) - calibration) // 2)
    ends = (calibration, calibration + measure, calibration + 2 * measure)
    parts = (items[: ends[0]], items[ends[0] : ends[1]], items[ends[1] : ends[2]])
    for part in parts:
        if not any(item.defective for item in part):
            raise DataError(
                folders[0],
                f"gives {len(items)} training images, too few with a defect to calibrate "
                "and measure on",
                "at least 12 images, 6 of them with a defect",
            )
    return Lots(
        "training images",
        *(tuple(_read(item, contract) for item in part) for part in parts),
    )


def _shuffled(items: Iterable[Item]) -> list[Item]:
    """All items in an order that takes one of each class and kind in turns."""
    kinds: dict[tuple[int, bool], list[Item]] = defaultdict(list)
    for item in items:
        kinds[item.class_id or 0, not item.defective].append(item)
    generator = np.random.default_rng(SEED)
    turns: list[tuple[int, int, Item]] = []
    for place, (_, members) in enumerate(sorted(kinds.items())):
        order = generator.permutation(len(members))
        turns += [(turn, place, members[index]) for turn, index in enumerate(order)]
    return [item for _, _, item in sorted(turns, key=lambda entry: entry[:2])]


def _read(item: Item, contract: Contract) -> Labelled:
    try:
        image = read_image(item.image)
    except ImageError as error:
        raise DataError(error.where, error.what) from error
    if image.shape != (contract.height, contract.width):
        raise DataError(
            item.image,
            f"has {image.shape[1]}x{image.shape[0]} pixels, "
            f"the model takes {contract.width}x{contract.height}",
        )
    truth = read_mask(item, (contract.height, contract.width))
    return Labelled(item.image.name, image, truth, item.class_id, item.defective)


def _synthetic(contract: Contract, number: int) -> Labelled:
    classes = len(synthetic.CLASSES)
    class_id, turn = synthetic.CLASSES[number % classes], number // classes
    height, width, side = contract.height, contract.width, max(64, contract.height, contract.width)
    sample = synthetic.sample(class_id, turn, defective=turn % 2 == 0, size=side)
    empty = np.zeros((side, side), np.uint8)
    truth = (empty if sample.label is None else sample.label)[:height, :width]
    image = np.ascontiguousarray(sample.image[:height, :width])
    return Labelled(f"class{class_id}-{turn}", image, truth, class_id, bool(truth.any()))
