"""Inspect image files and folders into an output folder, resuming where an earlier run stopped."""

from __future__ import annotations

import contextlib
import functools
import threading
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path

from tinyunet_deploy import systems
from tinyunet_deploy.backends.base import Backend
from tinyunet_deploy.data.description_file import described_bits
from tinyunet_deploy.errors import RuntimeUnavailable, TinyUNetError
from tinyunet_deploy.inspection.executors import executor
from tinyunet_deploy.inspection.file_processes import FileProcesses
from tinyunet_deploy.inspection.notes import log_notes
from tinyunet_deploy.inspection.outputs import Inspection, Observer, Outputs
from tinyunet_deploy.inspection.report_line import ReportLine, RunSummary
from tinyunet_deploy.inspection.resume import Resume
from tinyunet_deploy.inspection.run_report import Report
from tinyunet_deploy.inspection.scoring import score_images
from tinyunet_deploy.inspection.shards import Shard, in_shards, refuse_shards
from tinyunet_deploy.inspection.trace import Trace, timed
from tinyunet_deploy.inspection.walk import common_root, no_images, walk_images

__all__ = ["infer", "inspect_images"]


def infer(
    sources: Sequence[Path],
    output: Path,
    backend: Backend,
    *,
    threshold: float | None = None,
    min_area: int | None = None,
    batch_size: int,
    workers: int,
    tile: bool = True,
    bits: int | None = None,
    max_pixels: int | None = None,
    outputs: Outputs | None = None,
    observer: Observer | None = None,
    shard: Shard | None = None,
    on_line: Callable[[ReportLine], None] | None = None,
    on_total: Callable[[int], None] | None = None,
    trace: Trace | None = None,
    say_notes: bool = True,
) -> RunSummary:
    """Write masks and a report for image files and folders, or resume a run that stopped.

    A verdict belongs to the bytes of its image: images that changed since an earlier run, or whose
    mask is missing, are inspected again, and those that are gone leave the report. Dropped verdicts
    are logged with the reason.

    Args:
        sources: image files and folders. The masks mirror the tree below their common folder.
        output: output folder, which belongs to one input tree, one model and one set of options;
            refused if it belongs to others.
        threshold: probability in [0, 1]; None takes the one in the sidecar.
        min_area: smallest defect that makes a part NG, pixels; None takes the one in the sidecar.
        batch_size: images per call of the backend.
        workers: threads that decode, and as many that write; with 0 nothing overlaps. If they
            limit the rate, as many processes take their place.
        tile: take images of any size; False skips those that are not of the network's size.
        bits: depth of 16-bit files, 8..16; None takes the one that a ``dataset.toml`` of the
            sources states, else the one in the sidecar.
        max_pixels: largest accepted height x width of an image; None is 64 megapixels.
        outputs: optional files beside masks and report.
        observer: takes the name, image and score of each inspected image, on any thread, before its
            line is reported.
        shard: share of the images to inspect; the last shard to finish writes the whole report.
        on_line: called with the report line of each image, in order.
        on_total: called once with the number of images that this run will inspect, as soon as they
            are counted, from a thread of its own.
        trace: records the stages of each image.
        say_notes: log the notes on the scores, which the summary has in any case.

    Returns:
        Counts over the whole output folder, including images of earlier runs.

    Raises:
        RefusedError: the output folder belongs to another run, or there is no image at all.
        RuntimeUnavailable: the disk is full or read-only; files that were written stay valid.
    """
    bits = described_bits(sources, bits, backend.artifact.sidecar.bits)
    root = common_root(sources)
    inspection = Inspection.for_backend(
        backend, root, output, threshold, min_area, tile, outputs, bits, max_pixels, observer
    )
    options = inspection.options(backend, "infer")
    resume = Resume(inspection, lambda: map(inspection.name, walk_images(sources, output)))
    passed_over = Counter[str]()

    def remaining(report: Report) -> Iterator[Path]:
        for path in walk_images(sources, output, passed_over):
            name = inspection.name(path)
            if (shard is None or name in shard) and name not in report:
                yield path

    def count(before: int, on_total: Callable[[int], None]) -> None:
        with contextlib.suppress(TinyUNetError, OSError):  # the run itself meets it, too
            names = map(inspection.name, walk_images(sources, output))
            on_total(sum(shard is None or name in shard for name in names) - before)

    def fill(report: Report) -> RunSummary:
        resume.log_faults()
        if on_total is not None:
            arguments = report.summary.images, on_total
            threading.Thread(target=count, args=arguments, name="count", daemon=True).start()
        lines = inspect_images(
            remaining(report),
            backend,
            resume.inspection,
            batch_size=batch_size,
            workers=workers,
            trace=trace,
            processes=workers > 1
            and trace is None
            and observer is None  # it takes images and scores of this process
            and systems.INHERITS_DESCRIPTORS,
        )
        with contextlib.closing(lines):
            for index, line in enumerate(lines):
                with timed(trace, "write", index):
                    report.add(line)
                if on_line:
                    on_line(line)
        if not report.summary.images and not shard:
            raise no_images(inspection.root)
        with timed(trace, "write"):
            report.finish(passed_over)
        if say_notes:
            log_notes(report.summary.notes)
        return report.summary

    if shard is not None:
        return in_shards(output, options, shard, resume, fill)
    refuse_shards(output)
    with timed(trace, "write"):
        opened = Report(output, options, resume.keep)
    with opened as report:
        refuse_shards(output)  # check again, now that no shard can begin
        return fill(report)


