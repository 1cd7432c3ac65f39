"""Batch normalisation while a network trains, and the same network without it afterwards.

A network learns in fewer steps with batch normalisation behind its convolutions (Ioffe & Szegedy
2015), from random weights as well as from those that it learned on other images. For an image that
is scored, the normalisation is a factor and a shift for each channel, which the convolution can do
as well: checkpoints have the plain network.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tinyunet_deploy.artifacts.network import Network, make_network

__all__ = ["add_batch_norm", "keep_answers", "plain_network", "plain_weights"]


class _NormalizedConv(nn.Module):
    """A convolution, and the normalisation of its output over a batch."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.conv = conv
        self.norm = nn.BatchNorm2d(conv.out_channels)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        normalized_NCHW: Tensor = self.norm(self.conv(x_NCHW))
        return normalized_NCHW

    def folded(self) -> tuple[Tensor, Tensor]:
        """Return weights and bias of the one convolution that does the same in eval mode."""
        norm, conv = self.norm, self.conv
        mean, variance = norm.running_mean, norm.running_var
        assert mean is not None and variance is not None and conv.bias is not None
        factor = norm.weight.double() / torch.sqrt(variance.double() + norm.eps)
        weight = conv.weight.double() * factor[:, None, None, None]
        bias = (conv.bias.double() - mean.double()) * factor + norm.bias.double()
        return weight.float(), bias.float()


def add_batch_norm(network: Network) -> None:
    """Put batch normalisation behind every convolution of a network, except the last."""
    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.Conv2d) and child is not network.logit:
                setattr(module, name, _NormalizedConv(child))


@torch.no_grad()
def keep_answers(network: Network, x_NCHW: Tensor) -> None:
    """Set every normalisation so that a network answers as it did without, on a typical batch.

    A trained network then starts with what it has learned: factor and shift of each channel are the
    deviation and the mean that the normalisation removes.

    Leaves the network in training mode.

    Args:
        x_NCHW: normalised images, on the network's device.
    """

    def match(norm: nn.Module, inputs: tuple[Tensor]) -> None:
        assert isinstance(norm, nn.BatchNorm2d)
        assert norm.running_mean is not None and norm.running_var is not None
        variance, mean = torch.var_mean(inputs[0], (0, 2, 3), correction=0)
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(variance)
        norm.weight.copy_(torch.sqrt(variance + norm.eps))
        norm.bias.copy_(mean)

    hooks = [
        module.norm.register_forward_pre_hook(match)
        for module in network.modules()
        if isinstance(module, _NormalizedConv)
    ]
    network.eval()(x_NCHW)  # in eval mode the running mean and variance stay as they are set
    network.train()
    for hook in hooks:
        hook.remove()


@torch.no_grad()
def plain_weights(network: Network) -> dict[str, Tensor]:
    """Return name -> weights of the network without batch normalisation, copies on the CPU."""
    normalized = {
        name: module
        for name, module in network.named_modules()
        if isinstance(module, _NormalizedConv)
    }
    inside = tuple(f"{name}." for name in normalized)
    weights = {
        name: value for name, value in network.state_dict().items() if not name.startswith(inside)
    }
    for name, module in normalized.items():
        weights[f"{name}.weight"], weights[f"{name}.bias"] = module.folded()
    return {name: value.detach().to("cpu", copy=True) for name, value in weights.items()}


def plain_network(network: Network) -> Network:
    """Return the network without batch normalisation; itself if it has none."""
    if not any(isinstance(module, _NormalizedConv) for module in network.modules()):
        return network
    plain = make_network(network.name, network.facts.architecture)
    plain.load_state_dict(plain_weights(network))
    plain.to(
        network.logit.weight.device,
        memory_format=torch.channels_last,  # type: ignore[call-overload]  # torch's stubs lack it
    )
    return plain
