"""The reference's optimizer, and learning rates as functions of the step."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor

from training.recipe import AdamW, OneCycle, RMSProp, Staircase

__all__ = ["RMSPropTF", "learning_rate", "make_optimizer"]


class RMSPropTF(torch.optim.Optimizer):
    """Centered RMSProp with TensorFlow's semantics, which differ from those of torch's RMSprop.

    For each variable w with gradient g, its L2 term added::

        mean_grad   = decay * mean_grad + (1 - decay) * g               starts at 0
        mean_square = decay * mean_square + (1 - decay) * g^2           starts at 1
        moment      = momentum * moment
                      + rate * g / sqrt(mean_square - mean_grad^2 + epsilon)
        w           = w - moment

    The rate is inside the moment, so a lower rate leaves the gathered moment as it is; epsilon is
    inside the root, so that the root is never of a negative number (tf.train.RMSPropOptimizer,
    TensorFlow 1.15, training_ops.cc, ApplyCenteredRMSProp).
    """

    def __init__(self, parameters: Iterable[Tensor], recipe: RMSProp) -> None:
        super().__init__(
            parameters,
            {
                "lr": 0.0,
                "decay": recipe.decay,
                "momentum": recipe.momentum,
                "epsilon": recipe.epsilon,
                "l2": recipe.l2,
            },
        )

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Update every variable that has a gradient."""
        for group in self.param_groups:
            decay = group["decay"]
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                gradient = weight.grad.add(weight, alpha=group["l2"])
                state = self.state[weight]
                if not state:
                    state["mean_grad"] = torch.zeros_like(weight)
                    state["mean_square"] = torch.ones_like(weight)
                    state["moment"] = torch.zeros_like(weight)
                mean_grad, mean_square = state["mean_grad"], state["mean_square"]
                mean_grad.lerp_(gradient, 1.0 - decay)
                mean_square.mul_(decay).addcmul_(gradient, gradient, value=1.0 - decay)
                variance = torch.addcmul(mean_square, mean_grad, mean_grad, value=-1.0)
                root = variance.clamp_(min=0.0).add_(group["epsilon"]).sqrt_()
                state["moment"].mul_(group["momentum"])
                state["moment"].addcdiv_(gradient, root, value=group["lr"])
                weight.sub_(state["moment"])


def make_optimizer(parameters: Iterable[Tensor], recipe: RMSProp | AdamW) -> torch.optim.Optimizer:
    """Return the recipe's optimizer; the caller sets its learning rate before every step."""
    if isinstance(recipe, RMSProp):
        return RMSPropTF(parameters, recipe)
    return torch.optim.AdamW(
        parameters,
        lr=0.0,
        betas=(recipe.beta1, recipe.beta2),
        weight_decay=recipe.weight_decay,
    )


def learning_rate(schedule: Staircase | OneCycle, step: int, steps: int) -> float:
    """Return the learning rate of a step, 0..steps-1."""
    if isinstance(schedule, Staircase):
        return schedule.rate * schedule.factor ** (step // schedule.every)
    top = schedule.rate
    rise = schedule.rise * (steps - 1)
    if step < rise:
        return _cosine(top / 25.0, top, step / rise)
    return _cosine(top, top / 1e4, (step - rise) / max(1.0, steps - 1 - rise))


def _cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) * (1.0 + math.cos(math.pi * share)) / 2.0
