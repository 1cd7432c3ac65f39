"""A TensorRT plan on an NVIDIA GPU."""

from __future__ import annotations

import dataclasses
import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from tinyunet_deploy.artifacts.sidecar import Artifact
from tinyunet_deploy.backends import nvidia_probe
from tinyunet_deploy.backends.base import Backend, Run
from tinyunet_deploy.backends.cuda_device import Device, Graph, Memory, PyCUDADevice
from tinyunet_deploy.backends.double_buffer import DoubleBuffer, Slot
from tinyunet_deploy.backends.layer_profiler import LayerTimes, layer_profiler
from tinyunet_deploy.backends.nvidia_probe import TensorRT
from tinyunet_deploy.backends.plan_check import (
    check_gpu,
    check_recorded,
    check_release,
    contract_of,
    fitting_profile,
)
from tinyunet_deploy.contract import INPUT_NAME, OUTPUT_NAME, Batch
from tinyunet_deploy.errors import ArtifactError, RuntimeUnavailable, unavailable


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

    A plan whose sidecar names another TensorRT or GPU is refused before it is loaded, unless it was
    built to be compatible with it.

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
        return self._loaded.buffers.run_many(map(self._checked, images))

    def _run(self, image: Batch) -> Run:
        return next(self._loaded.buffers.run_many(iter([image])))

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
    handle: int
    """Address of the slot's stream."""
    failed: Callable[[], RuntimeUnavailable]
    """Function that returns the error of a refused execution."""

    def enqueue(self) -> None:
        """Queue the engine's work on the slot's stream."""
        if self.graph is not None:
            self.graph.launch()
        elif not self.context.execute_async_v3(self.handle):
            raise self.failed()


class _Loaded:
    """A deserialised plan and its slots; each method makes the GPU's context current."""

    def __init__(self, artifact: Artifact, trt: Any, device: Device, graphs: bool) -> None:
        self._path = artifact.path
        self._trt = trt
        self._device = device
        self._graphs = graphs
        self._log = nvidia_probe.logger(trt)
        self._buffers: DoubleBuffer | None = None
        self._runtime: Any = None
        self._engine: Any = None
        self._activations: Memory | None = None
        self._size = len(artifact.data)
        self._free_before = 0
        try:
            with device.current():
                self._load(artifact)
        except BaseException:
            self.close()
            raise

    def _load(self, artifact: Artifact) -> None:
        self._free_before = self._device.free_bytes()
        self._runtime = self._trt.Runtime(self._log)
        plan = artifact.sidecar.plan
        if plan is None or plan.version_compatible:  # it has a lean runtime, a program; the user
            self._runtime.engine_host_code_allowed = True  # built it, or chose to trust it
        self._engine = self._runtime.deserialize_cuda_engine(artifact.data)
        if self._engine is None:
            raise ArtifactError(self._path, f"TensorRT refuses it: {self._log.reason()}")
        self.contract, self._profiles = contract_of(self._engine, self._trt, artifact)
        self._activations = self._device.allocate(max(self._engine.device_memory_size_v2, 1))
        size = self.contract.height, self.contract.width
        self._buffers = DoubleBuffer(self._device, *size, self._program, self._rows)
        assert self.contract.max_batch is not None
        self._buffers.open(self.contract.max_batch)

    @property
    def buffers(self) -> DoubleBuffer:
        """The batches in flight, which share the activations."""
        assert self._buffers is not None
        return self._buffers

    def _rows(self, batch: int) -> int:
        _, rows = fitting_profile(self._profiles, batch)
        return rows

    def layer_information(self, batch_size: int) -> str:
        with self._device.current():
            fit = fitting_profile(self._profiles, batch_size)
            context = self._context(self.buffers.idle_slot(), *fit)
            inspector = self._engine.create_engine_inspector()
            inspector.execution_context = context
            text: str = inspector.get_engine_information(self._trt.LayerInformationFormat.JSON)
            return text

    def profile_layers(self, images: Batch, calls: int) -> list[LayerTimes]:
        with self._device.current():
            slot = self.buffers.idle_slot()
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
            self.buffers.buffer_bytes,
            max(taken, 0),
        )

    def _context(self, slot: Slot, profile: int, rows: int) -> Any:
        """Return an execution context that has run one batch of ``rows`` images in a slot."""
        assert self._activations is not None
        self.buffers.synchronize()
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

    def _program(self, slot: Slot, rows: int) -> _Program:
        context = self._context(slot, *fitting_profile(self._profiles, rows))
        handle = slot.stream.handle
        graph = None
        if self._graphs:
            graph = self._device.capture(
                slot.stream, lambda: bool(context.execute_async_v3(handle))
            )
        return _Program(context, graph, handle, self._failed)

    def _failed(self) -> RuntimeUnavailable:
        return unavailable(self._path, f"TensorRT does not run it: {self._log.reason()}")

    def close(self) -> None:
        """Free everything while the context is current."""
        with self._device.current():
            if self._buffers is not None:
                self._buffers.close()
            self._activations = self._engine = self._runtime = None
        self._device.close()
