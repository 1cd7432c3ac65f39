"""A checkpoint in PyTorch: in float32 the reference for the scores of every other backend."""

from __future__ import annotations

import importlib.metadata
import time
import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import ClassVar, Final, NamedTuple

import torch

from tinyunet_deploy.artifacts.checkpoint import network_of
from tinyunet_deploy.artifacts.network import DeployableGraph
from tinyunet_deploy.artifacts.sidecar import Artifact
from tinyunet_deploy.backends.base import Backend, Run
from tinyunet_deploy.backends.cuda_device import Graph
from tinyunet_deploy.backends.double_buffer import DoubleBuffer, Slot
from tinyunet_deploy.backends.torch_device import TorchCUDADevice, TorchDevice
from tinyunet_deploy.contract import Batch
from tinyunet_deploy.errors import RefusedError, RuntimeUnavailable

__all__ = ["TorchBackend", "TorchBf16Backend", "TorchFp16Backend"]

_WARM_UP: Final = 3
"""Calls before a graph is captured, in which cuDNN chooses its kernels; as in PyTorch's notes on
CUDA graphs."""
_BF16_CAPABILITY: Final = 8.0
"""First compute capability that computes in bfloat16, NVIDIA's Ampere."""


class TorchBackend(Backend):
    """A checkpoint in PyTorch, in float32 and channels-last memory format.

    A CPU computes one image at a time: the rounding of oneDNN's convolutions depends on the batch
    size, which would change scores by 1, and larger batches are not faster on a CPU.

    A GPU has two batches in flight, so that copies from and to page-locked memory overlap
    computing. TF32 is off: it rounds the factors of a product to 10 bits.

    Args:
        artifact: a checkpoint.
        device: ``cpu`` or ``cuda:N``.
        gpu: the GPU that computes; the one that ``device`` names if None.
        graphs: replay each batch size's work on a GPU as one CUDA graph.

    Raises:
        RefusedError: a weight is not finite in the number type.
        RuntimeUnavailable: torch sees no such GPU, or it does not compute in the number type.
    """

    name = "torch"
    number_type: ClassVar[torch.dtype] = torch.float32

    def __init__(
        self,
        artifact: Artifact,
        device: str = "cpu",
        *,
        gpu: TorchDevice | None = None,
        graphs: bool = True,
    ) -> None:
        super().__init__(artifact, device)
        network = network_of(artifact)
        network = network.to(dtype=self.number_type, memory_format=torch.channels_last)  # type: ignore[call-overload]
        if not all(bool(weight.isfinite().all()) for weight in network.parameters()):
            raise RefusedError(
                artifact.path,
                f"has weights that {self.number_type} cannot hold",
                "use --compute bf16, or the torch backend in float32",
            )
        self._graph = DeployableGraph(network).eval()
        self._loaded: _OnGPU | None = None
        if device != "cpu":
            gpu = gpu or TorchCUDADevice(device)
            capability = float(gpu.gpu.compute_capability)
            if self.number_type == torch.bfloat16 and capability < _BF16_CAPABILITY:
                raise RuntimeUnavailable(
                    gpu.gpu.name, "does not compute in bf16", "use --compute fp16"
                )
            # float32 keeps cuDNN's first choice of a kernel: a reference is to answer alike
            # in every process
            benchmark = self.number_type != torch.float32
            size = self.contract.height, self.contract.width
            self._loaded = _OnGPU(self._graph, size, gpu, graphs=graphs, benchmark=benchmark)
            self._close = weakref.finalize(self, self._loaded.close)

    @property
    def versions(self) -> dict[str, str]:
        """Package name -> version of each package that computes the scores."""
        return {"torch": importlib.metadata.version("torch")}

    @property
    def threads(self) -> int | None:
        """Number of threads that compute on the CPU; None on a GPU."""
        return torch.get_num_threads() if self.device == "cpu" else None

    @property
    def synchronization(self) -> str:
        """Meaning of ``Run.device_ms``, and how the end of that time is determined."""
        if self.device == "cpu":
            return super().synchronization
        return "CUDA events in the batch's stream around the network, the stream waited for"

    def run_many(self, images: Iterable[Batch]) -> Iterator[Run]:
        """Score batches in order; a GPU has two in flight so that copies overlap computing."""
        if self._loaded is None:
            return super().run_many(images)
        return self._loaded.buffers.run_many(map(self._checked, images))

    def _run(self, image: Batch) -> Run:
        if self._loaded is not None:
            return next(self._loaded.buffers.run_many(iter([image])))
        with torch.inference_mode():
            started = time.perf_counter()
            image_NCHW = torch.from_numpy(image)
            parts = [self._graph(image_NCHW[i : i + 1]) for i in range(len(image))]
            score_NCHW = torch.cat(parts)
            device_ms = (time.perf_counter() - started) * 1e3
        return Run(score_NCHW.numpy(), device_ms)

    def close(self) -> None:
        """Free the GPU's memory."""
        if self._loaded is not None:
            self._close()


class TorchFp16Backend(TorchBackend):
    """A float32 checkpoint in PyTorch, computed in half precision.

    Meant for a GPU: a CPU takes several times as long as in float32. 11 bits of mantissa instead of
    24, so it has parity limits of its own and is never chosen unasked.
    """

    name = "torch-fp16"
    number_type = torch.float16


class TorchBf16Backend(TorchBackend):
    """A float32 checkpoint in PyTorch, computed in bfloat16: 8 bits of mantissa."""

    name = "torch-bf16"
    number_type = torch.bfloat16


class _Program(NamedTuple):
    """The network's work for one batch size in one slot, and its graph if it was captured."""

    compute: Callable[[], bool]
    graph: Graph | None

    def enqueue(self) -> None:
        """Queue the network's work on the slot's stream."""
        if self.graph is not None:
            self.graph.launch()
        else:
            self.compute()


class _OnGPU:
    """A network on a GPU and its batches in flight."""

    def __init__(
        self,
        graph: DeployableGraph,
        size: tuple[int, int],
        device: TorchDevice,
        *,
        graphs: bool,
        benchmark: bool,
    ) -> None:
        self._graph: DeployableGraph | None = graph
        self._device = device
        self._graphs = graphs
        self._benchmark = benchmark
        self.buffers = DoubleBuffer(device, *size, self._program)
        try:
            with device.current():
                graph.to(device.place)
                self.buffers.open()
        except BaseException:
            self.close()
            raise

    def _program(self, slot: Slot, rows: int) -> _Program:
        shape = (rows, *slot.image.shape[1:])
        image_NCHW = self._device.tensor(slot.device_image, shape)
        score_NCHW = self._device.tensor(slot.device_score, shape)

        def compute() -> None:
            assert self._graph is not None
            flags = torch.backends.cudnn.flags(
                enabled=True, benchmark=self._benchmark, allow_tf32=False
            )
            with torch.inference_mode(), flags:
                score_NCHW.copy_(self._graph(image_NCHW))

        def enqueue() -> bool:
            self._device.queue(slot.stream, compute)
            return True

        for _ in range(_WARM_UP):
            self.buffers.synchronize()
            enqueue()
        self.buffers.synchronize()
        graph = self._device.capture(slot.stream, enqueue) if self._graphs else None
        return _Program(enqueue, graph)

    def close(self) -> None:
        """Free everything while the context is current."""
        with self._device.current():
            self.buffers.close()
            self._graph = None
        self._device.close()
