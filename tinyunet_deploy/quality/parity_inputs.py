"""Find the images and the artifacts of a comparison."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tinyunet_deploy.artifacts.foreign import is_foreign
from tinyunet_deploy.artifacts.sidecar import KINDS, Sidecar, kind_of
from tinyunet_deploy.backends.device_name import device_type, full_name
from tinyunet_deploy.backends.registry import read_tried
from tinyunet_deploy.backends.table import (
    BackendChoice,
    BackendRow,
    default_device,
    find_row,
    rows_for,
)
from tinyunet_deploy.contract import Mask
from tinyunet_deploy.data.dataset import Item
from tinyunet_deploy.data.layouts import UnknownLayout, read_dataset
from tinyunet_deploy.data.masks import read_mask
from tinyunet_deploy.errors import ArtifactError, DataError, RefusedError
from tinyunet_deploy.inspection.walk import common_root, walk_images
from tinyunet_deploy.quality.dataset_scoring import compared_images, image_digest

__all__ = [
    "ComparedImage",
    "backends_and_devices",
    "check_recordable",
    "find_images",
    "find_models",
    "read_sidecars",
    "refuse_trained_on",
    "spread_images",
]


@dataclass(frozen=True, slots=True)
class ComparedImage:
    """One image file on which artifacts are compared with the reference."""

    path: Path
    name: str
    """Unique name that people read: the path below the folder."""
    item: Item | None
    """Entry of the data set with the truth; None if there is no truth."""

    @property
    def defective(self) -> bool | None:
        """True if the data set labels the part defective; None if there is no truth."""
        return None if self.item is None else self.item.defective

    def truth(self, shape: tuple[int, int]) -> Mask | None:
        """Read the true mask, uint8 [H, W] of the image's ``shape``; None if there is none."""
        return None if self.item is None else read_mask(self.item, shape)


def find_images(folder: Path, classes: Sequence[int] | None = None) -> list[ComparedImage]:
    """Find the test images of a data set, else val, train or all; all images of any other folder.

    Args:
        classes: use only these classes, which needs a data set.

    Raises:
        DataError: the data set is damaged, or there is no image.
    """
    try:
        dataset = compared_images(read_dataset(folder, classes=classes))
    except UnknownLayout:
        if classes is not None:
            raise
    else:
        return [
            ComparedImage(item.image, item.image.relative_to(dataset.root).as_posix(), item)
            for item in dataset.items
        ]
    root = common_root([folder])
    images = [
        ComparedImage(path, path.relative_to(root).as_posix(), None)
        for path in walk_images([folder])
    ]
    if not images:
        raise DataError(folder, "contains no images")
    return images


def spread_images(images: Sequence[ComparedImage], most: int | None) -> list[ComparedImage]:
    """Choose at most so many images, evenly spaced, in their order; None chooses all.

    Defective images are half of them, or all where they are fewer: most of what a comparison can
    find is on them.
    """
    if most is None or len(images) <= most:
        return list(images)
    defective = [number for number, image in enumerate(images) if image.defective]
    others = [number for number, image in enumerate(images) if not image.defective]
    count = max(min(len(defective), most // 2), most - len(others))
    return [
        images[number]
        for number in sorted((*_evenly(defective, count), *_evenly(others, most - count)))
    ]


def _evenly(numbers: Sequence[int], count: int) -> list[int]:
    return [numbers[place * len(numbers) // count] for place in range(count)]


def find_models(sources: Sequence[Path]) -> list[Path]:
    """List the named artifacts and those in the named folders; checkpoints in folders are left out.

    Raises:
        RefusedError: a folder contains no .onnx and no .plan file.
    """
    models: list[Path] = []
    for source in sources:
        files = [source]
        if source.is_dir():
            files = sorted(
                path for path in source.iterdir() if KINDS.get(path.suffix) in ("onnx", "plan")
            )
            if not files:
                raise RefusedError(source, "contains no .onnx and no .plan file")
        models += [path for path in files if path not in models]
    return models


def check_recordable(models: Sequence[Path]) -> None:
    """Refuse models without a sidecar, into which no verified batch can be written.

    Raises:
        RefusedError: a model has no sidecar.
    """
    for model in models:
        if is_foreign(model):
            raise RefusedError(model, "has no sidecar, so nothing can be recorded in it")


def backends_and_devices(
    model: Path, backends: Sequence[BackendChoice] | None, devices: Sequence[str]
) -> Iterator[tuple[BackendRow, str]]:
    """Yield the backends that run this kind of artifact, each with its devices, installed or not.

    Args:
        backends: names of backends, or rows or classes of the caller's own. None takes those that
            may run unasked, of them only those that run on one of the devices, if there are any.
        devices: ``cpu`` or ``cuda:N``; empty takes the device on which each backend runs by
            default.
    """
    kind = kind_of(model)
    names = list(dict.fromkeys(map(full_name, devices)))
    if backends is not None:
        rows = list(map(find_row, backends))
    else:
        everywhere = rows_for(kind, unasked_only=True)
        types = set(map(device_type, names))
        rows = [row for row in everywhere if types.intersection(row.devices)] or everywhere
    for row in sorted(rows, key=lambda row: row.preference):
        if kind in row.kinds:
            for device in names or [default_device(kind, row)]:
                yield row, device


def read_sidecars(
    models: Sequence[Path], trust_engine: bool
) -> tuple[dict[Path, Sidecar], list[ArtifactError]]:
    """Return the sidecars of whole models, and the errors of damaged ones.

    Raises:
        ArtifactError: every model is damaged.
    """
    sidecars, errors = {}, []
    for model in models:
        try:
            sidecars[model] = read_tried(model, trust_engine=trust_engine).sidecar
        except ArtifactError as error:
            errors.append(error)
    if not sidecars:
        raise errors[0]
    return sidecars, errors


def refuse_trained_on(images: Sequence[ComparedImage], sidecars: Mapping[Path, Sidecar]) -> None:
    """Check that no model was trained on the images that it is compared on.

    Raises:
        RefusedError: one was; on those images it is better than on any others.
    """
    digests = {image_digest(image.path) for image in images}
    for model, sidecar in sidecars.items():
        seen = len(digests.intersection(sidecar.trained_on))
        if seen:
            raise RefusedError(
                model, f"was trained on {seen} of these {len(images)} images", "give others"
            )
