"""Propose a ``dataset.toml`` for a folder, and say what was seen in it."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

from tinyunet_deploy.data.dataset import SPLITS, Dataset, Item, Missing
from tinyunet_deploy.data.decoding import read_image
from tinyunet_deploy.data.description import DESCRIPTION, Description, Shares
from tinyunet_deploy.data.description_file import parse_description, read_description
from tinyunet_deploy.data.guess import guess_description
from tinyunet_deploy.data.layouts import read_dataset
from tinyunet_deploy.data.layouts.described import describe_reader
from tinyunet_deploy.data.layouts.known import Reader, UnknownLayout, known_reader
from tinyunet_deploy.data.mask_survey import (
    INVERTED_BORDER,
    look_at_masks,
    rule_for,
    shown_values,
)
from tinyunet_deploy.errors import DataError, ImageError, printable

__all__ = ["Proposal", "description_text", "propose"]

_MASKS_LOOKED_AT: Final = 200
"""Largest number of masks whose values are looked at, evenly spaced."""
_IMAGES_LOOKED_AT: Final = 50
"""Largest number of images whose depth is looked at, evenly spaced."""
_SHARE: Final = 0.2
"""Share of the images that becomes val or test."""
_DEFECTS_SHARE: Final = 0.5
"""Share of the defective test images that becomes train, in a set that has defects only there."""
_FEW: Final = 3
"""With fewer defective images none can be spared for val or test."""
_DEPTHS: Final = (10, 12, 14)
"""Usual depths of cameras of less than 16 bits."""


T = TypeVar("T")


@dataclass(frozen=True)
class Proposal:
    """A description of a folder, and what speaks for it."""

    root: Path
    description: Description
    seen: tuple[str, ...]
    """Sentences about what was seen and decided."""

    def text(self) -> str:
        """Return the content of a ``dataset.toml``, with what was seen as comments.

        Raises:
            DataError: a name cannot be written in TOML.
        """
        comments = "".join(f"# {printable(line)}\n" for line in self.seen)
        return comments + "\n" + description_text(self.description, self.root)


def propose(root: Path) -> Proposal:
    """Look at a folder and describe it; of a description that it has, the types of defects stay.

    Raises:
        DataError: no images with masks are found, or one of them is unusable.
    """
    seen: list[str] = []
    description, reader = _with_places(root, seen)
    description = _with_masks(description, reader, seen)
    dataset = read_dataset(root, description=description)
    description = _with_depth(description, dataset.items, seen)
    description = _with_shares(description, dataset, seen)
    description = _with_types(description, root, seen)
    return Proposal(root, description, tuple(seen))


def _with_places(root: Path, seen: list[str]) -> tuple[Description, Reader]:
    """Return the layout of a folder, or folders and endings by which masks are found."""
    try:
        reader = known_reader(root, Description())
        if reader.groups is None or any(
            pair.mask is not None for group in reader.groups(None) for pair in group.pairs
        ):
            seen.append(f"The folder has the layout {reader.layout}.")
            return Description(layout=reader.layout), reader
    except UnknownLayout:
        pass
    guessed = guess_description(root)
    if guessed is None:
        raise DataError(
            root,
            "has no images whose masks can be found by their names",
            f"see the page on describing a data set, and write {DESCRIPTION}",
        )
    seen.append(f"Images are in {guessed.images.folder}, masks in {_mask_place(guessed)}.")
    return guessed, describe_reader(root, guessed)


def _mask_place(description: Description) -> str:
    masks = description.masks
    place = "the same folders" if masks.folder is None else masks.folder
    return f"{place}, their names end in {masks.ending}" if masks.ending else place


def _with_masks(description: Description, reader: Reader, seen: list[str]) -> Description:
    """Add the rule of the masks and the meaning of a missing one."""
    missing: Missing | None = None
    if reader.groups is not None:
        groups = list(reader.groups(None))
        pairs = [pair for group in groups for pair in group.pairs]
        masks = [pair.mask for pair in pairs if pair.mask is not None]
        without = len(pairs) - len(masks)
        orphans = [mask for group in groups for mask in group.orphans]
        if without and orphans:
            raise DataError(
                orphans[0],
                f"is a mask without an image, and {without} images have no mask",
                "do their names fit?",
            )
        if without:
            missing = "good"
            seen.append(
                f"{without} of {len(pairs)} images have no mask: they count as good parts; "
                'missing = "error" refuses them.'
            )
    else:
        items = reader.read(None, None)
        masks = [item.mask for item in items if item.mask is not None]
    rule = None
    if masks:
        looks = look_at_masks(_spaced(masks, _MASKS_LOOKED_AT))
        kinds = Counter(map(shown_values, looks))
        listed = "; ".join(f"{values} in {count}" for values, count in kinds.most_common(5))
        seen.append(f"Values of {len(looks)} of {len(masks)} masks: {listed}.")
        rule = rule_for(looks) if reader.layout != "visa" else None
        if rule is not None and rule.non_zero and not any(look.black for look in looks):
            raise DataError(
                masks[0],
                "has no black pixel, as all masks here, so that no value clearly means good",
                "save the masks as 8-bit grey PNG with 0 where the part is good",
            )
        if rule is not None and rule.inverted:
            seen.append(
                f"Most masks mark more than {INVERTED_BORDER:.0%} of the border: they are taken as "
                "inverted; see the contact sheet of tinyunet data check."
            )
        if rule is not None and rule.threshold is not None:
            seen.append(f"Masks with grey levels: values above {rule.threshold} mean defect.")
            if not any(look.lossy for look in looks):
                seen.append("non_zero = true would widen each defect by its soft edge.")
        if rule is not None and rule.values is not None:
            seen.append("No mask has a 0: the value along all borders means good.")
        if rule is not None and rule.non_zero and not rule.inverted:
            seen.append("Every value but 0 means defect; values = [...] would choose some.")
    return dataclasses.replace(
        description,
        masks=dataclasses.replace(description.masks, rule=rule, missing=missing),
    )


def _with_depth(description: Description, items: Sequence[Item], seen: list[str]) -> Description:
    """Add the bit depth, if 16-bit files have small values only."""
    shallow: list[int] = []
    looked_at = _spaced(items, _IMAGES_LOOKED_AT)
    for item in looked_at:
        try:
            read_image(item.image, on_shallow=lambda _, value: shallow.append(value))
        except ImageError:
            continue  # data check names it
    if not shallow or len(shallow) < len(looked_at):
        return description
    depth = next((bits for bits in _DEPTHS if max(shallow) < 1 << bits), None)
    if depth is None:
        return description
    try:
        for item in looked_at:
            read_image(item.image, bits=depth)
    except ImageError:
        return description  # it has a few values of more bits
    seen.append(
        f"16-bit images have values up to {max(shallow)} only: the camera is taken as one of "
        f"{depth} bits."
    )
    images = dataclasses.replace(description.images, bit_depth=depth)
    return dataclasses.replace(description, images=images)


def _with_shares(description: Description, dataset: Dataset, seen: list[str]) -> Description:
    """Add the shares that give a set the parts that it lacks; DAGM2007 keeps its own."""
    items = dataset.items
    counts = Counter((item.split, item.defective) for item in items)
    for split in (None, *SPLITS):
        defective, good = counts[split, True], counts[split, False]
        if defective + good:
            part = "Without splits" if split is None else f"In {split}"
            seen.append(f"{part}: {defective} defective and {good} good images.")
    if not any(not item.defective for item in items):
        seen.append("There are no good images, so overkill cannot be measured.")
    if dataset.layout in ("released", "development"):
        return description
    splits = {item.split for item in items}
    defects_to_train = 0.0
    if "test" in splits and counts["test", True] > 1 and not counts["train", True]:
        defects_to_train = _DEFECTS_SHARE
        seen.append("There are defects in test only: half of them become train, drawn by name.")
    spare = counts[None, True] + counts["train", True] + defects_to_train * counts["test", True]
    shares = Shares(
        _SHARE if "val" not in splits and spare >= _FEW else 0.0,
        _SHARE if "test" not in splits and spare >= _FEW else 0.0,
        defects_to_train,
    )
    drawn = [name for name, share in (("val", shares.val), ("test", shares.test)) if share]
    if drawn:
        seen.append(f"{_SHARE:.0%} of the train images become {' and '.join(drawn)}, by name.")
    return dataclasses.replace(description, shares=shares)


def _with_types(description: Description, root: Path, seen: list[str]) -> Description:
    """Add the names of defect types of the description that the folder has."""
    rule = description.masks.rule
    if rule is None or not (rule.non_zero or rule.values):
        return description
    try:
        present = read_description(root)
    except DataError:  # what cannot be read is replaced
        return description
    if present is None or not present.defect_types:
        return description
    seen.append(f"The names of defect types in {DESCRIPTION} are kept.")
    return dataclasses.replace(description, defect_types=present.defect_types)


def _spaced(values: Sequence[T], most: int) -> list[T]:
    """Return at most so many values, evenly spaced."""
    count = min(most, len(values))
    return [values[number * len(values) // count] for number in range(count)]


def description_text(description: Description, root: Path) -> str:
    """Return a description as TOML.

    Raises:
        DataError: a name cannot be written in TOML.
    """
    images, masks, shares = description.images, description.masks, description.shares
    rule = masks.rule
    tables: dict[str, dict[str, object]] = {
        "": {"layout": description.layout},
        "splits": {
            **dict(description.splits.items()),
            "val_share": shares.val or None,
            "test_share": shares.test or None,
            "defects_to_train": shares.defects_to_train or None,
        },
        "images": {
            "folder": images.folder,
            "ending": images.ending or None,
            "products": list(images.products) or None,
            "bit_depth": images.bit_depth,
        },
        "masks": {
            "folder": masks.folder,
            "ending": masks.ending or None,
            "missing": masks.missing,
            "non_zero": (rule is not None and rule.non_zero and not rule.inverted) or None,
            "threshold": None if rule is None else rule.threshold,
            "values": None if rule is None or rule.values is None else sorted(rule.values),
            "inverted": (rule is not None and rule.inverted) or None,
        },
        "defects": {str(value): name for value, name in description.defect_types.items()},
    }
    blocks = []
    for name, values in tables.items():
        lines = [f"{key} = {_toml(value)}" for key, value in values.items() if value is not None]
        if lines:
            blocks.append("\n".join([f"[{name}]", *lines] if name else lines) + "\n")
    text = "\n".join(blocks)
    try:
        same = parse_description(text, root / DESCRIPTION) == description
    except DataError:
        same = False
    if not same:
        raise DataError(root, "has folders whose names cannot be written in TOML", "rename them")
    return text


def _toml(value: object) -> str:
    """Return a value as TOML, which writes these values as JSON does."""
    return json.dumps(value)
