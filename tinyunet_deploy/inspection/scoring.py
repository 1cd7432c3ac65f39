"""Score image files in order: decoding and scoring overlap, and every queue is bounded."""

from __future__ import annotations

import contextlib
import functools
import itertools
import logging
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from tinyunet_deploy.backends.base import Backend, Run
from tinyunet_deploy.contract import Batch, Contract, Image, Score
from tinyunet_deploy.data.bit_depth import BitDepth
from tinyunet_deploy.data.decoding import MAX_PIXELS, decode_image, read_bytes
from tinyunet_deploy.data.tiles import Fit, Mosaic, Tiling, fit_of
from tinyunet_deploy.errors import ImageError, OutOfMemory
from tinyunet_deploy.inspection.executors import executor
from tinyunet_deploy.inspection.identity import FileIdentity, read_identified
from tinyunet_deploy.inspection.trace import Trace, timed

__all__ = [
    "LEAST_SIDE",
    "Decode",
    "Scored",
    "address",
    "decode_part",
    "score_decoded",
    "score_images",
]

log = logging.getLogger(__name__)

LEAST_SIDE: Final = 16
"""Smallest height and width of an image, pixels: a smaller one is less than one cell of a network
with four 2x2 pools, and most of the scored pixels would be mirror images."""


@dataclass(frozen=True, slots=True)
class Scored:
    """One image file with its score, or with the error that prevented it."""

    index: int
    """Position among the given paths, 0 for the first."""
    path: Path
    image: Image | None = None
    """uint8 [H, W]; None if the file cannot be used."""
    score: Score | None = None
    """uint8 [H, W]; None if the file cannot be used."""
    error: ImageError | None = None
    identity: FileIdentity | None = None
    """Identity of the bytes that were read, if it was requested."""
    fit: Fit = "whole"
    approximate: bool = False
    """True if the score only approximates that of the whole image, as that of some tiles does."""


Decode = Callable[[int, Path], Future[Scored]]
"""Begins to read the image of a part, given its number and its file."""


def score_images(
    paths: Iterable[Path],
    backend: Backend,
    *,
    batch_size: int,
    workers: int,
    tile: bool = True,
    tiling: Tiling | None = None,
    identify: bool = False,
    depth: BitDepth | None = None,
    max_pixels: int | None = None,
    trace: Trace | None = None,
    decode: Decode | None = None,
    ahead: int | None = None,
) -> Generator[Scored]:
    """Score image files in order.

    ``workers`` threads decode ahead while one thread runs the backend, one batch ahead of what the
    caller has consumed. An unusable image is skipped; the others are still scored.

    Args:
        paths: consumed as needed, never listed.
        batch_size: images per call; reduced to what the backend accepts.
        workers: decoding threads; with 0, nothing overlaps, and everything runs on the caller's
            thread.
        tile: score images of any size (:mod:`tinyunet_deploy.data.tiles`); False skips those
            whose size is not the network's.
        tiling: the network's size, and where its tiles lie; None takes them from the sidecar of the
            backend's artifact.
        identify: also hash the bytes of each file, and skip files that change while they are read.
        depth: depth of 16-bit files; None takes the one in the sidecar of the backend's artifact.
        max_pixels: largest accepted height x width of an image; None is
            :data:`~tinyunet_deploy.data.decoding.MAX_PIXELS`.
        trace: records the stages of each image.
        decode: reads the images elsewhere, with the same options as :func:`decode_part` would.
        ahead: images of the network's size that may be decoded ahead; None is ``batch_size`` and
            two for each worker.

    Raises:
        RuntimeUnavailable: the device failed, or its memory cannot hold a single image.
    """
    batch_size = backend.batch_size(batch_size)
    decoders = executor(workers, "decode")
    runner = executor(min(workers, 1), "run")
    contract = backend.contract
    tiling = tiling or backend.artifact.sidecar.tiling
    depth = depth or BitDepth(backend.artifact.sidecar.bit_depth())
    read_here = functools.partial(
        decode_part,
        contract=contract,
        tile=tile,
        identify=identify,
        depth=depth,
        max_pixels=max_pixels,
        trace=trace,
    )
    decode = decode or (lambda index, path: decoders.submit(read_here, index, path))
    ahead = ahead or batch_size + 2 * workers
    decoded = _decode_ahead(
        paths, decode, ahead * contract.height * contract.width, 1 if tile else ahead
    )
    run_many = backend.run_many if workers else functools.partial(map, backend.run)

    def run(images: Iterator[Scored]) -> Generator[list[Scored]]:
        return _run_batches(_batches(images, batch_size), run_many, trace)

    scored_batches = _run_tiles(decoded, tiling, run) if tile else run(decoded)
    # Two: one batch is being run while the caller consumes the one before.
    running = deque(runner.submit(next, scored_batches, None) for _ in range(2))
    try:
        while (batch := running.popleft().result()) is not None:
            running.append(runner.submit(next, scored_batches, None))
            yield from batch
    finally:
        runner.shutdown(cancel_futures=True)
        scored_batches.close()
        decoders.shutdown(cancel_futures=True)


