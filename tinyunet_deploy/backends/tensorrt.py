"""A TensorRT plan on an NVIDIA GPU."""

from __future__ import annotations

import contextlib
import dataclasses
import time
import weakref
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any, Final, NamedTuple

from tinyunet_deploy.artifacts.sidecar import Artifact
from tinyunet_deploy.backends import nvidia_probe
from tinyunet_deploy.backends.base import Backend, Run
from tinyunet_deploy.backends.cuda_device import Device, Event, Graph, Memory, PyCUDADevice
from tinyunet_deploy.backends.layer_profiler import LayerTimes, layer_profiler
from tinyunet_deploy.backends.nvidia_probe import TensorRT
from tinyunet_deploy.backends.plan_check import (
    check_gpu,
    check_recorded,
    check_release,
    contract_of,
    fitting_profile,
)
from tinyunet_deploy.contract import INPUT_NAME, OUTPUT_NAME, Batch, Contract
from tinyunet_deploy.errors import ArtifactError, RuntimeUnavailable, unavailable

SLOTS: Final = 2
"""Batches in flight: one is copied while the other is computed."""


@dataclasses.dataclass(frozen=True)
class EngineMemory:
    """GPU memory of a loaded plan, bytes."""

    plan: int
    """Size of the file."""
    weights: int | None
    """All weights of the engine; None if TensorRT does not report them."""
    activations: int
    """Activations and workspace of the largest batch; one batch computes at a time."""
    buffers: int
    """Images and scores of the batches in flight."""
    taken: int
    """Free memory before loading minus free memory now: the peak, as all of it is allocated at
    loading and at the first call of a batch size. Other processes disturb it."""


class TensorRTBackend(Backend):
    """A TensorRT plan on an NVIDIA GPU.

    A plan whose sidecar names another TensorRT or GPU is refused before it is loaded.

    Args:
        artifact: a plan. If its sidecar does not describe a plan, the user chose to trust it, and
            its contract is read from the plan.
        device: ``cuda:N``.
        tensorrt: the TensorRT that runs it; the installed one of the sidecar's flavour if None.
        gpu: the GPU that runs it; the one that ``device`` names if None.
        graphs: replay each batch size's work as one CUDA graph where that can be captured.

    Raises:
        ArtifactError: the plan was built for another TensorRT or GPU, is damaged, or breaks our
            contract.
        RuntimeUnavailable: TensorRT, pycuda, the driver, the GPU or its memory is missing.
    """

    name = "tensorrt"

    def __init__(
        self,
        artifact: Artifact,
        device: str = "cuda:0",
        *,
        tensorrt: TensorRT | None = None,
        gpu: Device | None = None,
        graphs: bool = True,
    ) -> None:
        super().__init__(artifact, device)
        check_recorded(artifact)
        plan = artifact.sidecar.plan
        if tensorrt is None:
            tensorrt = _installed(None if plan is None else plan.flavour)
        if plan is not None:
            check_release(artifact, tensorrt)
        if gpu is None:
            index = nvidia_probe.gpu_index(device)
            if plan is not None:
                check_gpu(artifact, nvidia_probe.gpu(index))
            gpu = PyCUDADevice(index)
        elif plan is not None:
            check_gpu(artifact, gpu.gpu)
        self._loaded = _Loaded(artifact, tensorrt.module, gpu, graphs)
        self._close = weakref.finalize(self, self._loaded.close)
        self._versions = {tensorrt.flavour: tensorrt.version, **gpu.versions}
        sidecar = dataclasses.replace(artifact.sidecar, contract=self._loaded.contract)
        self.artifact = dataclasses.replace(artifact, sidecar=sidecar)

    @property
    def versions(self) -> dict[str, str]:
        """Package name -> version of each package that computes the scores."""
        return self._versions

    @property
    def synchronization(self) -> str:
        """Meaning of ``Run.device_ms``, and how the end of that time is determined."""
        return "CUDA events in the batch's stream around the engine, the stream waited for"

    def run_many(self, images: Iterable[Batch]) -> Iterator[Run]:
        """Score batches in order, with two in flight so that copies overlap computing."""
        return self._loaded.run_many(map(self._checked, images))

    def _run(self, image: Batch) -> Run:
        return next(self._loaded.run_many(iter([image])))

    def layer_information(self, batch_size: int) -> str:
        """Return what TensorRT's inspector says about every layer, as JSON, for a batch size."""
        return self._loaded.layer_information(batch_size)

    def profile_layers(self, images: Batch, calls: int) -> list[LayerTimes]:
        """Time every layer over a number of calls, in a context of its own, without a CUDA graph.

        The profiler slows the engine down, so the sum of the layers is not the time of a batch.

        Args:
            images: uint8 [N, 1, H, W].
            calls: number of calls, after one that is not counted.

        Returns:
            One element for each layer, in the order in which they run.
        """
        return self._loaded.profile_layers(self._checked(images), calls)

    @property
    def memory(self) -> EngineMemory:
        """GPU memory of the plan."""
        return self._loaded.memory()

    def close(self) -> None:
        """Free the GPU's memory."""
        self._close()


