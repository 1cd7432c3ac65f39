"""A station: images and a loaded model, in this process or in several, ready to inspect."""

from __future__ import annotations

import contextlib
import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import fmean
from typing import Any, Final

from tinyunet_deploy import systems
from tinyunet_deploy.backends.base import Backend
from tinyunet_deploy.backends.registry import open_backend
from tinyunet_deploy.contract import Image, Score
from tinyunet_deploy.data.bit_depth import BitDepth
from tinyunet_deploy.data.description_file import described_bits
from tinyunet_deploy.data.tiles import Mosaic, Tiling, fit_of, score_in_tiles
from tinyunet_deploy.errors import ImageError, RefusedError, RuntimeUnavailable
from tinyunet_deploy.host import describe_machine, processors
from tinyunet_deploy.inspection.defects import Verdict, find_defects, verdict
from tinyunet_deploy.inspection.notes import ScoreTally, log_notes
from tinyunet_deploy.inspection.scoring import decode_part
from tinyunet_deploy.inspection.walk import walk_images
from tinyunet_deploy.line.live import Inspector

__all__ = ["MOST_IMAGES", "WARM_UP", "Station", "open_station"]

MOST_IMAGES: Final = 64
"""Largest number of images that are kept in memory and inspected in turn."""
WARM_UP: Final = 5
"""Number of images that every process inspects before the belt starts."""
_READY: Final = "ready"
"""First message of an inspecting process."""


@dataclass(frozen=True)
class Station:
    """A model that is ready to inspect."""

    inspectors: Sequence[Inspector]
    """One inspector for each process."""
    facts: dict[str, Any]
    """Model, backend, versions and machine, as a result records them."""


@contextlib.contextmanager
def open_station(
    sources: Sequence[Path],
    processes: int,
    *,
    model: Path | None = None,
    backend: str | None = None,
    device: str | None = None,
    trust_engine: bool = False,
    tile: bool = True,
    bits: int | None = None,
    max_pixels: int | None = None,
    skipped: Callable[[ImageError], None],
) -> Iterator[Station]:
    """Load images and a model, in this process or in several others, and warm it up.

    An image larger than the model's is inspected tile after tile: a part costs as many calls of the
    model as its images have tiles.

    Args:
        sources: image files and folders; the first :data:`MOST_IMAGES` usable images are taken.
        processes: number of inspecting processes; 1 is this process.
        model, backend, device, trust_engine: as for ``open_backend``.
        tile: take images of any size; False skips those that are not of the model's size.
        bits: depth of 16-bit files, 8..16; None takes the one that a ``dataset.toml`` of the
            sources states, else the one in the sidecar.
        max_pixels: largest accepted height x width of an image; None is 64 megapixels.
        skipped: called with the error of each image that cannot be used.

    Raises:
        RefusedError: the model or all images are unusable.
        RuntimeUnavailable: there is no runtime, or a process ended.
    """
    with open_backend(model, backend, device, trust_engine=trust_engine) as loaded:
        depth = BitDepth(described_bits(sources, bits, loaded.artifact.sidecar.bits))
        tiling = loaded.artifact.sidecar.tiling
        images = _read_images(sources, tiling, tile, depth, max_pixels, skipped)
        tally = ScoreTally()
        for image in images:
            fit = fit_of(image.shape, tiling.contract)
            tally.add_fit(fit, fit == "tiled" and not Mosaic(image, tiling).exact)
        log_notes(tally.notes)
        facts = {
            "model": loaded.artifact.path.name,
            "model_sha256": loaded.artifact.sidecar.sha256,
            "precision": loaded.artifact.sidecar.precision,
            "backend": loaded.name,
            "device": loaded.device,
            "versions": loaded.versions,
            "images": len(images),
            "padded": tally.padded,
            "tiled": tally.tiled,
            "approximate": tally.approximate,
            "inputs_per_image": fmean(tiling.tile_count(image.shape) for image in images),
            "bits": depth.bits,
            "warm_up_images": WARM_UP,
            "machine": describe_machine(),
        }
        if processes == 1:
            yield Station([_inspector(loaded, images)], facts)
            return
        artifact, name, device = loaded.artifact.path, loaded.name, loaded.device
    load = {"model": artifact, "backend": name, "device": device, "trust_engine": trust_engine}
    with _inspecting_processes(processes, images, load) as inspectors:
        yield Station(inspectors, facts)


