from __future__ import annotations

import torch

from tinyunet_deploy.artifacts.network import TinyUNet, normalize
from training.int8_steps import int8_activations, is_int8_step


def test_int8_steps_feed_every_convolution_255_levels_and_pass_the_gradient():
    torch.manual_seed(0)
    network = TinyUNet()
    image = normalize(torch.randint(0, 256, (1, 1, 32, 32)))
    plain = network(image)
    seen = []
    with int8_activations(network):
        hooks = [
            module.register_forward_hook(lambda module, inputs, _: seen.append(inputs[0].detach()))
            for module in network.modules()
            if isinstance(module, torch.nn.Conv2d)
        ]
        rounded = network(image)
        rounded.sum().backward()
    for hook in hooks:
        hook.remove()
    assert len(seen) == 23
    for x in seen:
        level = x / x.abs().max() * 127
        assert torch.allclose(level, level.round(), atol=1e-3)
    assert all(parameter.grad.abs().max() > 0 for parameter in network.parameters())
    assert not torch.equal(rounded, plain)
    assert torch.equal(network(image), plain)


def test_the_share_of_int8_steps_is_the_recipes_and_a_function_of_seed_and_step():
    drawn = [is_int8_step(0.25, 3, step) for step in range(2000)]
    assert 0.2 < sum(drawn) / 2000 < 0.3
    assert drawn == [is_int8_step(0.25, 3, step) for step in range(2000)]
    assert not any(is_int8_step(0.0, 3, step) for step in range(2000))
    assert all(is_int8_step(1.0, 3, step) for step in range(2000))
