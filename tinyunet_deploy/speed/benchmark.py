"""How fast artifacts run on backends, on real images, while their answers are checked."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import hashlib
import itertools
import math
import statistics
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from tinyunet_deploy.artifacts.sidecar import Artifact, Sidecar, kind_of, lineage, read_artifact
from tinyunet_deploy.backends.base import Backend
from tinyunet_deploy.backends.registry import open_backend
from tinyunet_deploy.backends.table import BackendChoice, BackendRow
from tinyunet_deploy.contract import Batch
from tinyunet_deploy.data import synthetic
from tinyunet_deploy.data.decoding import read_image
from tinyunet_deploy.data.encoding import write_png
from tinyunet_deploy.errors import (
    ArtifactError,
    DataError,
    RefusedError,
    RuntimeUnavailable,
    TinyUNetError,
)
from tinyunet_deploy.host import describe_machine
from tinyunet_deploy.inspection.defects import find_defects, verdict
from tinyunet_deploy.inspection.infer import infer
from tinyunet_deploy.inspection.scoring import score_images
from tinyunet_deploy.inspection.trace import Trace
from tinyunet_deploy.inspection.walk import common_root, walk_images
from tinyunet_deploy.quality.comparison import ScoreComparison
from tinyunet_deploy.quality.parity import backends_and_devices
from tinyunet_deploy.quality.parity_inputs import ComparedImage, find_images, find_reference
from tinyunet_deploy.quality.parity_limits import Limits, outcome_of
from tinyunet_deploy.quality.stored_scores import StoredScores
from tinyunet_deploy.speed.benchmark_result import (
    PERCENTILE_FORMULA,
    Benchmark,
    BrokenLimit,
    Ceiling,
    Images,
    Measurement,
    OutputCheck,
    Reference,
    Series,
    Skipped,
    StageTable,
    Throughput,
)
from tinyunet_deploy.speed.clock_rates import read_clock_rates
from tinyunet_deploy.speed.peaks import cpu_ceilings, gpu_ceilings
from tinyunet_deploy.speed.roofline import Work, count_work, roofline
from tinyunet_deploy.speed.stage_table import pipelined_rows, serial_rows

WARMUP: Final = 5
"""Requests of a row that are not counted, at least; every image is among them once."""
LEAST: Final = 10
"""Requests of a row that are counted, however long they take, unless their number is given."""
WINDOWS: Final = 5
"""Stretches in which throughput is measured."""
IN_MEMORY: Final = 64
"""Images that are kept in memory for it."""
TIMING_BOUNDARY: Final = (
    "Closed loop: one request of one batch at a time, on one thread. The next begins when the "
    "answer of the last was held against the reference's, which is not timed. end_to_end: reading "
    "the files (in the system's cache since the warm-up), decoding, stacking, call, threshold, "
    "connected regions, verdict; nothing is written. call: from uint8 images in memory to uint8 "
    "scores in memory. device_time: see synchronization. throughput: batches that lie in memory, "
    "as many in flight as the backend overlaps, from the start of the first to the end of the "
    "last. stages: the pipeline of infer, from files to mask files and report in a new folder."
)


@dataclass(frozen=True)
class Effort:
    """How long each row is measured."""

    duration_s: float = 10.0
    """Of the closed loop, and of the throughput."""
    samples: int | None = None
    """Requests of the closed loop, and batches of the throughput, instead of a duration."""


@dataclass(frozen=True)
class _Subject:
    """The images, and what the reference says of them."""

    parts: list[ComparedImage]
    scores: StoredScores
    threshold: float
    min_area: int


class _Watch:
    """Holds each image's first answer against the reference's, and any later one that differs."""

    def __init__(self, subject: _Subject) -> None:
        self._subject = subject
        self._comparison = ScoreComparison(subject.threshold, subject.min_area)
        self._seen: dict[int, int] = {}
        """Image -> checksum of its first answer."""
        self._answers = 0

    def hold(self, indices: Sequence[int], score: Batch) -> None:
        """Take the scores [N, 1, H, W] of N images."""
        subject = self._subject
        for index, answer in zip(indices, score[:, 0], strict=True):
            self._answers += 1
            checksum = zlib.crc32(answer.tobytes())
            if self._seen.setdefault(index, -1) != checksum:
                self._seen[index] = checksum
                part = subject.parts[index]
                self._comparison.add(
                    answer,
                    subject.scores[index],
                    part.name,
                    truth=part.truth(answer),
                    defective=part.defective,
                )

    def result(self, limits: Limits, sidecar: Sidecar, backend: str) -> OutputCheck:
        """Check the figures of all answers against the limits of the precision and backend."""
        figures = {name: float(value) for name, value in self._comparison.figures.items()}
        checks = limits.check(figures, sidecar.precision, backend)
        broken = tuple(
            BrokenLimit(check.limit.figure, check.value, str(check.limit), check.limit.reason)
            for check in checks
            if not check.holds
        )
        return OutputCheck(outcome_of(checks), len(self._seen), self._answers, figures, broken)


def benchmark(
    models: Sequence[Path],
    sources: Sequence[Path],
    *,
    limits: Limits,
    command: str,
    reference: Path | None = None,
    backends: Sequence[BackendChoice] | None = None,
    devices: Sequence[str] = ("cpu",),
    batch_sizes: Sequence[int] = (1,),
    effort: Effort = Effort(),
    images: int = 32,
    workers: int = 2,
    ceilings: Callable[[str], Iterator[tuple[str, Ceiling | TinyUNetError]]] | None = None,
    progress: Callable[[str], None] | None = None,
) -> tuple[Benchmark, list[tuple[str, Trace]]]:
    """Measure every artifact on every backend that takes it, in every batch size.

    The reference scores the images first; every answer of a backend, timed or not, is held against
    it with the limits of ``parity``. What cannot run is kept as skipped, with its reason.

    Args:
        models: artifacts of one image size.
        sources: image files and folders; synthetic images are made if there are none. Of a labelled
            data set the held-out images are taken.
        command: what the result says it was made by.
        reference: as for ``parity``.
        backends: names of backends, or rows or classes of the caller's own; all if None.
        images: at most so many, evenly spaced over those that are found.
        workers: decoding threads of the pipelined stage table, and as many that write.
        ceilings: device -> what it can do at most; :func:`measure_ceilings` if None.
        progress: takes what is being done.

    Returns:
        The result, and the record of every stage table, named.

    Raises:
        ArtifactError: a file is not the one that its sidecar describes.
        DataError: there is no usable image, or one has a single grey value throughout.
        RefusedError: no reference is found, or the models are of several image sizes.
        RuntimeUnavailable: the reference cannot run here.
    """
    tell = progress or (lambda _what: None)
    started = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    artifacts = {model: read_artifact(model) for model in models}
    contracts = {artifact.sidecar.contract for artifact in artifacts.values()}
    sizes = {(contract.height, contract.width) for contract in contracts}
    if len(sizes) > 1:
        raise RefusedError(models[0], "and the others take images of several sizes")
    size = sizes.pop()
    notes: list[str] = []
    limit: list[Ceiling] = []
    for device in devices:
        tell(f"ceilings of {device}")
        for name, found in (ceilings or measure_ceilings)(device):
            if isinstance(found, Ceiling):
                limit.append(found)
            else:
                notes.append(f"no ceiling {name}: {found}")
    works = {model: _work(artifact, notes) for model, artifact in artifacts.items()}
    measurements: list[Measurement] = []
    skipped: list[Skipped] = []
    tables: list[StageTable] = []
    traces: list[tuple[str, Trace]] = []
    with contextlib.ExitStack() as stack:
        scores = stack.enter_context(StoredScores())
        if sources:
            parts, folder = _find_parts(sources), common_root(sources).name
        else:
            folder = ""
            scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            parts = _synthesize(scratch, size, images)
        count = min(images, len(parts))
        parts = [parts[at * len(parts) // count] for at in range(count)]
        tell("reference")
        with open_backend(reference or find_reference(models[0]), size=size) as judge:
            subject, taken = _ask(judge, parts, scores, workers)
            about = _describe(judge)
        for model in artifacts:
            for row, device in backends_and_devices(model, backends, devices):
                refused = []
                for batch_size in batch_sizes:
                    what = f"{model.name} on {row.name}, batch {batch_size}"
                    tell(what)
                    try:
                        cell = _Row(subject, model, row, device, batch_size, effort)
                        measured, staged = cell.measure(limits, works[model], limit, workers)
                    except TinyUNetError as error:
                        refused.append(
                            Skipped(model.name, row.name, device, batch_size, str(error))
                        )
                        continue
                    measurements.append(measured)
                    bound = measured.roofline
                    if bound and max(bound.latency_percent, bound.throughput_percent) > 100:
                        notes.append(f"{what} is above the limit: this machine was not quiet")
                    for table, trace in staged:
                        tables.append(table)
                        traces.append((f"{what}, {table.mode}", trace))
                if len(refused) == len(batch_sizes) and len({r.reason for r in refused}) == 1:
                    refused = [dataclasses.replace(refused[0], batch_size=None)]
                skipped += refused
    result = Benchmark(
        command=command,
        started_utc=started,
        machine=describe_machine(),
        images=dataclasses.replace(
            taken, source="files" if sources else "synthetic", folder=folder
        ),
        reference=about,
        timing_boundary=TIMING_BOUNDARY,
        percentile_formula=PERCENTILE_FORMULA,
        measurements=tuple(measurements),
        skipped=tuple(skipped),
        stages=tuple(tables),
        ceilings=tuple(limit),
        notes=tuple(notes),
    )
    return result, traces


def measure_ceilings(device: str) -> Iterator[tuple[str, Ceiling | TinyUNetError]]:
    """What a device can do at most, name by name; an error is why a ceiling is not to be had."""
    if device == "cpu":
        yield from cpu_ceilings()
        return
    try:
        for ceiling in gpu_ceilings(device):
            yield ceiling.name, ceiling
    except TinyUNetError as error:
        yield device, error


# --- what it is measured on ---------------------------------------------------------------------


def _find_parts(sources: Sequence[Path]) -> list[ComparedImage]:
    if len(sources) == 1 and sources[0].is_dir():
        return find_images(sources[0])
    root = common_root(sources)
    parts = [
        ComparedImage(path, path.relative_to(root).as_posix(), None)
        for path in walk_images(sources)
    ]
    if not parts:
        raise DataError(root, "holds no image")
    return parts


def _synthesize(folder: Path, size: tuple[int, int], count: int) -> list[ComparedImage]:
    """Image files of all classes in turn, every other one defective."""
    height, width = size
    parts = []
    for index in range(count):
        class_id = synthetic.CLASSES[index % len(synthetic.CLASSES)]
        drawn = synthetic.sample(class_id, index, defective=index % 2 == 1, size=max(size))
        path = folder / f"{index:04}.png"
        write_png(path, np.ascontiguousarray(drawn.image[:height, :width]))
        parts.append(ComparedImage(path, path.name, None))
    return parts


def _ask(
    judge: Backend, parts: Sequence[ComparedImage], scores: StoredScores, workers: int
) -> tuple[_Subject, Images]:
    """Score the images with the reference, and look at what they are."""
    usable, errors = [], []
    checksum = hashlib.sha256()
    means, squares = [], []
    paths = [part.path for part in parts]
    for scored in score_images(paths, judge, batch_size=1, workers=workers):
        if scored.image is None or scored.score is None:
            errors.append(str(scored.error))
            continue
        if scored.image.min() == scored.image.max():
            raise DataError(
                scored.path, "has one grey value throughout", "a benchmark needs real images"
            )
        usable.append(parts[scored.index])
        scores.append(scored.score)
        checksum.update(scored.image.tobytes())
        means.append(float(scored.image.mean()))
        squares.append(float(np.square(scored.image, dtype=np.float64).mean()))
    if not usable:
        raise DataError(parts[0].path, "and the others cannot be used", errors[0])
    mean = statistics.fmean(means)
    sidecar = judge.artifact.sidecar
    taken = Images(
        source="",
        folder="",
        images=len(usable),
        sha256=checksum.hexdigest(),
        image_px=(judge.contract.height, judge.contract.width),
        mean=mean,
        standard_deviation=math.sqrt(max(statistics.fmean(squares) - mean**2, 0.0)),
        skipped=tuple(errors),
    )
    return _Subject(usable, scores, sidecar.threshold, sidecar.min_area), taken


def _describe(judge: Backend) -> Reference:
    sidecar = judge.artifact.sidecar
    return Reference(
        judge.artifact.path.name,
        sidecar.sha256,
        judge.name,
        judge.versions,
        sidecar.threshold,
        sidecar.min_area,
    )


def _work(artifact: Artifact, notes: list[str]) -> Work | None:
    """What the network does; that of a plan is counted in the ONNX file from which it was built."""
    try:
        if artifact.sidecar.kind == "plan":
            paths = [link.path for link in lineage(artifact.path) if link.path is not None]
            graph = next((path for path in paths if kind_of(path) == "onnx"), None)
            if graph is None:
                raise ArtifactError(artifact.path, "has no ONNX file beside it")
            artifact = read_artifact(graph)
        return count_work(artifact)
    except TinyUNetError as error:
        notes.append(f"no roofline of {artifact.path.name}: {error}")
        return None


# --- measuring ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Row:
    """One artifact on one backend in one batch size."""

    subject: _Subject
    model: Path
    backend: BackendRow
    device: str
    batch_size: int
    effort: Effort

    @property
    def name(self) -> str:
        """Name of the backend."""
        return self.backend.name

    def measure(
        self, limits: Limits, work: Work | None, ceilings: Sequence[Ceiling], workers: int
    ) -> tuple[Measurement, list[tuple[StageTable, Trace]]]:
        """Load, warm up, measure, and run the pipeline twice, all on the same loaded artifact.

        Raises:
            TinyUNetError: it does not run here.
        """
        with contextlib.suppress(RuntimeUnavailable):  # open_backend says what is wrong
            self.backend.load_class()
        started = time.perf_counter()
        with open_backend(self.model, self.backend, self.device) as backend:
            load_ms = _ms_since(started)
            least, most = backend.min_batch, backend.max_batch or self.batch_size
            if not least <= self.batch_size <= most:
                raise RefusedError(
                    self.model,
                    f"takes batches of {least} to {most} here",
                    "tinyunet parity -b N --record verifies larger ones",
                )
            sidecar = backend.artifact.sidecar
            watch = _Watch(self.subject)
            first = _images(self.subject, self._request(0))
            started = time.perf_counter()
            score = backend.run(first).score
            first_inference_ms = _ms_since(started)
            watch.hold(self._request(0), score)
            warmup = max(WARMUP, -(-len(self.subject.parts) // self.batch_size))
            for number in range(warmup):
                self._time(backend, watch, number)
            before = read_clock_rates(self.device)
            device_time, call, end_to_end = self._closed_loop(backend, watch)
            throughput = self._throughput(backend, watch, statistics.median(call))
            after = read_clock_rates(self.device)
            bound = None
            if work is not None:
                bound = roofline(
                    work,
                    ceilings,
                    device=self.device,
                    batch_size=self.batch_size,
                    latency_ms=statistics.median(device_time),
                    images_per_s=throughput.images_per_s,
                )
            measured = Measurement(
                model=self.model.name,
                model_sha256=sidecar.sha256,
                precision=sidecar.precision,
                backend=self.name,
                device=self.device,
                batch_size=self.batch_size,
                versions=backend.versions,
                threads=backend.threads,
                synchronization=backend.synchronization,
                load_ms=load_ms,
                first_inference_ms=first_inference_ms,
                warmup_n=warmup,
                device_time=Series(tuple(device_time)),
                call=Series(tuple(call)),
                end_to_end=Series(tuple(end_to_end)),
                throughput=throughput,
                check=watch.result(limits, sidecar, self.name),
                clocks_before=before,
                clocks_after=after,
                roofline=bound,
            )
            staged = [self._stages(backend, throughput, count) for count in (0, workers)]
        return measured, staged

    def _request(self, number: int) -> list[int]:
        """Which images the request takes: the next ones, round and round."""
        count = len(self.subject.parts)
        return [(number * self.batch_size + row) % count for row in range(self.batch_size)]

    def _time(self, backend: Backend, watch: _Watch, number: int) -> tuple[float, float, float]:
        """Device time, call and end to end of one request, ms."""
        indices = self._request(number)
        subject = self.subject
        started = time.perf_counter()
        image = _images(subject, indices)
        called = time.perf_counter()
        run = backend.run(image)
        call_ms = _ms_since(called)
        for score in run.score[:, 0]:
            verdict(find_defects(score, subject.threshold, subject.min_area))
        end_to_end_ms = _ms_since(started)
        watch.hold(indices, run.score)
        return run.device_ms, call_ms, end_to_end_ms

    def _closed_loop(
        self, backend: Backend, watch: _Watch
    ) -> tuple[list[float], list[float], list[float]]:
        end = time.perf_counter() + self.effort.duration_s
        times = []
        for number in itertools.count():
            if self.effort.samples is not None:
                if number == self.effort.samples:
                    break
            elif number >= LEAST and time.perf_counter() > end:
                break
            times.append(self._time(backend, watch, number))
        device_time, call, end_to_end = (list(series) for series in zip(*times, strict=True))
        return device_time, call, end_to_end

    def _throughput(self, backend: Backend, watch: _Watch, call_ms: float) -> Throughput:
        """Batches back to back; the last answer of every window is checked too."""
        known = max(1, min(IN_MEMORY, len(self.subject.parts)) // self.batch_size)
        requests = [self._request(number) for number in range(known)]
        batches = [_images(self.subject, request) for request in requests]
        wanted = self.effort.samples or self.effort.duration_s * 1e3 / call_ms
        count = max(2, round(wanted / WINDOWS))
        windows, seconds = [], 0.0
        for _ in range(WINDOWS):
            started = time.perf_counter()
            for run in backend.run_many(itertools.islice(itertools.cycle(batches), count)):
                last = run
            took = time.perf_counter() - started
            seconds += took
            windows.append(count * self.batch_size / took)
            watch.hold(requests[(count - 1) % known], last.score)
        images = WINDOWS * count * self.batch_size
        return Throughput(images, seconds, tuple(windows), images / seconds)

    def _stages(
        self, backend: Backend, throughput: Throughput, workers: int
    ) -> tuple[StageTable, Trace]:
        """Run the pipeline of ``infer``; with 0 workers one thing after the other."""
        trace = Trace()
        with tempfile.TemporaryDirectory() as scratch:
            started = time.perf_counter()
            summary = infer(
                [part.path for part in self.subject.parts],
                Path(scratch) / "out",
                backend,
                threshold=self.subject.threshold,
                min_area=self.subject.min_area,
                batch_size=self.batch_size,
                workers=workers,
                trace=trace,
            )
            wall_s = time.perf_counter() - started
        rows = pipelined_rows(trace, wall_s) if workers else serial_rows(trace, wall_s, summary.ok)
        images_per_s = summary.ok / wall_s
        table = StageTable(
            model=self.model.name,
            model_sha256=backend.artifact.sidecar.sha256,
            backend=self.name,
            device=self.device,
            batch_size=self.batch_size,
            mode="pipelined" if workers else "serial",
            workers=workers,
            images=summary.ok,
            wall_s=wall_s,
            images_per_s=images_per_s,
            share_of_raw=images_per_s / throughput.images_per_s,
            total_ms_per_image=math.fsum(row.ms_per_image for row in rows),
            rows=rows,
        )
        return table, trace


def _images(subject: _Subject, indices: Sequence[int]) -> Batch:
    return np.stack([read_image(subject.parts[index].path) for index in indices])[:, None]


def _ms_since(started: float) -> float:
    return (time.perf_counter() - started) * 1e3
