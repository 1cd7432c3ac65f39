"""The images of a benchmark, and the scores that the reference gives them."""

from __future__ import annotations

import hashlib
import itertools
import math
import statistics
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from operator import attrgetter
from pathlib import Path

import numpy as np

from tinyunet_deploy.backends.base import Backend
from tinyunet_deploy.contract import Batch, Image, Mask
from tinyunet_deploy.data import synthetic
from tinyunet_deploy.data.bit_depth import BitDepth
from tinyunet_deploy.data.decoding import MAX_PIXELS, read_image, require_content
from tinyunet_deploy.data.description_file import described_bits
from tinyunet_deploy.data.encoding import write_png
from tinyunet_deploy.data.tiles import Mosaic, Place, Tiling, fit_of
from tinyunet_deploy.errors import DataError
from tinyunet_deploy.files import scratch_folder
from tinyunet_deploy.inspection.notes import ScoreTally
from tinyunet_deploy.inspection.scoring import decode_part
from tinyunet_deploy.inspection.walk import common_root, walk_images
from tinyunet_deploy.quality.parity_inputs import ComparedImage, find_images
from tinyunet_deploy.quality.stored_scores import StoredScores
from tinyunet_deploy.speed.benchmark_result import MeasuredImages

__all__ = ["BenchmarkImages", "ModelInput", "open_benchmark_images"]


@dataclass(frozen=True, slots=True)
class ModelInput:
    """What a network takes at a time: an image of its size, a padded image, or a tile."""

    image: int
    """Index of the image."""
    tile: int
    """Number of the tile, 0 for an image that is its own only tile."""
    in_image: Place
    """Pixels of the image that this input scores; two tiles share those where one fades into the
    other."""
    in_tile: Place
    """Place of the same pixels in the input."""


@dataclass(frozen=True)
class BenchmarkImages:
    """Images to measure with, and the answers of the reference."""

    images: list[ComparedImage]
    shapes: list[tuple[int, int]]
    """Height and width of each image, pixels."""
    inputs: list[ModelInput]
    """Inputs of the network that the images become, in the order of the images."""
    scores: StoredScores
    """The reference's scores of the inputs, uint8 of the network's size."""
    threshold: float
    """Threshold of the reference, a probability."""
    min_area: int
    facts: MeasuredImages
    tiling: Tiling
    """Size of the network, and places of the tiles, which are the same for every artifact."""
    bits: int | None = None
    """Depth of 16-bit files; None leaves it to the files."""
    max_pixels: int | None = None
    """Largest accepted height x width of an image; None is 64 megapixels."""
    notes: tuple[str, ...] = ()
    """Sentences about images of another size than the network's."""

    @cached_property
    def inputs_of_image(self) -> tuple[list[int], ...]:
        """Numbers of the inputs of each image."""
        numbers: tuple[list[int], ...] = tuple([] for _ in self.images)
        for number, model_input in enumerate(self.inputs):
            numbers[model_input.image].append(number)
        return numbers

    def read(self, index: int) -> Image:
        """Read and decode an image, uint8 [H, W]."""
        pixels = MAX_PIXELS if self.max_pixels is None else self.max_pixels
        return read_image(self.images[index].path, max_pixels=pixels, bits=self.bits)

    def batch(self, numbers: Iterable[int]) -> Batch:
        """Read, decode and cut inputs, uint8 [N, 1, H, W]."""
        tiles: list[Image] = []
        wanted = (self.inputs[number] for number in numbers)
        for index, of_image in itertools.groupby(wanted, attrgetter("image")):
            image = self.read(index)
            tiles += [self.tiling.tile(image, model_input.tile) for model_input in of_image]
        return np.stack(tiles)[:, None]

    def name(self, number: int) -> str:
        """Return the name of an input for people."""
        model_input = self.inputs[number]
        name, tiles = self.images[model_input.image].name, self.inputs_of_image[model_input.image]
        return name if len(tiles) == 1 else f"{name}, tile {model_input.tile + 1} of {len(tiles)}"

    def truth(self, index: int) -> Mask | None:
        """Read the true mask of an image, uint8 [H, W]; None if there is no truth."""
        return self.images[index].truth(self.shapes[index])


