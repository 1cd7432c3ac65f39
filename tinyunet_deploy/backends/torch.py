"""A checkpoint in PyTorch: the reference for the scores of every other backend."""

from __future__ import annotations

import time

import torch

from tinyunet_deploy.artifacts.checkpoint import network_of
from tinyunet_deploy.artifacts.network import DeployableGraph
from tinyunet_deploy.artifacts.sidecar import Artifact
from tinyunet_deploy.backends.base import Backend, Run
from tinyunet_deploy.contract import Batch
from tinyunet_deploy.errors import RuntimeUnavailable


class TorchBackend(Backend):
    """A checkpoint in eager PyTorch, in float32 and channels-last memory format.

    TF32 is off on a GPU: it rounds the factors of a product to 10 bits. A CPU computes one image at
    a time: the rounding of oneDNN's convolutions depends on the batch size, which would change
    scores by 1, and larger batches are not faster on a CPU.
    """

    name = "torch"

    def __init__(self, artifact: Artifact, device: str = "cpu") -> None:
        super().__init__(artifact, device)
        self._device = torch.device(device)
        if self._device.type == "cuda" and self._device.index >= torch.cuda.device_count():
            raise RuntimeUnavailable(device, "torch sees no such GPU", "use --device cpu")
        network = network_of(artifact).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._graph = DeployableGraph(network).to(self._device).eval()

    @property
    def threads(self) -> int | None:
        """Number of threads that compute on the CPU; None on a GPU."""
        return torch.get_num_threads() if self.device == "cpu" else None

    @property
    def synchronization(self) -> str:
        """Meaning of ``Run.device_ms``, and how the end of that time is determined."""
        if self.device == "cpu":
            return super().synchronization
        return "CUDA events before and after the network, the later one waited for"

    @torch.inference_mode()
    def _run(self, image: Batch) -> Run:
        began = time.perf_counter()
        image_NCHW = torch.from_numpy(image).to(self._device)
        if self._device.type == "cuda":
            copy_in_ms = (time.perf_counter() - began) * 1e3
            begin = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
            end = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
            begin.record()
            with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
                score_NCHW = self._graph(image_NCHW)
            end.record()
            end.synchronize()
            computed = time.perf_counter()
            score = score_NCHW.cpu().numpy()
            copy_out_ms = (time.perf_counter() - computed) * 1e3
            return Run(score, begin.elapsed_time(end), copy_in_ms, copy_out_ms)
        started = time.perf_counter()
        score_NCHW = torch.cat([self._graph(image_NCHW[i : i + 1]) for i in range(len(image))])
        device_ms = (time.perf_counter() - started) * 1e3
        return Run(score_NCHW.numpy(), device_ms)
