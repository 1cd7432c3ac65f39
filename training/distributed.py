"""Processes that train one network together, each on its share of every batch."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from tinyunet_deploy.errors import RuntimeUnavailable

__all__ = ["ALONE", "Ranks", "join_ranks"]

T = TypeVar("T")


@dataclass(frozen=True)
class Ranks:
    """Rank of this process among those that torchrun started; a single process by default."""

    rank: int = 0
    local: int = 0
    """Rank among the processes of this machine, which chooses the GPU."""
    size: int = 1
    """Number of processes."""

    @property
    def first(self) -> bool:
        """True in the process that writes files and reports."""
        return self.rank == 0

    @property
    def share(self) -> slice:
        """The elements of a sequence that this process takes: rank, rank + size, ..."""
        return slice(self.rank, None, self.size)

    def wrap(self, network: nn.Module) -> nn.Module:
        """Return the network with the first process's weights; backward averages all gradients."""
        return DistributedDataParallel(network) if self.size > 1 else network

    def sum(self, value: Tensor) -> Tensor:
        """Return the sum of a tensor over all processes, the same bits on each, with its gradient.

        A loss L of such sums is the same on all processes, and dL/d(share) = dL/d(sum). The
        gradient that flows back through one process's share is its part of the whole. The parts
        have to be added, while :meth:`wrap` averages them, so backward multiplies by the number of
        processes.
        """
        if self.size == 1:
            return value
        total: Tensor = _Sum.apply(value)  # type: ignore[no-untyped-call]
        return total

    def gather(self, share: Sequence[T]) -> list[T]:
        """Return the whole sequence; each process passes its :attr:`share`."""
        if self.size == 1:
            return list(share)
        shares: list[Any] = [None] * self.size
        dist.all_gather_object(shares, list(share))
        whole = [None] * sum(map(len, shares))
        for rank, part in enumerate(shares):
            whole[rank :: self.size] = part
        return whole  # type: ignore[return-value]

    def wait(self) -> None:
        """Wait until every process has called this."""
        if self.size > 1:
            dist.barrier()


ALONE = Ranks()
"""A run of one process."""


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(_ctx: Any, value: Tensor) -> Tensor:
        total = value.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(_ctx: Any, gradient: Tensor) -> Tensor:
        return gradient * dist.get_world_size()


@contextmanager
def join_ranks() -> Iterator[Ranks]:
    """Join the processes that torchrun started: NCCL between GPUs, gloo between CPUs.

    With ``torchrun --max-restarts``, set ``TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1``: otherwise the
    restarted processes find the addresses of the dead ones (seen in torch 2.13).

    Raises:
        RuntimeUnavailable: another process was lost.
    """
    if not dist.is_torchelastic_launched():
        yield ALONE
        return
    local = int(os.environ["LOCAL_RANK"])
    if torch.cuda.device_count() > local:
        torch.cuda.set_device(local)
    try:
        dist.init_process_group()
        yield Ranks(dist.get_rank(), local, dist.get_world_size())
    except RuntimeError as error:
        cause = str(error).splitlines()[0]
        if isinstance(error, dist.DistError) or "gloo" in cause.lower():
            rank = f"rank {os.environ['RANK']}"
            raise RuntimeUnavailable(rank, f"lost the other processes: {cause}") from error
        raise
    dist.destroy_process_group()
