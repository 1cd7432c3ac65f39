"""Measure one row of a benchmark: one artifact on one backend with one batch size.

A call takes a batch of the model's inputs: images of its size, padded images, or tiles. A request
takes as many images from their files to their verdicts, in one call, or in as many as their tiles
need.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np

from tinyunet_deploy.artifacts.sidecar import kind_of
from tinyunet_deploy.backends.base import Backend
from tinyunet_deploy.backends.registry import open_backend, read_tried
from tinyunet_deploy.backends.table import BackendRow
from tinyunet_deploy.clock import SYSTEM_CLOCK, Clock
from tinyunet_deploy.contract import Image, Score
from tinyunet_deploy.data.tiles import Mosaic, Tiling, fit_of
from tinyunet_deploy.errors import RefusedError, RuntimeUnavailable
from tinyunet_deploy.files import scratch_folder
from tinyunet_deploy.inspection.defects import find_defects, verdict
from tinyunet_deploy.inspection.infer import infer
from tinyunet_deploy.inspection.trace import Trace
from tinyunet_deploy.quality.parity_limits import Limits
from tinyunet_deploy.speed.answer_check import AnswerCheck
from tinyunet_deploy.speed.benchmark_images import BenchmarkImages
from tinyunet_deploy.speed.benchmark_result import Ceiling, Measurement, StageTable, Throughput
from tinyunet_deploy.speed.clock_rates import read_clock_rates
from tinyunet_deploy.speed.roofline import Work, roofline
from tinyunet_deploy.speed.stage_table import pipelined_rows, serial_rows
from tinyunet_deploy.speed.time_samples import TimeSamples

__all__ = ["BOUNDARY", "Effort", "Row"]

LEAST_WARMUP: Final = 5
"""Smallest number of requests that are not counted; every image is in one of them."""
LEAST_REQUESTS: Final = 10
"""Smallest number of counted requests, however long they take, unless their number is given."""
WINDOWS: Final = 5
"""Number of windows in which throughput is measured."""
IN_MEMORY: Final = 64
"""Largest number of images that are kept in memory for the throughput."""
BOUNDARY: Final = (
    "Closed loop: one request of one batch at a time, on one thread. The next begins when the "
    "answer of the last was compared with the reference's, which is not measured. end_to_end: "
    "reading the files (in the system's cache since the warm-up), decoding, stacking, call, "
    "threshold, connected regions, verdict; nothing is written. call: from uint8 images in memory "
    "to uint8 scores in memory. device_time: see synchronization. Of an image larger than the "
    "model's each tile is one input; a request makes as many calls as its tiles need, the last "
    "filled with copies, and end_to_end includes them, cutting and composing. throughput: batches "
    "that lie in memory, as many in flight as the backend overlaps, from the start of the first to "
    "the end of the last. stages: the pipeline of infer, from files to mask files and report in a "
    "new folder."
)
"""Start and end of each series of times, in words."""


@dataclass(frozen=True)
class Effort:
    """Length of the measurement of a row."""

    duration_s: float = 10.0
    """Seconds of the closed loop, and then of the throughput."""
    samples: int | None = None
    """Requests of the closed loop, and batches of the throughput, instead of a duration."""


class _CallTimes(NamedTuple):
    """Milliseconds of one call of the backend."""

    device_ms: float
    call_ms: float


class _RequestTimes(NamedTuple):
    """Times of one request."""

    calls: list[_CallTimes]
    end_to_end_ms: float


@dataclass(frozen=True)
class Row:
    """One artifact on one backend with one batch size, and the settings of its measurement."""

    images: BenchmarkImages
    model: Path
    backend: BackendRow
    device: str
    batch_size: int
    effort: Effort
    clock: Clock = SYSTEM_CLOCK
    trust_engine: bool = False
    """True if the artifact may lack a sidecar."""

    def measure(
        self, limits: Limits, work: Work | None, ceilings: Sequence[Ceiling], workers: int
    ) -> tuple[Measurement, list[tuple[StageTable, Trace]]]:
        """Load, warm up, measure, and run the pipeline twice, all with the same loaded artifact.

        Args:
            limits: limits that the answers must keep.
            work: operations and bytes of the network; None leaves the roofline out.
            ceilings: peak rates of the machine.
            workers: threads of the pipelined stage table.

        Raises:
            TinyUNetError: the artifact does not run on this machine.
        """
        with contextlib.suppress(RuntimeUnavailable):  # open_backend says what is wrong
            self.backend.load_class()
        if self.trust_engine and kind_of(self.model) == "onnx":  # before the clock: a trial
            read_tried(self.model, trust_engine=True, runtime=self.backend.sandbox)
        started_s = self.clock.now_s()
        with open_backend(
            self.model, self.backend, self.device, trust_engine=self.trust_engine
        ) as backend:
            load_ms = self._ms_since(started_s)
            self._require_batch_size(backend)
            answers = AnswerCheck(self.images)
            first_inference_ms = self._first_call(backend, answers)
            warmup = max(LEAST_WARMUP, -(-len(self.images.images) // self.batch_size))
            for number in range(warmup):
                self._request(backend, answers, number)
            before = read_clock_rates(self.device)
            times = list(self._closed_loop(backend, answers))
            device_ms, call_ms = zip(*(call for time in times for call in time.calls), strict=True)
            throughput = self._throughput(backend, answers, statistics.median(call_ms))
            after = read_clock_rates(self.device)
            bound = None
            if work is not None and self.backend.compute is None:  # else no ceiling is measured
                bound = roofline(
                    work,
                    ceilings,
                    device=self.device,
                    batch_size=self.batch_size,
                    latency_ms=statistics.median(device_ms),
                    images_per_s=throughput.inputs_per_s or throughput.images_per_s,
                )
            sidecar = backend.artifact.sidecar
            measurement = Measurement(
                model=self.model.name,
                model_sha256=sidecar.sha256,
                precision=sidecar.precision,
                backend=self.backend.name,
                device=self.device,
                batch_size=self.batch_size,
                versions=backend.versions,
                threads=backend.threads,
                synchronization=backend.synchronization,
                load_ms=load_ms,
                first_inference_ms=first_inference_ms,
                warmup_n=warmup,
                device_time=TimeSamples(device_ms),
                call=TimeSamples(call_ms),
                end_to_end=TimeSamples(tuple(time.end_to_end_ms for time in times)),
                throughput=throughput,
                check=answers.result(limits, sidecar, self.backend.name),
                clocks_before=before,
                clocks_after=after,
                roofline=bound,
            )
            stages = [self._stages(backend, throughput, count) for count in (0, workers)]
        return measurement, stages

    def _require_batch_size(self, backend: Backend) -> None:
        least, most = backend.min_batch, backend.max_batch or self.batch_size
        if not least <= self.batch_size <= most:
            raise RefusedError(
                self.model,
                f"takes batches of {least} to {most}, not {self.batch_size}",
                "tinyunet parity -b N --record verifies larger ones",
            )

    def _next_of(self, count: int, number: int) -> list[int]:
        """Return the images or inputs of batch ``number``: the next of ``count``, in endless
        rounds."""
        return [(number * self.batch_size + row) % count for row in range(self.batch_size)]

    def _first_call(self, backend: Backend, answers: AnswerCheck) -> float:
        numbers = self._next_of(len(self.images.inputs), 0)
        batch = self.images.batch(numbers)
        started_s = self.clock.now_s()
        score = backend.run(batch).score
        first_ms = self._ms_since(started_s)
        answers.add(numbers, score)
        return first_ms

    def _request(self, backend: Backend, answers: AnswerCheck, number: int) -> _RequestTimes:
        """Run one request from files to verdicts."""
        indices = self._next_of(len(self.images.images), number)
        calls, scores = [], []
        started_s = self.clock.now_s()
        parts = [_Part(self.images.read(index), self.images.tiling) for index in indices]
        inputs = [pixels for part in parts for pixels in part.inputs]
        for first in range(0, len(inputs), self.batch_size):
            batch = inputs[first : first + self.batch_size]
            batch += batch[-1:] * (self.batch_size - len(batch))
            stacked = np.stack(batch)[:, None]
            called_s = self.clock.now_s()
            run = backend.run(stacked)
            calls.append(_CallTimes(run.device_ms, self._ms_since(called_s)))
            scores += list(run.score[:, 0])
        of_inputs = iter(scores)
        for part in parts:
            score = part.score(of_inputs)
            verdict(find_defects(score, self.images.threshold, self.images.min_area))
        end_to_end_ms = self._ms_since(started_s)
        numbers = [number for index in indices for number in self.images.inputs_of_image[index]]
        answers.add(numbers, scores[: len(numbers)])
        return _RequestTimes(calls, end_to_end_ms)

    def _closed_loop(self, backend: Backend, answers: AnswerCheck) -> Iterator[_RequestTimes]:
        """Run requests one after the other."""
        end_s = self.clock.now_s() + self.effort.duration_s
        for number in itertools.count():
            if self.effort.samples is not None:
                if number == self.effort.samples:
                    return
            elif number >= LEAST_REQUESTS and self.clock.now_s() > end_s:
                return
            yield self._request(backend, answers, number)

    def _throughput(self, backend: Backend, answers: AnswerCheck, call_ms: float) -> Throughput:
        """Run batches back to back; the last answer of every window is checked too.

        Args:
            call_ms: median time of a call, from which the number of batches for a duration follows.
        """
        inputs = len(self.images.inputs)
        known = max(1, min(IN_MEMORY, inputs) // self.batch_size)
        requests = [self._next_of(inputs, number) for number in range(known)]
        batches = [self.images.batch(request) for request in requests]
        wanted = self.effort.samples or self.effort.duration_s * 1e3 / call_ms
        count = max(2, round(wanted / WINDOWS))
        inputs_per_image = self.images.facts.inputs_per_image
        windows, seconds = [], 0.0
        for _ in range(WINDOWS):
            started_s = self.clock.now_s()
            for run in backend.run_many(itertools.islice(itertools.cycle(batches), count)):
                last = run
            window_s = self.clock.now_s() - started_s
            seconds += window_s
            windows.append(count * self.batch_size / inputs_per_image / window_s)
            answers.add(requests[(count - 1) % known], last.score)
        scored = WINDOWS * count * self.batch_size
        per_s = scored / seconds
        return Throughput(scored, seconds, tuple(windows), per_s / inputs_per_image, per_s)

    def _stages(
        self, backend: Backend, throughput: Throughput, workers: int
    ) -> tuple[StageTable, Trace]:
        """Run the pipeline of ``infer``; with 0 workers one image after the other."""
        trace = Trace()
        with scratch_folder() as scratch:
            started_s = self.clock.now_s()
            summary = infer(
                [image.path for image in self.images.images],
                scratch / "out",
                backend,
                threshold=self.images.threshold,
                min_area=self.images.min_area,
                batch_size=self.batch_size,
                workers=workers,
                bits=self.images.bits,
                max_pixels=self.images.max_pixels,
                trace=trace,
                say_notes=False,
            )
            wall_s = self.clock.now_s() - started_s
        rows = (
            pipelined_rows(trace, wall_s)
            if workers
            else serial_rows(trace, wall_s, summary.inspected)
        )
        images_per_s = summary.inspected / wall_s
        table = StageTable(
            model=self.model.name,
            model_sha256=backend.artifact.sidecar.sha256,
            backend=self.backend.name,
            device=self.device,
            batch_size=self.batch_size,
            mode="pipelined" if workers else "serial",
            workers=workers,
            images=summary.inspected,
            wall_s=wall_s,
            images_per_s=images_per_s,
            share_of_raw=images_per_s / throughput.images_per_s,
            total_ms_per_image=math.fsum(row.ms_per_image for row in rows),
            rows=rows,
        )
        return table, trace

    def _ms_since(self, started_s: float) -> float:
        return (self.clock.now_s() - started_s) * 1e3


class _Part:
    """One image of a request: its inputs, and the score that is composed of theirs."""

    def __init__(self, image: Image, tiling: Tiling) -> None:
        whole = fit_of(image.shape, tiling.contract) == "whole"
        self._mosaic = None if whole else Mosaic(image, tiling)
        self.inputs = [image] if self._mosaic is None else list(self._mosaic.tiles())

    def score(self, of_inputs: Iterator[Score]) -> Score:
        """Take the scores of the inputs and return the score of the image."""
        if self._mosaic is None:
            return next(of_inputs)
        for _ in self.inputs:
            self._mosaic.add(next(of_inputs))
        return self._mosaic.score
