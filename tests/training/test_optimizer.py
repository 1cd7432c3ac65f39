from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch

from training.optimizer import RMSPropTF, learning_rate
from training.recipe import OneCycle, RMSProp, Staircase


def test_rmsprop_follows_tensorflow_by_hand():
    """Ten steps of one variable in float64, the rate halved after five, against the formulas."""
    recipe = RMSProp(decay=0.9, momentum=0.8, epsilon=1e-10, l2=0.01)
    weight = torch.tensor([0.7], dtype=torch.float64, requires_grad=True)
    optimizer = RMSPropTF([weight], recipe)
    w, mean_grad, mean_square, moment = 0.7, 0.0, 1.0, 0.0
    for step in range(10):
        rate = 0.1 if step < 5 else 0.05
        optimizer.param_groups[0]["lr"] = rate
        gradient = 2.0 * w - 1.0 + 0.3 * step
        weight.grad = torch.tensor([gradient], dtype=torch.float64)
        optimizer.step()
        gradient += 0.01 * w
        mean_grad = 0.9 * mean_grad + 0.1 * gradient
        mean_square = 0.9 * mean_square + 0.1 * gradient**2
        moment = 0.8 * moment + rate * gradient / math.sqrt(mean_square - mean_grad**2 + 1e-10)
        w -= moment
        assert weight.item() == pytest.approx(w, rel=1e-12)
        if step == 0:  # the mean square starts at one, so the first step is not rate / sqrt(0.1)
            first = 0.1 * gradient / math.sqrt(0.9 + 0.1 * gradient**2 - (0.1 * gradient) ** 2)
            assert moment == pytest.approx(first, rel=1e-9)


def test_rmsprop_stays_finite_where_gradients_do_not_vary():
    weight = torch.tensor([1.0], requires_grad=True)
    optimizer = RMSPropTF([weight], RMSProp())
    optimizer.param_groups[0]["lr"] = 1e-4
    for _ in range(2000):
        weight.grad = torch.tensor([3.0])
        optimizer.step()
        assert math.isfinite(weight.item())


def test_rmsprop_under_loss_scaling_skips_what_overflows_and_unscales_the_rest():
    """Skipped steps, the first among them, leave no trace but a smaller scale."""

    def descend(gradients: Sequence[float], scaler: torch.amp.GradScaler) -> tuple[float, dict]:
        weight = torch.tensor([0.7], requires_grad=True)
        optimizer = RMSPropTF([weight], RMSProp(l2=0.01))
        optimizer.param_groups[0]["lr"] = 0.1
        for gradient in gradients:
            optimizer.zero_grad()
            scaler.scale((weight * gradient).sum()).backward()
            scaler.step(optimizer)
            scaler.update()
        return weight.item(), optimizer.state_dict()["state"]

    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    assert descend([math.inf], scaler) == (pytest.approx(0.7), {})
    scaled, state = descend([math.inf, 1.0, math.inf, -2.0], scaler)
    plain, plain_state = descend([1.0, -2.0], torch.amp.GradScaler("cpu", enabled=False))
    assert scaled == plain
    assert all(torch.equal(state[0][key], plain_state[0][key]) for key in plain_state[0])
    assert scaler.get_scale() == 128.0


def test_schedules():
    stairs = Staircase(rate=1e-4, factor=0.8, every=500)
    rates = [learning_rate(stairs, step, 2500) for step in (0, 499, 500, 1000)]
    assert rates == pytest.approx([1e-4, 1e-4, 0.8e-4, 0.64e-4])
    cycle = OneCycle(rate=1e-3, rise=0.25)
    whole = [learning_rate(cycle, step, 101) for step in range(101)]
    assert whole[0] == pytest.approx(4e-5)
    assert max(whole) == whole[25] == pytest.approx(1e-3)
    assert whole[-1] == pytest.approx(1e-7)
    assert learning_rate(cycle, 0, 1) > 0