def score_decoded(
    images: Iterable[Image], backend: Backend, *, batch_size: int
) -> Generator[Scored]:
    """Score images of any size that are in memory, in order, as :func:`score_images` does.

    Args:
        images: uint8 [H, W] each, at least :data:`LEAST_SIDE` pixels on a side; consumed as needed.
        batch_size: images per call.

    Raises:
        RuntimeUnavailable: the device failed, or its memory cannot hold a single image.
    """
    numbered = (Scored(index, Path(str(index)), image) for index, image in enumerate(images))

    def run(scored: Iterator[Scored]) -> Generator[list[Scored]]:
        return _run_batches(_batches(scored, batch_size), backend.run_many, None)

    for batch in _run_tiles(numbered, backend.artifact.sidecar.tiling, run):
        yield from batch


def _decode_ahead(
    paths: Iterable[Path],
    decode: Decode,
    ahead_px: int,
    room: int,
) -> Iterator[Scored]:
    """Yield decoded images in order.

    Args:
        ahead_px: pixels of the images that are decoded ahead; one image is always allowed.
        room: number of images to decode ahead while no image size is known yet.
    """
    numbered = enumerate(paths)
    waiting: deque[Future[Scored]] = deque()

    def decode_more() -> None:
        for index, path in itertools.islice(numbered, max(room - len(waiting), 0)):
            waiting.append(decode(index, path))

    decode_more()
    while waiting:
        scored = waiting.popleft().result()
        if scored.image is not None:
            room = max(ahead_px // scored.image.size, 1)
        decode_more()
        yield scored


def decode_part(
    index: int,
    path: Path,
    *,
    contract: Contract,
    tile: bool,
    depth: BitDepth,
    max_pixels: int | None = None,
    identify: bool = False,
    trace: Trace | None = None,
) -> Scored:
    """Read the image of one part, which has no score yet, or the error that prevents it.

    Args:
        index: number of the part.
        contract: size of the network's images.
        tile, depth, max_pixels, identify, trace: as for :func:`score_images`.
    """
    size = None if tile else (contract.height, contract.width)
    identity = None
    try:
        with timed(trace, "read", index):
            if identify:
                data, identity = read_identified(path, size=size)
            else:
                data = read_bytes(path, size=size)
        with timed(trace, "decode", index):
            image = decode_image(
                data,
                path,
                max_pixels=MAX_PIXELS if max_pixels is None else max_pixels,
                size=size,
                bits=depth.bits,
                on_shallow=depth.on_shallow,
            )
            if min(image.shape) < LEAST_SIDE:
                height, width = image.shape
                what = f"has {width}x{height} pixels, fewer than {LEAST_SIDE} on a side"
                raise ImageError(path, "wrong-size", what)
    except ImageError as error:
        if error.reason == "too-large" and "pixels" in error.what:
            error = ImageError(path, error.reason, error.what, "--max-pixels allows more")
        return Scored(index, path, error=error, identity=identity)
    return Scored(index, path, image, identity=identity)


def _batches(decoded: Iterator[Scored], batch_size: int) -> Iterator[list[Scored]]:
    """Group images into batches of ``batch_size`` usable ones; errors keep their place among them.

    A batch also ends after 16 times as many files, so that broken files in a folder of many are
    reported soon.
    """
    batch: list[Scored] = []
    usable = 0
    for scored in decoded:
        batch.append(scored)
        usable += scored.error is None
        if usable == batch_size or len(batch) == 16 * batch_size:
            yield batch
            batch, usable = [], 0
    if batch:
        yield batch


def _run_batches(
    batches: Iterator[list[Scored]],
    run_many: Callable[[Iterable[Batch]], Iterator[Run]],
    trace: Trace | None,
) -> Generator[list[Scored]]:
    """Yield batches with their scores; the backend takes as many batches ahead as it can overlap.

    If memory cannot hold a batch, it and all later batches are run at half its size.
    """
    ahead: deque[list[Scored]] = deque()
    """Batches without scores yet, including those that the backend has in flight."""
    started: deque[float] = deque()

    def images() -> Iterator[Batch]:
        """Yield the pixels of each batch; end at a batch that contains only errors, which needs no
        run."""
        for batch in batches:
            ahead.append(batch)
            usable = [scored.image for scored in batch if scored.image is not None]
            if not usable:
                return
            if trace is not None:
                trace.left_queue(*_usable(batch))
            with timed(trace, "copy in", *_usable(batch)):
                stacked = _stack(usable)
            started.append(time.perf_counter())
            yield stacked

    while True:
        try:
            for run in run_many(images()):
                handed_over = started.popleft()
                if trace is not None:
                    trace.ran(_usable(ahead[0]), handed_over, run)
                scores = iter(run.score)
                yield [
                    scored if scored.image is None else replace(scored, score=next(scores)[0])
                    for scored in ahead.popleft()
                ]
        except OutOfMemory as error:
            most = max((len(_usable(batch)) for batch in ahead), default=0) // 2
            if not most:
                raise
            log.warning("%s; continuing with batches of %d", error, most)
            left = itertools.chain(list(ahead), batches)
            batches = _batches(itertools.chain.from_iterable(left), most)
            ahead.clear()
            started.clear()
            continue
        if not ahead:
            return
        yield ahead.popleft()


def _run_tiles(
    decoded: Iterator[Scored],
    tiling: Tiling,
    run: Callable[[Iterator[Scored]], Generator[list[Scored]]],
) -> Generator[list[Scored]]:
    """Yield after each batch of tiles the images that it completed; a batch spans images.

    An image of the network's size is its own only tile, and nothing is composed of it.
    """
    unfinished: deque[tuple[Scored, Mosaic]] = deque()

    def tiles() -> Iterator[Scored]:
        for scored in decoded:
            if scored.image is None:
                yield scored
                continue
            fit = fit_of(scored.image.shape, tiling.contract)
            if fit == "whole":
                yield scored
                continue
            mosaic = Mosaic(scored.image, tiling)
            unfinished.append((replace(scored, fit=fit), mosaic))
            for tile in mosaic.tiles():
                yield replace(scored, image=tile)

    with contextlib.closing(run(tiles())) as scored_tiles:
        for batch in scored_tiles:
            finished = []
            for tile in batch:
                if not unfinished or unfinished[0][0].index != tile.index:
                    finished.append(tile)
                    continue
                assert tile.score is not None
                scored, mosaic = unfinished[0]
                mosaic.add(tile.score)
                if mosaic.complete:
                    unfinished.popleft()
                    finished.append(
                        replace(scored, score=mosaic.score, approximate=not mosaic.exact)
                    )
            yield finished


def _usable(batch: list[Scored]) -> tuple[int, ...]:
    return tuple(scored.index for scored in batch if scored.error is None)


def _stack(images: list[Image]) -> Batch:
    """Return images of one size as a batch: a view if they follow each other in one array.

    Images that cannot be written are copied, because runtimes refuse such arrays.
    """
    first = images[0]
    begin = address(first)
    if first.base is not None and all(
        image.base is first.base
        and image.flags.c_contiguous
        and image.flags.writeable
        and address(image) == begin + number * first.nbytes
        for number, image in enumerate(images)
    ):
        shape, strides = (len(images), 1, *first.shape), (first.nbytes, 0, *first.strides)
        return np.lib.stride_tricks.as_strided(first, shape, strides)
    return np.stack(images)[:, None]


def address(array: NDArray[np.uint8]) -> int:
    """Return where the memory of an array begins."""
    begin: int = array.__array_interface__["data"][0]
    return begin