@contextmanager
def open_benchmark_images(
    sources: Sequence[Path],
    reference: Backend,
    *,
    count: int,
    tile: bool = True,
    bits: int | None = None,
    max_pixels: int | None = None,
) -> Iterator[BenchmarkImages]:
    """Find or generate images and have the reference score them.

    Args:
        sources: image files and folders; empty generates synthetic images. From a labelled data set
            the held-out images are taken.
        reference: backend that scores the images.
        count: largest number of images; if there are more, evenly spaced ones are used.
        tile: take images of any size; False leaves out those that are not of the network's size.
        bits: depth of 16-bit files, 8..16; None takes the one that a ``dataset.toml`` of the
            sources states, else the one in the reference's sidecar.
        max_pixels: largest accepted height x width of an image; None is 64 megapixels.

    Raises:
        DataError: there is no usable image, or one has a single grey value throughout.
    """
    with scratch_folder() as scratch, StoredScores() as scores:
        if sources:
            images, folder = _find_images(sources), common_root(sources).name
        else:
            contract = reference.contract
            images, folder = _synthesize(scratch, contract.height, contract.width, count), ""
        count = min(count, len(images))
        images = [images[number * len(images) // count] for number in range(count)]
        source = "files" if sources else "synthetic"
        depth = BitDepth(described_bits(sources, bits, reference.artifact.sidecar.bits))
        yield _score(images, reference, scores, source, folder, tile, depth, max_pixels)


def _find_images(sources: Sequence[Path]) -> list[ComparedImage]:
    if len(sources) == 1 and sources[0].is_dir():
        return find_images(sources[0])
    root = common_root(sources)
    images = [
        ComparedImage(path, path.relative_to(root).as_posix(), None)
        for path in walk_images(sources)
    ]
    if not images:
        raise DataError(root, "contains no images")
    return images


def _synthesize(folder: Path, height: int, width: int, count: int) -> list[ComparedImage]:
    """Write a defect-free and a defective image of each class, then again."""
    images = []
    for index in range(count):
        class_id = synthetic.CLASSES[index // 2 % len(synthetic.CLASSES)]
        sample = synthetic.sample(
            class_id, index, defective=index % 2 == 1, size=max(height, width)
        )
        path = folder / f"{index:04}.png"
        write_png(path, np.ascontiguousarray(sample.image[:height, :width]))
        images.append(ComparedImage(path, path.name, None))
    return images


def _score(
    images: Sequence[ComparedImage],
    reference: Backend,
    scores: StoredScores,
    source: str,
    folder: str,
    tile: bool,
    depth: BitDepth,
    max_pixels: int | None,
) -> BenchmarkImages:
    """Score the images, leave out those that cannot be used, and describe the others."""
    sidecar = reference.artifact.sidecar
    tiling = sidecar.tiling
    usable: list[ComparedImage] = []
    shapes: list[tuple[int, int]] = []
    errors: list[str] = []
    inputs: list[ModelInput] = []
    tally = ScoreTally()
    checksum = hashlib.sha256()
    means, squares = [], []
    for index, compared in enumerate(images):
        part = decode_part(
            index,
            compared.path,
            contract=tiling.contract,
            tile=tile,
            depth=depth,
            max_pixels=max_pixels,
        )
        image = part.image
        if image is None:
            errors.append(str(part.error))
            continue
        require_content(image, part.path)
        mosaic = Mosaic(image, tiling)
        for number, (pixels, places) in enumerate(
            zip(mosaic.tiles(), tiling.places(image.shape), strict=True)
        ):
            score = reference.score_alone(pixels[None, None])[0, 0]
            mosaic.add(score)
            scores.append(score)
            inputs.append(ModelInput(len(usable), number, *places))
        fit = fit_of(image.shape, tiling.contract)
        tally.add(replace(part, score=mosaic.score, fit=fit, approximate=not mosaic.exact))
        usable.append(compared)
        shapes.append((image.shape[0], image.shape[1]))
        checksum.update(image.tobytes())
        means.append(float(image.mean()))
        squares.append(float(np.square(image, dtype=np.float64).mean()))
    if not usable:
        raise DataError(images[0].path, "and the others cannot be used", errors[0])
    mean = statistics.fmean(means)
    facts = MeasuredImages(
        source=source,
        folder=folder,
        images=len(usable),
        sha256=checksum.hexdigest(),
        image_px=(tiling.contract.height, tiling.contract.width),
        mean=mean,
        standard_deviation=math.sqrt(max(statistics.fmean(squares) - mean**2, 0.0)),
        skipped=tuple(errors),
        padded=tally.padded,
        tiled=tally.tiled,
        inputs=len(inputs),
    )
    return BenchmarkImages(
        usable,
        shapes,
        inputs,
        scores,
        sidecar.threshold,
        sidecar.min_area,
        facts,
        tiling,
        depth.bits,
        max_pixels,
        tally.notes,
    )
