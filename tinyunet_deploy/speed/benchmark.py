"""Measure how fast artifacts run on backends, on real images, while their answers are checked."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tinyunet_deploy.artifacts.sidecar import Artifact
from tinyunet_deploy.backends.base import Backend
from tinyunet_deploy.backends.registry import read_tried
from tinyunet_deploy.backends.table import BackendChoice, BackendRow
from tinyunet_deploy.errors import RefusedError, TinyUNetError
from tinyunet_deploy.host import describe_machine
from tinyunet_deploy.inspection.trace import Trace
from tinyunet_deploy.quality.parity_inputs import backends_and_devices
from tinyunet_deploy.quality.parity_limits import Limits
from tinyunet_deploy.quality.reference import Reference, choose_reference, open_reference
from tinyunet_deploy.speed.benchmark_images import BenchmarkImages, open_benchmark_images
from tinyunet_deploy.speed.benchmark_result import (
    Benchmark,
    Ceiling,
    Measurement,
    ReferenceFacts,
    SkippedRow,
    StageTable,
)
from tinyunet_deploy.speed.peaks import measure_ceilings
from tinyunet_deploy.speed.plan_source import onnx_source
from tinyunet_deploy.speed.roofline import Work, count_work
from tinyunet_deploy.speed.row import BOUNDARY, Effort, Row
from tinyunet_deploy.speed.time_samples import PERCENTILE_FORMULA

__all__ = ["MeasureCeilings", "run_benchmark"]

MeasureCeilings = Callable[[str], Iterator[tuple[str, Ceiling | TinyUNetError]]]
"""Function that takes a device, and yields each ceiling by name or the error that prevents it."""


def run_benchmark(
    models: Sequence[Path],
    sources: Sequence[Path],
    *,
    limits: Limits,
    command: str,
    reference: Path | None = None,
    folders: Sequence[Path] = (),
    backends: Sequence[BackendChoice] | None = None,
    devices: Sequence[str] = (),
    batch_sizes: Sequence[int] = (1,),
    effort: Effort,
    images: int = 32,
    tile: bool = True,
    bits: int | None = None,
    max_pixels: int | None = None,
    workers: int = 2,
    trust_engine: bool = False,
    ceilings: MeasureCeilings | None = None,
    progress: Callable[[str], None] | None = None,
    on_total: Callable[[int], None] | None = None,
) -> tuple[Benchmark, list[tuple[str, Trace]]]:
    """Measure every artifact on every backend that takes it, with every batch size.

    The reference scores the images first; every answer of a backend, measured or not, is checked
    against it with the limits of ``parity``. Rows that cannot run are listed as skipped, with the
    reason.

    Args:
        models: artifacts of one image size.
        sources: image files and folders; empty generates synthetic images. From a labelled data set
            the held-out images are taken.
        command: the command line that the result records.
        reference, folders, backends, devices: as for ``parity``.
        effort: how long each row is measured.
        images: largest number of images; if there are more, evenly spaced ones are used.
        tile: take images of any size; False leaves out those that are not of the models' size.
        bits: depth of 16-bit files, 8..16; None takes the one in the reference's sidecar.
        max_pixels: largest accepted height x width of an image; None is 64 megapixels.
        workers: decoding threads of the pipelined stage table, and as many that write.
        trust_engine: as for ``parity``.
        ceilings: function that measures the peak rates of a device; None is
            :func:`measure_ceilings`.
        progress: function that is called with a description of the current measurement.
        on_total: called once with the number of measurements.

    Returns:
        The result, and the trace of every stage table with its name.

    Raises:
        ArtifactError: a file is not the one that its sidecar describes.
        DataError: there is no usable image, or one has a single grey value throughout.
        RefusedError: no reference is found, or the models take images of several sizes.
        RuntimeUnavailable: the reference cannot run on this machine.
    """
    report = progress or (lambda _step: None)
    started_utc = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    artifacts = {model: read_tried(model, trust_engine=trust_engine) for model in models}
    size = _one_size(artifacts)
    rows = _Rows(limits, effort, workers, trust_engine, report)
    pairs = {model: list(backends_and_devices(model, backends, devices)) for model in models}
    measured = sorted({device for chosen in pairs.values() for _, device in chosen})
    if on_total is not None:
        on_total(len(measured) + 1 + len(batch_sizes) * sum(map(len, pairs.values())))
    for device in measured:
        report(f"ceilings of {device}")
        rows.add_ceilings((ceilings or measure_ceilings)(device))
    works = {model: rows.count_work(artifact) for model, artifact in artifacts.items()}
    report("reference")
    with contextlib.ExitStack() as stack:
        choice = choose_reference(models[0], reference, folders, trust_engine=trust_engine)
        with open_reference(choice, size, trust_engine=trust_engine) as (choice, opened):
            scored = stack.enter_context(
                open_benchmark_images(
                    sources, opened, count=images, tile=tile, bits=bits, max_pixels=max_pixels
                )
            )
            facts = _reference_facts(choice, opened)
        for model, work in works.items():
            for backend, device in pairs[model]:
                rows.measure(scored, model, work, backend, device, batch_sizes)
    result = Benchmark(
        command=command,
        started_utc=started_utc,
        machine=describe_machine(),
        images=scored.facts,
        reference=facts,
        timing_boundary=BOUNDARY,
        percentile_formula=PERCENTILE_FORMULA,
        measurements=tuple(rows.measurements),
        skipped=tuple(rows.skipped),
        stages=tuple(rows.stages),
        ceilings=tuple(rows.ceilings),
        notes=(*scored.notes, *rows.notes),
    )
    return result, rows.traces


def _one_size(artifacts: dict[Path, Artifact]) -> tuple[int, int]:
    """Return height and width of the images that all artifacts take."""
    contracts = {artifact.sidecar.contract for artifact in artifacts.values()}
    sizes = {(contract.height, contract.width) for contract in contracts}
    if len(sizes) > 1:
        raise RefusedError(
            next(iter(artifacts)), "and the other models take images of different sizes"
        )
    return sizes.pop()


def _reference_facts(reference: Reference, opened: Backend) -> ReferenceFacts:
    sidecar = opened.artifact.sidecar
    return ReferenceFacts(
        model=reference.path.name,
        model_sha256=sidecar.sha256,
        backend=opened.name,
        versions=opened.versions,
        threshold=sidecar.threshold,
        min_area_px=sidecar.min_area,
        role=reference.role,
        reason=reference.reason,
        golden_largest_steps=reference.golden_steps,
        description=reference.describe(opened.name),
    )


@dataclass
class _Rows:
    """Measures rows and collects the results."""

    limits: Limits
    effort: Effort
    workers: int
    trust_engine: bool
    report: Callable[[str], None]
    measurements: list[Measurement] = field(default_factory=list)
    skipped: list[SkippedRow] = field(default_factory=list)
    stages: list[StageTable] = field(default_factory=list)
    traces: list[tuple[str, Trace]] = field(default_factory=list)
    ceilings: list[Ceiling] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add_ceilings(self, ceilings: Iterator[tuple[str, Ceiling | TinyUNetError]]) -> None:
        """Store the ceilings, and note the ones that cannot be measured."""
        for name, ceiling in ceilings:
            if isinstance(ceiling, Ceiling):
                self.ceilings.append(ceiling)
            else:
                self.notes.append(f"no ceiling {name}: {ceiling}")

    def count_work(self, artifact: Artifact) -> Work | None:
        """Count the operations of a network; for a plan, those of its ONNX file."""
        try:
            return count_work(
                onnx_source(artifact) if artifact.sidecar.kind == "plan" else artifact
            )
        except TinyUNetError as error:
            self.notes.append(f"no roofline of {artifact.path.name}: {error}")
            return None

    def measure(
        self,
        images: BenchmarkImages,
        model: Path,
        work: Work | None,
        backend: BackendRow,
        device: str,
        batch_sizes: Sequence[int],
    ) -> None:
        """Measure an artifact on a backend with every batch size."""
        skipped = []
        for batch_size in batch_sizes:
            name = f"{model.name} on {backend.name}, batch {batch_size}"
            self.report(name)
            try:
                row = Row(
                    images,
                    model,
                    backend,
                    device,
                    batch_size,
                    self.effort,
                    trust_engine=self.trust_engine,
                )
                measurement, stages = row.measure(self.limits, work, self.ceilings, self.workers)
            except TinyUNetError as error:
                skipped.append(SkippedRow(model.name, backend.name, device, batch_size, str(error)))
                continue
            self.measurements.append(measurement)
            bound = measurement.roofline
            if bound and max(bound.latency_percent, bound.throughput_percent) > 100:
                self.notes.append(f"{name} is above the limit: this machine was not quiet")
            for table, trace in stages:
                self.stages.append(table)
                self.traces.append((f"{name}, {table.mode}", trace))
        if len(skipped) == len(batch_sizes) and len({row.reason for row in skipped}) == 1:
            skipped = [dataclasses.replace(skipped[0], batch_size=None)]
        self.skipped += skipped
