"""Files to scores to files: decoding, running and writing overlap, and every queue is bounded."""

from __future__ import annotations

import contextlib
import errno
import heapq
import itertools
import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from operator import attrgetter
from pathlib import Path
from typing import Final

import numpy as np

from tinyunet_deploy.backends import Backend
from tinyunet_deploy.contract import Batch, Contract, Image, Score, defect_mask
from tinyunet_deploy.dagm2007 import is_truth_folder
from tinyunet_deploy.defects import find_defects, verdict
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
    paths: Iterable[Path], backend: Backend, *, batch_size: int, workers: int
) -> Generator[Scored]:
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
    decoded = _decode_ahead(paths, backend.contract, decoders, batch_size + 2 * workers)
    scored_batches = _run_batches(_batches(decoded, batch_size), backend)
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
        image = read_image(path, size=(contract.height, contract.width))
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


@dataclass(frozen=True)
class Outputs:
    """What ``infer`` writes beside masks and report."""

    overlays: bool = False
    """``overlays/NAME.jpg``: the image with the mask's outline."""
    scores: bool = False
    """``scores/NAME``: the score as a grey PNG."""


def infer(
    sources: Sequence[Path],
    output: Path,
    backend: Backend,
    *,
    threshold: float,
    min_area: int,
    batch_size: int,
    workers: int,
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
        "overlays": outputs.overlays,
        "scores": outputs.scores,
    }

    def name_of(path: Path) -> str:
        return path.relative_to(root).as_posix()

    def finish(scored: Scored) -> Line:
        name = name_of(scored.path)
        if scored.image is None or scored.score is None:
            assert scored.error is not None
            error = scored.error
            return {"path": name, "status": "skipped", "reason": error.reason, "what": error.what}
        defects = find_defects(scored.score, threshold, min_area)
        mask = defect_mask(scored.score, threshold)
        files = {f"masks/{png_name(name)}": encode_png(mask)}
        if outputs.scores:
            files[f"scores/{png_name(name)}"] = encode_png(scored.score)
        if outputs.overlays:
            files[f"overlays/{name}.jpg"] = encode_jpeg(overlay(scored.image, mask))
        try:
            _put_all(files, output, scored.path, root)
        except ImageError as error:
            return {"path": name, "status": "skipped", "reason": error.reason, "what": error.what}
        return {
            "path": name,
            "status": "ok",
            "verdict": verdict(defects),
            "max_score": int(scored.score.max()),
            "defects": [asdict(defect) for defect in defects],
        }

    with Report(output, options) as report, contextlib.ExitStack() as cleanup:
        todo = (path for path in walk_images(sources, output) if name_of(path) not in report)
        results = score_images(todo, backend, batch_size=batch_size, workers=workers)
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

        for scored in results:
            writing.append(writers.submit(finish, scored))
            settle(2 * (batch_size + workers))
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
    try:
        if depth > MAX_DEPTH:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
        with os.scandir(folder) as entries:
            found = sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        if depth:
            yield folder
            return
        raise RefusedError(folder, f"cannot be listed: {error.strerror}") from error
    for entry in found:
        path = folder / entry.name
        if entry.name.startswith(".") or path == output:
            continue
        if entry.is_dir(follow_symlinks=False):
            if not is_truth_folder(path):
                yield from _walk(path, output, depth + 1)
        elif path.suffix.lower() in IMAGE_SUFFIXES:
            yield path


def suffixes() -> str:
    """The suffixes of images, for a message."""
    return " ".join(sorted(IMAGE_SUFFIXES))


def _put_all(files: dict[str, bytes], output: Path, image: Path, root: Path) -> None:
    """Write the files of one image, the mask, which is their first, at last.

    Raises:
        ImageError: the output needs such a name for a folder, as with ``a.jpg`` beside
            ``a.jpg.png/``, or cannot have so long a name.
    """
    try:
        for file in files:
            mirrored = root / file.partition("/")[2]
            if mirrored != image and mirrored.is_dir():
                what = f"{file} in the output is a folder's name"
                raise ImageError(image, "name-taken", what)
        for file in reversed(files):
            _put(output / file, files[file])
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        raise ImageError(image, "name-too-long", "is too long a name with .png behind") from error


def _put(path: Path, data: bytes) -> None:
    try:
        write_atomic(path, data)
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, data)