def inspect_images(
    paths: Iterable[Path],
    backend: Backend,
    inspection: Inspection,
    *,
    batch_size: int,
    workers: int,
    trace: Trace | None = None,
    processes: bool = False,
) -> Generator[ReportLine]:
    """Score image files and write their output files; reading, scoring and writing overlap.

    Args:
        paths: files below the inspection's root; consumed as needed, never listed.
        batch_size: images per call of the backend.
        workers: threads that decode, and as many that write; with 0 nothing overlaps.
        trace: records the stages of each image, without ``processes``.
        processes: once the decoding threads are busy most of the time, let as many processes do
            their work (:mod:`~tinyunet_deploy.inspection.file_processes`), without an observer.

    Yields:
        The report line of each image, in order, once its files are in place.

    Raises:
        RuntimeUnavailable: the disk is full or read-only; files that were written stay valid.
    """
    batch_size = backend.batch_size(batch_size)
    files = None
    if processes:
        files = FileProcesses(inspection, backend.contract, batch_size=batch_size, workers=workers)
    in_queue = files.in_queue if files else 2 * workers
    results = score_images(
        paths,
        backend,
        batch_size=batch_size,
        workers=workers,
        tile=inspection.tile,
        identify=True,
        depth=inspection.depth,
        max_pixels=inspection.max_pixels,
        trace=trace,
        decode=files.decode if files else None,
        ahead=batch_size + in_queue,
    )
    writers = executor(workers, "write")
    write_here = functools.partial(inspection.finish, trace=trace)
    finish = files.finish if files else lambda scored: writers.submit(write_here, scored)
    pending: deque[tuple[int, Future[ReportLine]]] = deque()
    ahead_px = (2 * batch_size + in_queue) * backend.contract.height * backend.contract.width

    def oldest_line() -> ReportLine:
        index, future = pending.popleft()
        line = future.result()
        if trace is not None:
            trace.left_queue(index)
        return line

    lost: RuntimeUnavailable | None = None
    with contextlib.ExitStack() as ending:
        if files:
            ending.enter_context(backend.scores_into(files.new_scores))
            ending.callback(files.close)
        ending.callback(results.close)  # its threads wait for images that are being decoded
        ending.callback(writers.shutdown, cancel_futures=True)
        while True:
            try:
                scored = next(results, None)
            except RuntimeUnavailable as error:
                lost = error
                break
            if scored is None:
                break
            size = 1 if scored.image is None else scored.image.size
            most = max(ahead_px // size, 1) if workers else 0
            pending.append((scored.index, finish(scored)))
            while pending and (pending[0][1].done() or len(pending) > most):
                yield oldest_line()
        while pending:  # also those scored before a device was lost, but none past a failed write
            yield oldest_line()
        if lost is not None:
            raise lost