def _installed(flavour: str | None) -> TensorRT:
    """Import the flavour that the plan needs, else any flavour, so that the error can name it."""
    try:
        return nvidia_probe.tensorrt(flavour)
    except RuntimeUnavailable:
        return nvidia_probe.tensorrt()


class _Program(NamedTuple):
    """Execution context of one batch size in one slot, and its CUDA graph if it was captured.

    TensorRT requires a separate execution context for each captured graph.
    """

    context: Any
    graph: Graph | None


class _Slot:
    """Stream, buffers and events of one batch in flight."""

    def __init__(self) -> None:
        self.programs: dict[int, _Program] = {}
        """Batch size -> program that runs it."""
        self.batch: int | None = None
        """Images in flight; None if the slot is free."""
        self.staging_ms = 0.0
        """Time to copy the images into page-locked memory, milliseconds."""
        self.enqueue_ms = 0.0
        """Time in which the engine's work was handed to the GPU, milliseconds."""

    def open(self, device: Device, contract: Contract) -> None:
        """Allocate the stream, buffers and events on the GPU."""
        assert contract.max_batch is not None
        shape = (contract.max_batch, 1, contract.height, contract.width)
        self.stream = device.stream()
        self.image, self.score = device.pinned(shape), device.pinned(shape)
        self.device_image, self.device_score = (
            device.allocate(self.image.nbytes),
            device.allocate(self.score.nbytes),
        )
        self.uploading, self.uploaded = device.event(), device.event()
        self.begin, self.end, self.downloaded = device.event(), device.event(), device.event()

    def close(self) -> None:
        """Free everything now, even if a loop or a traceback still refers to the slot."""
        vars(self).clear()