def _read_images(
    sources: Sequence[Path],
    tiling: Tiling,
    tile: bool,
    depth: BitDepth,
    max_pixels: int | None,
    skipped: Callable[[ImageError], None],
) -> list[Image]:
    """Decode the first usable images, uint8 [H, W], at most :data:`MOST_IMAGES`.

    Raises:
        RefusedError: no image is usable.
    """
    images: list[Image] = []
    first_error: ImageError | None = None
    for index, path in enumerate(walk_images(sources)):
        part = decode_part(
            index,
            path,
            contract=tiling.contract,
            tile=tile,
            depth=depth,
            max_pixels=max_pixels,
        )
        if part.error is not None:
            first_error = first_error or part.error
            skipped(part.error)
        if part.image is None:
            continue
        images.append(part.image)
        if len(images) == MOST_IMAGES:
            break
    if not images:
        hint = None if first_error is None else f"the first is skipped: {first_error}"
        raise RefusedError(sources[0], "contains no usable image", hint)
    return images


def _inspector(backend: Backend, images: Sequence[Image]) -> Inspector:
    """Make an inspector with the sidecar's threshold and min_area, and warm it up."""
    sidecar = backend.artifact.sidecar
    tiling = sidecar.tiling

    def score_tile(image: Image) -> Score:
        score: Score = backend.run(image[None, None]).score[0, 0]
        return score

    def inspect(number: int) -> Verdict:
        score = score_in_tiles(images[number % len(images)], score_tile, tiling)
        return verdict(find_defects(score, sidecar.threshold, sidecar.min_area))

    for number in range(WARM_UP):
        inspect(number)
    return inspect


@contextlib.contextmanager
def _inspecting_processes(
    count: int, images: Sequence[Image], load: dict[str, Any]
) -> Iterator[list[Inspector]]:
    """Start processes, each with its own backend and an equal share of the processors."""
    usable = processors()
    context = multiprocessing.get_context("spawn")
    with contextlib.ExitStack() as stack:
        pipes: list[Connection] = []
        for number in range(count):
            ours, theirs = context.Pipe()
            process = context.Process(
                target=_serve,
                args=(theirs, images, usable[number::count] or usable, load),
                daemon=True,
            )
            process.start()
            theirs.close()
            stack.callback(process.join)
            stack.callback(process.terminate)
            pipes.append(ours)
        for pipe in pipes:
            _receive(pipe)
        yield [partial(_ask, pipe) for pipe in pipes]


def _ask(pipe: Connection, image: int) -> Verdict:
    """Let a process inspect an image, and return the verdict."""
    try:
        pipe.send(image)
    except OSError as error:
        raise RuntimeUnavailable("an inspecting process", "ended") from error
    answer: Verdict = _receive(pipe)
    return answer


def _receive(pipe: Connection) -> Any:
    """Return the next message of a process; raise the error that it sends or that ended it."""
    try:
        answer = pipe.recv()
    except (EOFError, OSError) as error:
        raise RuntimeUnavailable("an inspecting process", "ended") from error
    if isinstance(answer, Exception):
        raise RuntimeUnavailable("an inspecting process", str(answer)) from answer
    return answer


def _serve(
    pipe: Connection,
    images: Sequence[Image],
    usable: Sequence[int],
    load: dict[str, Any],
) -> None:
    """Answer image numbers with verdicts, on given processors, until the other end is closed."""
    with contextlib.suppress(EOFError, OSError, KeyboardInterrupt):
        try:
            systems.use_processors(usable)
            with open_backend(**load) as loaded:
                inspector = _inspector(loaded, images)
                pipe.send(_READY)
                while True:
                    pipe.send(inspector(pipe.recv()))
        except (EOFError, OSError):
            raise
        except Exception as error:
            pipe.send(RuntimeError(str(error)))
