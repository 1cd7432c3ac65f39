"""Training steps with int8 activations, so that the int8 network answers like the trained one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

__all__ = ["int8_activations", "is_int8_step"]

_STREAM = 3
"""Word after the seed that separates this random stream from those of the sampler."""


def is_int8_step(share: float, seed: int, step: int) -> bool:
    """Return whether a step is one of the recipe's ``int8`` share, the same on all processes."""
    return bool(np.random.default_rng((seed, _STREAM, step)).random() < share)


@contextmanager
def int8_activations(network: nn.Module) -> Iterator[None]:
    """Round the input of every convolution of ``network`` to 8 bits while the context lasts.

    Each tensor has one symmetric scale, -127..127, from the largest magnitude in the batch, as in
    the int8 file; the gradient passes the rounding unchanged (Bengio et al. 2013, "Estimating or
    Propagating Gradients Through Stochastic Neurons", the straight-through estimator). Weights stay
    as they are: with one scale per channel their rounding is the smaller part.
    """
    hooks = [
        module.register_forward_pre_hook(_round_input)
        for module in network.modules()
        if isinstance(module, nn.Conv2d)
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _round_input(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor]:
    rounded: Tensor = _Round.apply(inputs[0])  # type: ignore[no-untyped-call]
    return (rounded,)


class _Round(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, x: Tensor) -> Tensor:
        step = x.abs().amax().float().clamp_min(1e-12) / 127.0
        return (x / step).round_().mul_(step).to(x.dtype)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        return gradient
