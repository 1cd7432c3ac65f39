"""Files to scores to files: decoding, running and writing overlap, and every queue is bounded."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from tinyunet_deploy.backends import Backend
from tinyunet_deploy.contract import Contract, Image, Score
from tinyunet_deploy.errors import ImageError
from tinyunet_deploy.images import read_image


@dataclass(frozen=True, slots=True)
class Scored:
    """What became of one image: a score or an error."""

    index: int
    """Place among the paths that were given, 0 for the first."""
    path: Path
    image: Image | None = None
    score: Score | None = None
    error: ImageError | None = None


def score_images(
    paths: Iterable[Path], backend: Backend, *, batch_size: int, workers: int
) -> Iterator[Scored]:
    """Score image files in their order.

    ``workers`` threads decode ahead while one thread runs the backend, one batch ahead of what the
    caller has taken. An image that cannot be used costs itself alone.

    Args:
        paths: taken as needed, never listed.
        batch_size: images per call; cut to what the backend takes.
        workers: decoding threads.
    """
    batch_size = min(batch_size, backend.max_batch or batch_size)
    decoders = ThreadPoolExecutor(workers, "decode")
    runner = ThreadPoolExecutor(1, "run")
    running: deque[Future[list[Scored]]] = deque()
    try:
        decoded = _decode_ahead(paths, backend.contract, decoders, batch_size + 2 * workers)
        for batch in _batches(decoded, batch_size):
            running.append(runner.submit(_run, batch, backend))
            if len(running) > 2:
                yield from running.popleft().result()
        while running:
            yield from running.popleft().result()
    finally:
        runner.shutdown(cancel_futures=True)
        decoders.shutdown(cancel_futures=True)


def _decode_ahead(
    paths: Iterable[Path], contract: Contract, decoders: ThreadPoolExecutor, ahead: int
) -> Iterator[Scored]:
    numbered = enumerate(paths)
    waiting: deque[Future[Scored]] = deque()
    for index, path in itertools.islice(numbered, ahead):
        waiting.append(decoders.submit(_decode, index, path, contract))
    while waiting:
        scored = waiting.popleft().result()
        for index, path in itertools.islice(numbered, 1):
            waiting.append(decoders.submit(_decode, index, path, contract))
        yield scored


def _decode(index: int, path: Path, contract: Contract) -> Scored:
    try:
        image = read_image(path)
        if image.shape != (contract.height, contract.width):
            raise ImageError(
                path,
                "wrong-size",
                f"has {image.shape[1]}x{image.shape[0]} pixels, "
                f"the model takes {contract.width}x{contract.height}",
            )
    except ImageError as error:
        return Scored(index, path, error=error)
    return Scored(index, path, image)


def _batches(decoded: Iterator[Scored], batch_size: int) -> Iterator[list[Scored]]:
    """Runs of images of which at most ``batch_size`` are usable; errors ride along in their place."""
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


def _run(batch: list[Scored], backend: Backend) -> list[Scored]:
    images = [scored.image for scored in batch if scored.image is not None]
    if not images:
        return batch
    scores = iter(backend.run(np.stack(images)[:, None]).score)
    return [
        scored if scored.image is None else replace(scored, score=next(scores)[0])
        for scored in batch
    ]
