"""Write an annotated data set as images/ and masks/."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tinyunet_deploy.data.conversion.archive import unpack
from tinyunet_deploy.data.conversion.image_writer import write_image
from tinyunet_deploy.data.conversion.model import AnnotatedImage, AnnotatedSet, Format, SplitName
from tinyunet_deploy.data.conversion.reading import read_annotations
from tinyunet_deploy.data.description import DESCRIPTION
from tinyunet_deploy.errors import DataError
from tinyunet_deploy.files import keep, remove_at_end, writing

__all__ = ["Conversion", "SplitCounts", "convert"]

_MOST_TYPES = 255
"""Largest number of defect types that an 8-bit mask can name."""


@dataclass
class SplitCounts:
    """Images of one split."""

    images: int = 0
    defective: int = 0


@dataclass(frozen=True)
class Conversion:
    """What was converted."""

    format: Format
    splits: Mapping[SplitName | None, SplitCounts]
    """Split -> images; None where the source has none."""
    types: Mapping[int, str]
    """Value in the masks -> name of the defect type."""
    annotations: Mapping[str, int]
    """Label -> number of annotations that were drawn."""
    left_out: Mapping[str, int]
    """Label -> number of annotations that were not drawn, because the label was not chosen."""
    unlabelled: int
    """Images that the annotations do not mention: taken as good, or left out, as was asked for."""


def convert(
    source: Path,
    output: Path,
    *,
    chosen: Format | None = None,
    defects: Collection[str] | None = None,
    unlabelled: Literal["good", "skip"] | None = None,
    total: Callable[[int], None] | None = None,
    progress: Callable[[int], None] | None = None,
) -> Conversion:
    """Convert the annotations of another tool to images/ and masks/, below train/ and so on.

    Images are copied byte for byte. A mask is an 8-bit PNG: 0 where the part is good, 255 at a
    defect, or, with several defect types, the number of the type, which ``dataset.toml`` names.
    Where types overlap, the smaller annotation is drawn over the larger one. The same source gives
    the same bytes.

    Args:
        source: a folder, a zip archive, or one JSON or XML file beside its images.
        output: folder to make; it appears only when it is complete.
        chosen: the format; None recognises it.
        defects: labels that mean a defect; None takes all. The others are left out and counted.
        unlabelled: what to do with images without annotations, which may be good parts or not yet
            annotated; None refuses them, but for YOLO, where such an image is a good part.
        total: takes the number of all images, once it is known.
        progress: takes the number of images that are newly finished.

    Raises:
        DataError: something in the source is not understood, an image is missing or does not have
            the stated size, an annotation leaves its image, or ``output`` is in use.
        RuntimeUnavailable: the disk is full or read-only, or a package is missing.
    """
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise DataError(output, "exists and is not an empty folder", "name a new one")
    with writing(output):
        output.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=".tinyunet-", dir=output.parent))
    remove_at_end(str(work))
    try:
        with _unpacked(source, work / "unpacked") as folder:
            annotated = read_annotations(folder, chosen)
            images = _labelled_images(annotated, unlabelled)
            _require_plain_names(images)
            types = _types(folder, annotated, defects)
            if total is not None:
                total(len(images))
            conversion = _write(annotated, images, types, work / "converted", progress)
        description = work / "converted" / DESCRIPTION
        with writing(description):
            description.write_text(_description(types), "utf-8")
        with writing(output):
            if output.exists():
                output.rmdir()
            os.replace(work / "converted", output)  # noqa: PTH105
    finally:
        shutil.rmtree(work, ignore_errors=True)
        keep(str(work))
    return conversion


@contextlib.contextmanager
def _unpacked(source: Path, folder: Path) -> Iterator[Path]:
    """Unpack an archive, in whose name errors then speak; yield the folder to read."""
    if not source.is_file() or source.suffix.lower() != ".zip":
        yield source
        return
    unpack(source, folder)
    try:
        yield folder
    except DataError as error:
        where, what = (text.replace(str(folder), str(source)) for text in (error.where, error.what))
        raise DataError(where, what, error.hint) from error


def _labelled_images(
    annotated: AnnotatedSet, unlabelled: Literal["good", "skip"] | None
) -> list[AnnotatedImage]:
    """Return the images to convert.

    Raises:
        DataError: images have no annotations, and it is not said what that means.
    """
    without = [image.image for image in annotated.images if not image.labelled]
    if without and unlabelled is None and annotated.format != "yolo":
        raise DataError(
            without[0],
            "has no annotations" + f", and {len(without) - 1} more images" * (len(without) > 1),
            "choose --unlabelled good if these are good parts, or --unlabelled skip to leave them "
            "out",
        )
    images = [image for image in annotated.images if image.labelled or unlabelled != "skip"]
    if not images:
        raise DataError(without[0], "and all other images have no annotations")
    return images


def _require_plain_names(images: Sequence[AnnotatedImage]) -> None:
    """Refuse names that would meet in the converted data set."""
    names: dict[tuple[SplitName | None, str], AnnotatedImage] = {}
    for image in images:
        key = image.split, str(Path(image.name).with_suffix("")).casefold()
        other = names.setdefault(key, image)
        if other is not image:
            raise DataError(
                image.image,
                f"would have the mask of {other.image}",
                "give images names that differ in more than case, folder of the split and suffix",
            )
    splits = {image.split for image in images}
    if None in splits and len(splits) > 1:
        first = next(image for image in images if image.split is None)
        raise DataError(
            first.image, "is in no split, but other images are", "move it into a split, or away"
        )


def _types(
    source: Path, annotated: AnnotatedSet, defects: Collection[str] | None
) -> dict[str, int]:
    """Return label -> value in the masks of the labels that mean a defect."""
    unknown = sorted(set(defects or ()) - set(annotated.labels))
    if unknown:
        raise DataError(
            source,
            f"has no label {', '.join(unknown)}",
            f"known: {', '.join(annotated.labels) or 'none'}",
        )
    labels = [label for label in annotated.labels if defects is None or label in defects]
    odd = next((label for label in labels if not label.isprintable()), None)
    if odd is not None:
        raise DataError(source, f"has the label {odd!r}", "use printable characters")
    if len(labels) > _MOST_TYPES:
        raise DataError(source, f"has {len(labels)} labels, more than {_MOST_TYPES}")
    return dict(zip(labels, range(1, len(labels) + 1) if len(labels) > 1 else [255], strict=False))


def _description(types: Mapping[str, int]) -> str:
    """Return the dataset.toml of a converted set."""
    names = "".join(
        f"{value} = {json.dumps(label, ensure_ascii=False)}\n" for label, value in types.items()
    )
    return f"[masks]\nnon_zero = true\n\n[defects]\n{names}"


def _write(
    annotated: AnnotatedSet,
    images: Sequence[AnnotatedImage],
    types: Mapping[str, int],
    folder: Path,
    progress: Callable[[int], None] | None,
) -> Conversion:
    """Write all images and masks; report the first of all errors, and their number."""
    splits: dict[SplitName | None, SplitCounts] = {}
    drawn, left_out = Counter[str](), Counter[str]()
    errors: list[DataError] = []
    with ThreadPoolExecutor() as pool:
        results = pool.map(lambda image: write_image(image, types, folder), images)
        for image, written in zip(images, results, strict=True):
            counts = splits.setdefault(image.split, SplitCounts())
            counts.images += 1
            counts.defective += bool(written.drawn)
            drawn += written.drawn
            left_out += written.left_out
            if written.error is not None:
                errors.append(written.error)
            if progress is not None:
                progress(1)
    if errors:
        more = f", and {len(errors) - 1} more images have faults" * (len(errors) > 1)
        raise DataError(errors[0].where, errors[0].what + more, errors[0].hint)
    return Conversion(
        format=annotated.format,
        splits=splits,
        types={value: label for label, value in types.items()},
        annotations={label: drawn[label] for label in types},
        left_out=dict(sorted(left_out.items())),
        unlabelled=sum(not image.labelled for image in annotated.images),
    )
