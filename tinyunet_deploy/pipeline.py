"""Files to scores to files: decoding, running and writing overlap, and every queue is bounded."""

from __future__ import annotations

import contextlib
import heapq
import itertools
import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from operator import attrgetter
from pathlib import Path

import numpy as np

from tinyunet_deploy.backends import Backend
from tinyunet_deploy.contract import Batch, Contract, Image, Score, defect_mask
from tinyunet_deploy.dagm2007 import is_truth_folder
from tinyunet_deploy.defects import find_defects, verdict
from tinyunet_deploy.drift import image_statistics
from tinyunet_deploy.errors import ImageError, RefusedError
from tinyunet_deploy.files import write_atomic
from tinyunet_deploy.images import (
    IMAGE_SUFFIXES,
    encode_jpeg,
    encode_png,
    overlay,
    read_image,
)
from tinyunet_deploy.report import Line, Report, Summary
from tinyunet_deploy.tiles import Mosaic


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
    paths: Iterable[Path], backend: Backend, *, batch_size: int, workers: int, tile: bool = False
) -> Generator[Scored]:
    """Score image files in their order.

    ``workers`` threads decode ahead while one thread runs the backend, one batch ahead of what the
    caller has taken. An image that cannot be used costs itself alone.

    Args:
        paths: taken as needed, never listed.
        batch_size: images per call; cut to what the backend takes.
        workers: decoding threads.
        tile: take images larger than the network's, too, and run them in overlapping tiles.
    """
    batch_size = min(batch_size, backend.max_batch or batch_size)
    decoders = ThreadPoolExecutor(workers, "decode")
    runner = ThreadPoolExecutor(1, "run")
    ahead = batch_size + 2 * workers
    decoded = _decode_ahead(paths, backend.contract, decoders, ahead, tile)
    scored_batches = (
        _run_tiles(decoded, backend, batch_size)
        if tile
        else _run_batches(_batches(decoded, batch_size), backend)
    )
    running = deque(runner.submit(next, scored_batches, None) for _ in range(2))
    try:
        while (batch := running.popleft().result()) is not None:
            running.append(runner.submit(next, scored_batches, None))
            yield from batch
    finally:
        runner.shutdown(cancel_futures=True)
        scored_batches.close()
        decoders.shutdown(cancel_futures=True)


