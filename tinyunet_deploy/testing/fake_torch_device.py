"""A fake GPU for the PyTorch backend: torch computes on the CPU, streams and graphs are fake.

>>> device = FakeTorchDevice()
>>> backend = TorchFp16Backend(artifact, "cuda:0", gpu=device)  # doctest: +SKIP
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from tinyunet_deploy.backends.cuda_device import Memory, Stream
from tinyunet_deploy.backends.torch_device import TorchDevice
from tinyunet_deploy.testing.fake_cuda import FakeDevice, Work

__all__ = ["FakeTorchDevice"]


class FakeTorchDevice(FakeDevice, TorchDevice):
    """A :class:`~tinyunet_deploy.testing.fake_cuda.FakeDevice` that torch computes on."""

    place = torch.device("cpu")

    def tensor(self, memory: Memory, shape: tuple[int, ...]) -> torch.Tensor:
        """Return memory as a uint8 tensor; the memory must outlive it."""
        return torch.from_numpy(self.bytes_at(int(memory))[: math.prod(shape)].reshape(shape))

    def queue(self, stream: Stream, work: Callable[[], None]) -> None:
        """Queue work as one piece."""
        self.stream_of(stream.handle).put(Work("compute", work))