class _Loaded:
    """A deserialised plan and its slots; each method makes the GPU's context current."""

    def __init__(self, artifact: Artifact, trt: Any, device: Device, graphs: bool) -> None:
        self._path = artifact.path
        self._trt = trt
        self._device = device
        self._graphs = graphs
        self._log = nvidia_probe.logger(trt)
        self._slots: list[_Slot] = []
        self._runtime: Any = None
        self._engine: Any = None
        self._activations: Memory | None = None
        self._size = len(artifact.data)
        self._free_before = 0
        self._computed: Event | None = None
        """End of the last batch's computing; the next waits for it, as slots share activations."""
        try:
            with device.current():
                self._load(artifact)
        except BaseException:
            self.close()
            raise

    def _load(self, artifact: Artifact) -> None:
        self._free_before = self._device.free_bytes()
        self._runtime = self._trt.Runtime(self._log)
        self._engine = self._runtime.deserialize_cuda_engine(artifact.data)
        if self._engine is None:
            raise ArtifactError(self._path, f"TensorRT refuses it: {self._log.reason()}")
        self.contract, self._profiles = contract_of(self._engine, self._trt, artifact)
        self._activations = self._device.allocate(max(self._engine.device_memory_size_v2, 1))
        self._slots += [_Slot() for _ in range(SLOTS)]
        for slot in self._slots:
            slot.open(self._device, self.contract)

    def run_many(self, images: Iterator[Batch]) -> Iterator[Run]:
        running: deque[_Slot] = deque()
        try:
            for image in images:
                while (slot := self._free_slot()) is None:
                    yield self._finish(running.popleft())
                self._start(slot, image)
                running.append(slot)
            while running:
                yield self._finish(running.popleft())
        finally:
            for slot in running:
                if slot in self._slots:  # not closed in the meantime
                    self._finish(slot)

    def _free_slot(self) -> _Slot | None:
        return next((slot for slot in self._slots if slot.batch is None), None)

    def _start(self, slot: _Slot, image: Batch) -> None:
        profile, rows = fitting_profile(self._profiles, len(image))
        with self._device.current():
            program = slot.programs.get(rows)
            if program is None:
                program = slot.programs[rows] = self._program(slot, profile, rows)
            started = time.perf_counter()
            slot.image[: len(image)] = image
            slot.staging_ms = (time.perf_counter() - started) * 1e3
            slot.uploading.record(slot.stream)
            self._device.upload(slot.image[:rows], slot.device_image, slot.stream)
            slot.uploaded.record(slot.stream)
            if self._computed is not None:
                slot.stream.wait_for_event(self._computed)
            slot.begin.record(slot.stream)
            started = time.perf_counter()
            if program.graph is not None:
                program.graph.launch()
            elif not program.context.execute_async_v3(slot.stream.handle):
                slot.stream.synchronize()
                raise self._failed()
            slot.enqueue_ms = (time.perf_counter() - started) * 1e3
            slot.end.record(slot.stream)
            self._computed = slot.end
            self._device.download(slot.device_score, slot.score[:rows], slot.stream)
            slot.downloaded.record(slot.stream)
        slot.batch = len(image)

    def _finish(self, slot: _Slot) -> Run:
        batch, slot.batch = slot.batch, None
        with self._device.current():
            slot.stream.synchronize()
            started = time.perf_counter()
            score = slot.score[:batch].copy()
            copied_ms = (time.perf_counter() - started) * 1e3
            return Run(
                score,
                slot.end.time_since(slot.begin),
                copy_in_ms=slot.staging_ms + slot.uploaded.time_since(slot.uploading),
                copy_out_ms=slot.downloaded.time_since(slot.end) + copied_ms,
                enqueue_ms=slot.enqueue_ms,
            )

    def _idle_slot(self) -> _Slot:
        slot = self._free_slot()
        if slot is None:
            raise ValueError("expected no batch in flight, got two")
        return slot

    def layer_information(self, batch_size: int) -> str:
        with self._device.current():
            fit = fitting_profile(self._profiles, batch_size)
            context = self._context(self._idle_slot(), *fit)
            inspector = self._engine.create_engine_inspector()
            inspector.execution_context = context
            text: str = inspector.get_engine_information(self._trt.LayerInformationFormat.JSON)
            return text

    def profile_layers(self, images: Batch, calls: int) -> list[LayerTimes]:
        with self._device.current():
            slot = self._idle_slot()
            context = self._context(slot, *fitting_profile(self._profiles, len(images)))
            slot.image[: len(images)] = images
            self._device.upload(slot.image, slot.device_image, slot.stream)
            profiler = layer_profiler(self._trt)
            context.profiler = profiler
            context.enqueue_emits_profile = False  # the times are asked for after the call
            for call in range(calls + 1):
                profiler.begin(counted=call > 0)
                done = context.execute_async_v3(slot.stream.handle)
                slot.stream.synchronize()
                if not (done and context.report_to_profiler()):
                    raise self._failed()
            layers: list[LayerTimes] = profiler.layers()
            return layers

    def memory(self) -> EngineMemory:
        has_stat = hasattr(self._trt, "EngineStat")  # since TensorRT 10.4
        weights = (
            self._engine.get_engine_stat(self._trt.EngineStat.TOTAL_WEIGHTS_SIZE)
            if has_stat
            else None
        )
        with self._device.current():
            taken = self._free_before - self._device.free_bytes()
        return EngineMemory(
            self._size,
            weights if weights is not None and weights >= 0 else None,
            self._engine.device_memory_size_v2,
            sum(slot.image.nbytes + slot.score.nbytes for slot in self._slots),
            max(taken, 0),
        )

    def _context(self, slot: _Slot, profile: int, rows: int) -> Any:
        """Return an execution context that has run one batch of ``rows`` images in a slot."""
        assert self._activations is not None
        for other in self._slots:
            other.stream.synchronize()
        context = self._engine.create_execution_context(
            self._trt.ExecutionContextAllocationStrategy.USER_MANAGED
        )
        if context is None:
            raise self._failed()
        context.set_device_memory(int(self._activations), self._engine.device_memory_size_v2)
        shape = (rows, *slot.image.shape[1:])
        handle = slot.stream.handle
        ready = (
            # profile 0 is set from the start, and is the only one that a context may take unasked
            (profile == 0 or context.set_optimization_profile_async(profile, handle))
            and context.set_input_shape(INPUT_NAME, shape)
            and context.set_tensor_address(INPUT_NAME, int(slot.device_image))
            and context.set_tensor_address(OUTPUT_NAME, int(slot.device_score))
            and not context.infer_shapes()
            # run once uncaptured: what TensorRT does on the first call must not get into the graph
            and context.execute_async_v3(handle)
        )
        slot.stream.synchronize()
        if not ready:
            raise self._failed()
        return context

    def _program(self, slot: _Slot, profile: int, rows: int) -> _Program:
        context = self._context(slot, profile, rows)
        handle = slot.stream.handle
        graph = None
        if self._graphs:
            graph = self._device.capture(
                slot.stream, lambda: bool(context.execute_async_v3(handle))
            )
        return _Program(context, graph)

    def _failed(self) -> RuntimeUnavailable:
        return unavailable(self._path, f"TensorRT does not run it: {self._log.reason()}")

    def close(self) -> None:
        """Free everything while the context is current."""
        with self._device.current():
            for slot in self._slots:
                if slot.batch is not None:
                    with contextlib.suppress(RuntimeUnavailable):
                        slot.stream.synchronize()
            for slot in self._slots:
                slot.close()
            self._slots.clear()
            self._computed = self._activations = self._engine = self._runtime = None
        self._device.close()
