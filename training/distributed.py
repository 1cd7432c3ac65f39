"""The processes that train as one, each on its share of every batch."""

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

T = TypeVar("T")


@dataclass(frozen=True)
class Ranks:
    """This process's place among those that torchrun started; alone by default."""

    rank: int = 0
    local: int = 0
    """Place among the processes of this machine, which picks the GPU."""
    size: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the process that writes files and reports."""
        return self.rank == 0

    @property
    def share(self) -> slice:
        """Which elements of a sequence are this process's: rank, rank + size, ..."""
        return slice(self.rank, None, self.size)

    def wrap(self, network: nn.Module) -> nn.Module:
        """The network with first's weights and, after backward, the mean of all gradients."""
        return DistributedDataParallel(network) if self.size > 1 else network

    def sum(self, value: Tensor) -> Tensor:
        """The sum of a tensor over all processes, the same bits on each, with its gradient.

        A loss L of such sums is the same on all processes, and dL/d(share) = dL/d(sum). What flows
        back through one process's share is its part of the gradient. The parts have to be added,
        while :meth:`wrap` takes their mean: backward multiplies by the number of processes.
        """
        if self.size == 1:
            return value
        total: Tensor = _Sum.apply(value)
        return total

    def gather(self, share: Sequence[T]) -> list[T]:
        """The sequence of which every process holds its :attr:`share`, on all processes."""
        if self.size == 1:
            return list(share)
        shares: list[Any] = [None] * self.size
        dist.all_gather_object(shares, list(share))
        whole = [None] * sum(map(len, shares))
        for rank, part in enumerate(shares):
            whole[rank :: self.size] = part
        return whole  # type: ignore[return-value]

    def wait(self) -> None:
        """Return once every process is here."""
        if self.size > 1:
            dist.barrier()


ALONE = Ranks()


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
    """Meet the other processes: NCCL between GPUs, gloo between CPUs.

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
        what = str(error).splitlines()[0]
        if isinstance(error, dist.DistError) or "gloo" in what.lower():
            who = f"rank {os.environ['RANK']}"
            raise RuntimeUnavailable(who, f"lost the others: {what}") from error
        raise
    dist.destroy_process_group()
