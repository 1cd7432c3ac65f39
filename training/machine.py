"""Machine settings of a run: device, mixed precision, compilation."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from tinyunet_deploy.errors import RefusedError, RuntimeUnavailable
from training.distributed import Ranks

__all__ = ["Machine", "choose_device", "half_precision", "has_bfloat16"]


@dataclass(frozen=True)
class Machine:
    """Machine settings of a run; they are not part of its recipe."""

    device: str = "cpu"
    """cpu, cuda, or one GPU such as cuda:1; processes that share a machine take one GPU each."""
    amp: bool = False
    """fp16 with loss scaling on CUDA, bf16 autocast on a CPU; the weights stay float32."""
    compiled: bool = False
    """True to let torch.compile fuse the operators between the convolutions."""
    save_every: int = 250
    """Steps between two resumable states."""


def choose_device(machine: Machine, ranks: Ranks) -> torch.device:
    """Return the device of this process.

    Raises:
        RefusedError: several processes were given one GPU.
        RuntimeUnavailable: the device does not exist, or does not support the settings.
    """
    try:
        device = torch.device(machine.device)
    except RuntimeError as error:
        raise RuntimeUnavailable(machine.device, "is not a device", "use cpu or cuda") from error
    if device.type == "cuda":
        if device.index is not None and ranks.size > 1:
            raise RefusedError(machine.device, "is one GPU for all processes", "use --device cuda")
        device = torch.device("cuda", ranks.local if device.index is None else device.index)
        count = torch.cuda.device_count()
        if device.index >= count:
            raise RuntimeUnavailable(
                str(device), f"is missing: this machine has {count} GPUs", "use --device cpu"
            )
    elif device.type != "cpu":
        raise RuntimeUnavailable(machine.device, "cannot train", "use cpu or cuda")
    elif machine.amp and not has_bfloat16():
        raise RuntimeUnavailable("cpu", "has no instructions for bf16", "leave --amp out")
    return device


def half_precision(device: torch.device) -> torch.dtype:
    """Return the 16-bit type of mixed precision on a device."""
    return torch.float16 if device.type == "cuda" else torch.bfloat16


def has_bfloat16() -> bool:
    """Return whether the CPU has instructions for bf16; emulated bf16 is slower than float32."""
    capabilities = torch.cpu.get_capabilities()
    return any(has is True and name.endswith("bf16") for name, has in capabilities.items())
