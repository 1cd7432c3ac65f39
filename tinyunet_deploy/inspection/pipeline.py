"""Files to scores to files: decoding, running and writing overlap, and every queue is bounded."""

from __future__ import annotations

import contextlib
import errno
import functools
import heapq
import itertools
import logging
import os
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from operator import attrgetter
from pathlib import Path
from typing import Any, Final

import numpy as np

from tinyunet_deploy.backends.base import Backend, Run
from tinyunet_deploy.contract import Batch, Contract, Image, Score, defect_mask
from tinyunet_deploy.data.decoding import IMAGE_SUFFIXES, decode_image, read_bytes
from tinyunet_deploy.data.encoding import encode_jpeg, encode_png
from tinyunet_deploy.data.layouts.released import is_truth_folder
from tinyunet_deploy.data.tiles import Mosaic
from tinyunet_deploy.errors import ImageError, OutOfMemory, RefusedError
from tinyunet_deploy.files import reading, write_atomic, writing
from tinyunet_deploy.inspection.defects import find_defects, verdict
from tinyunet_deploy.inspection.drift import image_statistics
from tinyunet_deploy.inspection.overlays import overlay
from tinyunet_deploy.inspection.run_report import Line, Report, Summary
from tinyunet_deploy.inspection.shards import Shard, in_shards, refuse_shards
from tinyunet_deploy.inspection.trace import Trace, span

log = logging.getLogger(__name__)

MAX_DEPTH: Final = 200
"""Folders in folders that are walked; no station nests them so."""


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
    paths: Iterable[Path],
    backend: Backend,
    *,
    batch_size: int,
    workers: int,
    tile: bool = False,
    trace: Trace | None = None,
) -> Generator[Scored]:
    """Score image files in their order.

    ``workers`` threads decode ahead while one thread runs the backend, one batch ahead of what the
    caller has taken. An image that cannot be used costs itself alone.

    Args:
        paths: taken as needed, never listed.
        batch_size: images per call; cut to what the backend takes.
        workers: decoding threads; with 0 nothing overlaps, all is done on the caller's thread.
        tile: take images larger than the network's, too, and run them in overlapping tiles.
        trace: takes when each stage of each image was.
    """
    batch_size = min(batch_size, backend.max_batch or batch_size)
    decoders = _executor(workers, "decode")
    runner = _executor(min(workers, 1), "run")
    contract = backend.contract
    decode = functools.partial(_decode, contract=contract, tile=tile, trace=trace)
    ahead = batch_size + 2 * workers
    decoded = _decode_ahead(
        paths, decode, decoders, ahead * contract.height * contract.width, 1 if tile else ahead
    )
    run_many = backend.run_many if workers else functools.partial(map, backend.run)

    def run(images: Iterator[Scored]) -> Generator[list[Scored]]:
        return _run_batches(_batches(images, batch_size), run_many, trace)

    scored_batches = _run_tiles(decoded, contract, run) if tile else run(decoded)
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
    paths: Iterable[Path],
    decode: Callable[[int, Path], Scored],
    decoders: Executor,
    ahead_px: int,
    room: int,
) -> Iterator[Scored]:
    """Decoded images in their order.

    Args:
        ahead_px: pixels of the images that are decoded ahead, one image at least.
        room: images to decode ahead while the size of none is known.
    """
    numbered = enumerate(paths)
    waiting: deque[Future[Scored]] = deque()

    def decode_more() -> None:
        for index, path in itertools.islice(numbered, max(room - len(waiting), 0)):
            waiting.append(decoders.submit(decode, index, path))

    decode_more()
    while waiting:
        scored = waiting.popleft().result()
        if scored.image is not None:
            room = max(ahead_px // scored.image.size, 1)
        decode_more()
        yield scored


def _decode(index: int, path: Path, contract: Contract, tile: bool, trace: Trace | None) -> Scored:
    try:
        size = (contract.height, contract.width)
        with span(trace, "read", index):
            data = read_bytes(path, size=None if tile else size)
        with span(trace, "decode", index):
            image = decode_image(data, path, size=size, larger=tile)
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


def _run_batches(
    batches: Iterator[list[Scored]],
    run_many: Callable[[Iterable[Batch]], Iterator[Run]],
    trace: Trace | None,
) -> Generator[list[Scored]]:
    """Batches with their scores, the backend taking as many ahead as it can overlap.

    If memory does not hold a batch, it and all after it are run in batches of half its size.
    """
    ahead: deque[list[Scored]] = deque()
    started: deque[float] = deque()

    def images() -> Iterator[Batch]:
        """Ends at a batch without any image, which is handed on before more are taken."""
        for batch in batches:
            ahead.append(batch)
            usable = [scored.image for scored in batch if scored.image is not None]
            if not usable:
                return
            if trace is not None:
                trace.left_queue(*_usable(batch))
            with span(trace, "copy in", *_usable(batch)):
                stacked = np.stack(usable)[:, None]
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
            log.warning("%s; going on with batches of %d", error, most)
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
    contract: Contract,
    run: Callable[[Iterator[Scored]], Generator[list[Scored]]],
) -> Generator[list[Scored]]:
    """After each batch of tiles the images that it finished; a batch spans images."""
    unfinished: deque[tuple[Scored, Mosaic]] = deque()

    def tiles() -> Iterator[Scored]:
        for scored in decoded:
            if scored.image is None:
                yield scored
                continue
            mosaic = Mosaic(scored.image, contract)
            unfinished.append((scored, mosaic))
            for tile in mosaic.tiles():
                yield replace(scored, image=tile)

    with contextlib.closing(run(tiles())) as scored_tiles:
        for batch in scored_tiles:
            finished = []
            for tile in batch:
                if tile.score is None:
                    finished.append(tile)
                    continue
                scored, mosaic = unfinished[0]
                mosaic.add(tile.score)
                if mosaic.complete:
                    unfinished.popleft()
                    finished.append(replace(scored, score=mosaic.score))
            yield finished


