"""Measure a TensorRT plan for its engine report."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np

from tinyunet_deploy.artifacts.sidecar import Artifact
from tinyunet_deploy.backends.registry import read_tried
from tinyunet_deploy.backends.tensorrt import TensorRTBackend
from tinyunet_deploy.contract import Batch
from tinyunet_deploy.errors import GateFailed, TinyUNetError
from tinyunet_deploy.files import write_atomic
from tinyunet_deploy.speed.benchmark_result import Benchmark, Ceiling
from tinyunet_deploy.speed.clock_rates import read_clock_rates
from tinyunet_deploy.speed.engine.layer_info import LayerInfo, layers_json, parse_layer_info
from tinyunet_deploy.speed.engine.layer_profile import LayerProfile, profile_json, profile_of
from tinyunet_deploy.speed.engine.network_names import NetworkNames, network_names
from tinyunet_deploy.speed.engine.page import write_page
from tinyunet_deploy.speed.engine.report import CallTimes, EngineReport, layer_rows
from tinyunet_deploy.speed.engine.report_file import report_json
from tinyunet_deploy.speed.plan_source import onnx_source
from tinyunet_deploy.speed.time_samples import TimeSamples

__all__ = [
    "MeasuredEngine",
    "OpenPlan",
    "measure_engine",
    "report_engines",
    "write_engine_report",
]

OpenPlan = Callable[[Artifact, str, bool], TensorRTBackend]
"""Function that loads a plan on a device, with CUDA graphs or without."""
ROUNDS: Final = 4
"""Turns that the runs with and without graphs take."""
WARM_UP: Final = 10
"""Calls before the timed ones of a turn."""
BOUNDARY: Final = (
    "One batch at a time. copy in: from the images in memory to page-locked memory, and from "
    "there to the GPU; compute: CUDA events around the engine; copy out: the way back; enqueue: "
    "the time of the CPU to hand over the engine's work. images/s: from arrays in memory to "
    "arrays in memory, two batches in flight. The layers were profiled in another run."
)


class MeasuredEngine(NamedTuple):
    """A report, and the layer information and profile that it was made from."""

    report: EngineReport
    info: LayerInfo
    profile: LayerProfile


def measure_engine(
    artifact: Artifact,
    device: str,
    images: Batch,
    *,
    calls: int = 200,
    ceilings: Sequence[Ceiling] = (),
    open_plan: OpenPlan | None = None,
) -> MeasuredEngine:
    """Profile the layers of a plan, then time it with and without CUDA graphs.

    Args:
        artifact: a plan.
        device: ``cuda:N``.
        images: uint8 [N, 1, H, W], one batch.
        calls: profiled calls, and timed calls with and without graphs.
        ceilings: measured peak rates; those of the device are used.
        open_plan: function that loads the plan; None loads it with the installed TensorRT.

    Raises:
        ArtifactError: TensorRT refuses the plan.
        GateFailed: the scores with and without graphs differ by more than one step.
        RuntimeUnavailable: TensorRT or the GPU is missing or fails.
    """
    notes = []
    names = NetworkNames()
    try:
        names = network_names(onnx_source(artifact).data)
    except (TinyUNetError, ValueError) as error:
        notes.append(f"The network's own names are not known: {error}")
    load = open_plan or (lambda plan, where, graphs: TensorRTBackend(plan, where, graphs=graphs))
    with contextlib.ExitStack() as stack:
        plain = stack.enter_context(load(artifact, device, False))
        info = parse_layer_info(plain.layer_information(len(images)))
        profile = profile_of(plain.profile_layers(images, calls))
        memory = plain.memory
        graphs = stack.enter_context(load(artifact, device, True))
        _require_equal(artifact.path, plain.run(images).score, graphs.run(images).score)
        before = read_clock_rates(device)
        series = _time_calls({False: plain, True: graphs}, images, calls)
        after = read_clock_rates(device)
        sidecar = plain.artifact.sidecar
    rows, more = layer_rows(
        info, profile, names, len(images), [part for part in ceilings if part.device == device]
    )
    energy = None
    if before.gpu_energy_j is not None and after.gpu_energy_j is not None:
        done = len(images) * 2 * ROUNDS * (WARM_UP + 2 * -(-calls // ROUNDS))
        energy = (after.gpu_energy_j - before.gpu_energy_j) / done
    report = EngineReport(
        model=artifact.path.name,
        model_sha256=sidecar.sha256,
        precision=sidecar.precision,
        batch_size=len(images),
        origin="measured",
        boundary=BOUNDARY,
        layers=rows,
        detailed=info.detailed,
        profiled_calls=profile.calls,
        calls=series,
        memory=memory,
        build=None if sidecar.plan is None else dataclasses.replace(sidecar.plan, audit=None),
        clocks_before=before,
        clocks_after=after,
        energy_j_per_image=energy,
        ceilings=tuple(ceilings),
        notes=(*notes, *more),
    )
    return MeasuredEngine(report, info, profile)


def _require_equal(path: Path, plain: Batch, graphs: Batch) -> None:
    apart = int(np.abs(plain.astype(int) - graphs).max())
    if apart > 1:
        raise GateFailed(path, f"answers {apart} apart of 255 with and without CUDA graphs")


def _time_calls(
    backends: dict[bool, TensorRTBackend], images: Batch, calls: int
) -> tuple[CallTimes, ...]:
    """Time the backends in turns; each makes at least ``calls`` calls in all."""
    runs: dict[bool, list[tuple[float, ...]]] = {graph: [] for graph in backends}
    seconds = dict.fromkeys(backends, 0.0)
    per_turn = -(-calls // ROUNDS)
    for _, (graph, backend) in itertools.product(range(ROUNDS), backends.items()):
        for _ in range(WARM_UP):
            backend.run(images)
        for _ in range(per_turn):
            run = backend.run(images)
            enqueue_ms = run.enqueue_ms or 0.0
            runs[graph].append((enqueue_ms, run.copy_in_ms, run.device_ms, run.copy_out_ms))
        started = time.perf_counter()
        for _ in backend.run_many(itertools.repeat(images, per_turn)):
            pass
        seconds[graph] += time.perf_counter() - started
    series = []
    for graph, samples in runs.items():
        parts = [TimeSamples(tuple(part)) for part in zip(*samples, strict=True)]
        enqueue, copy_in, compute, copy_out = parts
        images_per_s = ROUNDS * per_turn * len(images) / seconds[graph]
        series.append(CallTimes(graph, enqueue, copy_in, compute, copy_out, images_per_s))
    return tuple(series)


def write_engine_report(measured: MeasuredEngine, folder: Path) -> list[Path]:
    """Write a report and what it was made from into a folder.

    ``NAME`` is that of the plan with its batch size. ``NAME.json``, ``NAME.html`` and ``NAME.md``
    are the report. ``layers_NAME.json`` and ``profile_NAME.json`` are what NVIDIA's performance
    analysis reads. ``NAME.layer-info.json`` is what ``trtexec --exportLayerInfo`` writes.

    Returns:
        The files.

    Raises:
        RuntimeUnavailable: jinja2 is not installed, or the disk does not take a file.
    """
    report = measured.report
    name = f"{report.model.removesuffix('.plan')}-batch{report.batch_size}"
    form = measured.info.form
    texts = {
        f"{name}.json": report_json(report),
        f"layers_{name}.json": layers_json(measured.info, form, bare=True),
        f"profile_{name}.json": profile_json(measured.profile),
        f"{name}.layer-info.json": layers_json(measured.info, form, bare=False),
    }
    folder.mkdir(parents=True, exist_ok=True)
    for file, text in texts.items():
        write_atomic(folder / file, text.encode())
    pages = [folder / f"{name}{suffix}" for suffix in (".html", ".md")]
    for page in pages:
        write_page([report], page)
    return [*pages, *(folder / file for file in texts)]


def report_engines(
    result: Benchmark,
    models: Sequence[Path],
    folder: Path,
    *,
    trust_engine: bool,
    progress: Callable[[str], None],
) -> list[Path]:
    """Measure every plan that a benchmark measured, and write its engine report.

    The images are random, as the times do not depend on what is on them.

    Args:
        models: the files that were measured.
        progress: function that is called with a description of the current measurement.

    Returns:
        The HTML pages.

    Raises:
        TinyUNetError: a plan no longer runs.
    """
    paths = {path.name: path for path in models}
    pages = []
    for row in result.measurements:
        if row.backend != TensorRTBackend.name:
            continue
        progress(f"{row.model}, batch {row.batch_size}")
        artifact = read_tried(paths[row.model], trust_engine=trust_engine)
        contract = artifact.sidecar.contract
        shape = (row.batch_size, 1, contract.height, contract.width)
        images = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
        measured = measure_engine(artifact, row.device, images, ceilings=result.ceilings)
        pages.append(write_engine_report(measured, folder)[0])
    return pages