def _decode_ahead(
    paths: Iterable[Path], contract: Contract, decoders: ThreadPoolExecutor, ahead: int, tile: bool
) -> Iterator[Scored]:
    """Decoded images in their order.

    Args:
        ahead: decode so many images ahead, of the network's size; of larger ones fewer, so that
            they are no more pixels, but one at least.
    """
    numbered = enumerate(paths)
    waiting: deque[Future[Scored]] = deque()
    room = 1 if tile else ahead

    def decode_more() -> None:
        for index, path in itertools.islice(numbered, max(room - len(waiting), 0)):
            waiting.append(decoders.submit(_decode, index, path, contract, tile))

    decode_more()
    while waiting:
        scored = waiting.popleft().result()
        if scored.image is not None:
            room = max(ahead * contract.height * contract.width // scored.image.size, 1)
        decode_more()
        yield scored


def _decode(index: int, path: Path, contract: Contract, tile: bool) -> Scored:
    try:
        image = read_image(path)
        height, width = image.shape
        covers = height >= contract.height and width >= contract.width
        if (height, width) != (contract.height, contract.width) and not (tile and covers):
            least = " at least" if tile else ""
            hint = ": try --tile" if covers else ""
            raise ImageError(
                path,
                "wrong-size",
                f"has {width}x{height} pixels, "
                f"the model takes {contract.width}x{contract.height}{least}{hint}",
            )
    except ImageError as error:
        return Scored(index, path, error=error)
    return Scored(index, path, image)


def _batches(decoded: Iterator[Scored], batch_size: int) -> Iterator[list[Scored]]:
    """Runs of images, at most ``batch_size`` of them usable; errors ride along in their place."""
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


def _run_batches(batches: Iterator[list[Scored]], backend: Backend) -> Generator[list[Scored]]:
    """Batches with their scores, the backend taking as many ahead as it can overlap."""
    ahead: deque[list[Scored]] = deque()

    def images() -> Iterator[Batch]:
        """Ends at a batch without any image, which is handed on before more are taken."""
        for batch in batches:
            ahead.append(batch)
            usable = [scored.image for scored in batch if scored.image is not None]
            if not usable:
                return
            yield np.stack(usable)[:, None]

    while True:
        for run in backend.run_many(images()):
            scores = iter(run.score)
            yield [
                scored if scored.image is None else replace(scored, score=next(scores)[0])
                for scored in ahead.popleft()
            ]
        if not ahead:
            return
        yield ahead.popleft()


def _run_tiles(
    decoded: Iterator[Scored], backend: Backend, batch_size: int
) -> Generator[list[Scored]]:
    """After each batch of tiles the images that it finished; a batch spans images."""
    waiting: deque[tuple[Scored, Mosaic | None]] = deque()
    tiles_of: deque[Mosaic] = deque()
    """For each tile that is on its way, whose it is."""
    exhausted = False

    def images() -> Iterator[Batch]:
        """Ends also where nothing but errors came, which are handed on before more is taken."""
        nonlocal exhausted
        batch: list[Image] = []
        for scored in decoded:
            if scored.image is None:
                waiting.append((scored, None))
            else:
                mosaic = Mosaic(scored.image, backend.contract)
                waiting.append((scored, mosaic))
                for tile in mosaic.tiles():
                    batch.append(tile)
                    tiles_of.append(mosaic)
                    if len(batch) == batch_size:
                        yield np.stack(batch)[:, None]
                        batch = []
            if not batch and len(waiting) >= 16 * batch_size:
                return
        exhausted = True
        if batch:
            yield np.stack(batch)[:, None]

    def finished() -> list[Scored]:
        done = []
        while waiting and (waiting[0][1] is None or waiting[0][1].complete):
            scored, mosaic = waiting.popleft()
            done.append(scored if mosaic is None else replace(scored, score=mosaic.score))
        return done

    while not exhausted:
        for run in backend.run_many(images()):
            for score in run.score:
                tiles_of.popleft().add(score[0])
            yield finished()
        yield finished()


@dataclass(frozen=True)
class Outputs:
    """What ``infer`` writes beside masks and report."""

    overlays: bool = False
    """``overlays/NAME.jpg``: the image with the mask's outline."""
    scores: bool = False
    """``scores/NAME``: the score as a grey PNG."""
    contours: bool = False
    """The outline of each defect in the report."""
    mm_per_px: float | None = None
    """Side of a pixel on the part, millimetres: areas are given in mm², too."""


def infer(
    sources: Sequence[Path],
    output: Path,
    backend: Backend,
    *,
    threshold: float,
    min_area: int,
    batch_size: int,
    workers: int,
    tile: bool = False,
    outputs: Outputs = Outputs(),
    each: Callable[[Line], None] | None = None,
) -> Summary:
    """Write masks and a report for image files and folders, or go on where a run stopped.

    Args:
        sources: image files and folders. The masks mirror the tree below their common folder.
        output: belongs to one input tree, one model and one set of options; refused if it belongs
            to others.
        threshold: probability in [0, 1].
        min_area: pixels that a defect must have to make a part NG.
        tile: take images larger than the network's, too, and run them in overlapping tiles.
        each: called with the report line of each image, in order.

    Returns:
        Counts over the whole folder, what an earlier run did included.

    Raises:
        RefusedError: the output folder belongs to another run, or there is no image at all.
        RuntimeUnavailable: the disk is full or read-only; what was written stays valid.
    """
    root = common_root(sources)
    options = {
        "input_root": str(root),
        "model_sha256": backend.artifact.sidecar.sha256,
        "backend": backend.name,
        "device": backend.device,
        "threshold": threshold,
        "min_area": min_area,
        "tile": tile,
        **asdict(outputs),
    }

    def name_of(path: Path) -> str:
        return path.relative_to(root).as_posix()

    def finish(scored: Scored) -> Line:
        name = name_of(scored.path)
        if scored.image is None or scored.score is None:
            assert scored.error is not None
            error = scored.error
            return {"path": name, "status": "skipped", "reason": error.reason, "what": error.what}
        defects = find_defects(scored.score, threshold, min_area, contours=outputs.contours)
        mask = defect_mask(scored.score, threshold)
        _put(output / "masks" / png_name(name), encode_png(mask))
        if outputs.scores:
            _put(output / "scores" / png_name(name), encode_png(scored.score))
        if outputs.overlays:
            _put(output / "overlays" / f"{name}.jpg", encode_jpeg(overlay(scored.image, mask)))
        return {
            "path": name,
            "status": "ok",
            "verdict": verdict(defects),
            "max_score": int(scored.score.max()),
            "defects": [defect.as_fields(outputs.mm_per_px) for defect in defects],
            "statistics": image_statistics(scored.image, scored.score, threshold),
        }

    with Report(output, options) as report, contextlib.ExitStack() as cleanup:
        todo = (path for path in walk_images(sources, output) if name_of(path) not in report)
        results = score_images(todo, backend, batch_size=batch_size, workers=workers, tile=tile)
        cleanup.callback(results.close)
        writers = ThreadPoolExecutor(workers, "write")
        cleanup.callback(writers.shutdown, cancel_futures=True)
        writing: deque[Future[Line]] = deque()

        def settle(most: int) -> None:
            while len(writing) > most:
                line = writing.popleft().result()
                report.add(line)
                if each:
                    each(line)

        usual_px = backend.contract.height * backend.contract.width
        for scored in results:
            size = usual_px if scored.image is None else scored.image.size
            settle(2 * (batch_size + workers) * usual_px // size)
            writing.append(writers.submit(finish, scored))
        settle(0)
        if not report.summary.images:
            raise RefusedError(root, "holds no image", f"suffixes are {suffixes()}")
        report.finish()
        return report.summary


def png_name(name: str) -> str:
    """The name of the mask of an image: the image's own, with .png after any other suffix.

    Also after ``.jpg.png`` and its like, so that two images never have one mask.
    """
    stem = name.lower().removesuffix(".png")
    kept = len(stem) < len(name) and not stem.endswith(tuple(IMAGE_SUFFIXES))
    return name if kept else f"{name}.png"


def common_root(sources: Sequence[Path]) -> Path:
    """The folder whose tree the output mirrors."""
    placed = map(_placed, sources)
    return Path(os.path.commonpath([path if path.is_dir() else path.parent for path in placed]))


def walk_images(sources: Sequence[Path], output: Path | None = None) -> Iterator[Path]:
    """Image files below the sources, each once, in the order of their names, as they are found.

    In a folder, entries without an image suffix, hidden entries, folders behind links, DAGM2007
    label folders and ``output`` itself are passed over. A file that is named is always taken.
    """
    placed = sorted({_placed(source) for source in sources}, key=attrgetter("parts"))
    named = [path for path in placed if not path.is_dir()]
    walks = [_walk(path, output and output.resolve()) for path in placed if path.is_dir()]
    for path, _ in itertools.groupby(heapq.merge(named, *walks, key=attrgetter("parts"))):
        yield path


def _placed(source: Path) -> Path:
    """Where a source is, without ``..`` and without links, except that a linked file's name stays.

    Names below the common folder are also names below the output folder: a ``..`` would leave it.
    """
    return source.resolve() if source.is_dir() else source.parent.resolve() / source.name


def _walk(folder: Path, output: Path | None) -> Iterator[Path]:
    try:
        with os.scandir(folder) as entries:
            found = sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise RefusedError(folder, f"cannot be listed: {error.strerror}") from error
    for entry in found:
        path = folder / entry.name
        if entry.name.startswith(".") or path == output:
            continue
        if entry.is_dir(follow_symlinks=False):
            if not is_truth_folder(path):
                yield from _walk(path, output)
        elif path.suffix.lower() in IMAGE_SUFFIXES:
            yield path


def suffixes() -> str:
    """The suffixes of images, for a message."""
    return " ".join(sorted(IMAGE_SUFFIXES))


def _put(path: Path, data: bytes) -> None:
    try:
        write_atomic(path, data)
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, data)