def _usable(batch: list[Scored]) -> tuple[int, ...]:
    return tuple(scored.index for scored in batch if scored.error is None)


def _executor(workers: int, name: str) -> Executor:
    return ThreadPoolExecutor(workers, name) if workers else _CallersThread()


class _CallersThread(Executor):
    """Does each call when its result is asked for, by whoever asks."""

    def submit(self, call: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        return _Later(functools.partial(call, *args, **kwargs))


class _Later(Future[Any]):
    def __init__(self, call: Callable[[], Any]) -> None:
        super().__init__()
        self._call = call

    def result(self, timeout: float | None = None) -> Any:
        return self._call()


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


@dataclass(frozen=True)
class Inspection:
    """What becomes of a score: what counts as a defect, and which files are written where."""

    root: Path
    """The folder whose tree the output mirrors."""
    output: Path
    threshold: float
    """Probability in [0, 1] over which a pixel is a defect."""
    min_area: int
    """Pixels that a defect must have to make a part NG."""
    tile: bool = False
    """Images larger than the network's are taken, too, and run in overlapping tiles."""
    outputs: Outputs = Outputs()

    def options(self, backend: Backend) -> dict[str, Any]:
        """Everything on which masks and report depend, for :class:`Report`."""
        return {
            "input_root": str(self.root),
            "model_sha256": backend.artifact.sidecar.sha256,
            "backend": backend.name,
            "device": backend.device,
            "threshold": self.threshold,
            "min_area": self.min_area,
            "tile": self.tile,
            **asdict(self.outputs),
        }

    def name(self, path: Path) -> str:
        """What the report calls an image: its path below the root."""
        return path.relative_to(self.root).as_posix()

    def finish(self, scored: Scored, trace: Trace | None = None) -> Line:
        """Write the files of one image.

        Returns:
            Its line of the report.

        Raises:
            RuntimeUnavailable: the disk is full or read-only.
        """
        name = self.name(scored.path)
        if scored.image is None or scored.score is None:
            assert scored.error is not None
            error = scored.error
            return {"path": name, "status": "skipped", "reason": error.reason, "what": error.what}
        image, score, index = scored.image, scored.score, scored.index
        if trace is not None:
            trace.left_queue(index)
        with span(trace, "post-process", index):
            contours = self.outputs.contours
            defects = find_defects(score, self.threshold, self.min_area, contours=contours)
            mask = defect_mask(score, self.threshold)
            statistics = image_statistics(image, score, self.threshold)
        files: dict[str, Callable[[], bytes]] = {}
        files[f"masks/{png_name(name)}"] = lambda: encode_png(mask)
        if self.outputs.scores:
            files[f"scores/{png_name(name)}"] = lambda: encode_png(score)
        if self.outputs.overlays:
            files[f"overlays/{name}.jpg"] = lambda: encode_jpeg(overlay(image, mask))
        try:
            self._write(files, scored, trace)
        except ImageError as error:
            return {"path": name, "status": "skipped", "reason": error.reason, "what": error.what}
        return {
            "path": name,
            "status": "ok",
            "verdict": verdict(defects),
            "max_score": int(score.max()),
            "defects": [defect.as_fields(self.outputs.mm_per_px) for defect in defects],
            "statistics": statistics,
        }

    def _write(
        self, files: dict[str, Callable[[], bytes]], scored: Scored, trace: Trace | None
    ) -> None:
        """Write the files of one image, the mask, which is their first, at last.

        Raises:
            ImageError: the output needs such a name for a folder, as with ``a.jpg`` beside
                ``a.jpg.png/``, or cannot have so long a name.
        """
        try:
            for file in files:
                mirrored = self.root / file.partition("/")[2]
                if mirrored != scored.path and mirrored.is_dir():
                    what = f"{file} in the output is a folder's name"
                    raise ImageError(scored.path, "name-taken", what)
            for file, encode in reversed(files.items()):
                with span(trace, "encode", scored.index):
                    data = encode()
                with span(trace, "write", scored.index):
                    _put(self.output / file, data)
        except OSError as error:
            if error.errno != errno.ENAMETOOLONG:
                raise
            what = "is too long a name with .png behind"
            raise ImageError(scored.path, "name-too-long", what) from error


def inspect(
    paths: Iterable[Path],
    backend: Backend,
    inspection: Inspection,
    *,
    batch_size: int,
    workers: int,
    trace: Trace | None = None,
) -> Generator[Line]:
    """Score image files and write what the inspection says, all of it overlapped.

    Args:
        paths: below the inspection's root; taken as needed, never listed.
        batch_size: images per call of the backend.
        workers: threads that decode, and as many that write; with 0 nothing overlaps.
        trace: takes when each stage of each image was.

    Yields:
        The report line of each image, in order, once its files are in place.

    Raises:
        RuntimeUnavailable: the disk is full or read-only; what was written stays valid.
    """
    results = score_images(
        paths,
        backend,
        batch_size=batch_size,
        workers=workers,
        tile=inspection.tile,
        trace=trace,
    )
    writers = _executor(workers, "write")
    writing: deque[tuple[int, Future[Line]]] = deque()
    ahead_px = 2 * (batch_size + workers) * backend.contract.height * backend.contract.width

    def settled() -> Line:
        index, finished = writing.popleft()
        line = finished.result()
        if trace is not None:
            trace.left_queue(index)
        return line

    try:
        for scored in results:
            size = 1 if scored.image is None else scored.image.size
            most = max(ahead_px // size, 1) if workers else 0
            writing.append((scored.index, writers.submit(inspection.finish, scored, trace)))
            while writing and (writing[0][1].done() or len(writing) > most):
                yield settled()
        while writing:
            yield settled()
    finally:
        writers.shutdown(cancel_futures=True)
        results.close()


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
    shard: Shard | None = None,
    each: Callable[[Line], None] | None = None,
    trace: Trace | None = None,
) -> Summary:
    """Write masks and a report for image files and folders, or go on where a run stopped.

    Args:
        sources: image files and folders. The masks mirror the tree below their common folder.
        output: belongs to one input tree, one model and one set of options; refused if it belongs
            to others.
        threshold: probability in [0, 1].
        min_area: pixels that a defect must have to make a part NG.
        workers: threads that decode, and as many that write; with 0 nothing overlaps.
        tile: take images larger than the network's, too, and run them in overlapping tiles.
        shard: inspect these images only; the last shard to finish writes the whole report.
        each: called with the report line of each image, in order.
        trace: takes when each stage of each image was.

    Returns:
        Counts over the whole folder, or over the shard, what an earlier run did included.

    Raises:
        RefusedError: the output folder belongs to another run, or there is no image at all.
        RuntimeUnavailable: the disk is full or read-only; what was written stays valid.
    """
    inspection = Inspection(common_root(sources), output, threshold, min_area, tile, outputs)
    options = inspection.options(backend)

    def todo(report: Report) -> Iterator[Path]:
        for path in walk_images(sources, output):
            name = inspection.name(path)
            if (shard is None or name in shard) and name not in report:
                yield path

    def fill(report: Report) -> Summary:
        lines = inspect(
            todo(report),
            backend,
            inspection,
            batch_size=batch_size,
            workers=workers,
            trace=trace,
        )
        with contextlib.closing(lines):
            for index, line in enumerate(lines):
                with span(trace, "write", index):
                    report.add(line)
                if each:
                    each(line)
        if not report.summary.images and not shard:
            raise no_image(inspection.root)
        with span(trace, "write"):
            report.finish()
        return report.summary

    if shard is not None:
        return in_shards(output, options, shard, fill)
    refuse_shards(output)
    with span(trace, "write"):
        opened = Report(output, options)
    with opened as report:
        return fill(report)


def no_image(folder: Path) -> RefusedError:
    """The error of a folder without any image."""
    return RefusedError(folder, "holds no image", f"suffixes are {suffixes()}")


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
    label folders and ``output`` itself are passed over. A file that is named is always taken. A
    folder below a source that cannot be listed, or lies too deep, is given in the place of what is
    in it: it cannot be read as an image, which is then told.
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


def _walk(folder: Path, output: Path | None, depth: int = 0) -> Iterator[Path]:
    suffixes = tuple(IMAGE_SUFFIXES)
    names, folders = [], set()  # a folder of a million images costs their names
    try:
        if depth > MAX_DEPTH:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
        with reading(folder), os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if entry.is_dir(follow_symlinks=False):
                    folders.add(entry.name)
                elif not entry.name.lower().endswith(suffixes):
                    continue
                names.append(entry.name)
    except OSError as error:
        if depth:
            yield folder
            return
        raise RefusedError(folder, f"cannot be listed: {error.strerror}") from error
    names.sort()
    for name in names:
        path = folder / name
        if name not in folders:
            yield path
        elif path != output and not is_truth_folder(path):
            yield from _walk(path, output, depth + 1)


def suffixes() -> str:
    """The suffixes of images, for a message."""
    return " ".join(sorted(IMAGE_SUFFIXES))


def _put(path: Path, data: bytes) -> None:
    try:
        write_atomic(path, data)
    except FileNotFoundError:
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, data)
