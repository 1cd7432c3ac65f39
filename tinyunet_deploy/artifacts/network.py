"""TinyUNet, the network of NVIDIA's "U-Net Industrial", and the deployable graph around it.

Shape suffixes name the axes: N images, C channels, H rows, W columns.
"""

from __future__ import annotations

import math
from typing import TypeAlias

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from tinyunet_deploy.artifacts.architectures import NETWORKS, Architecture
from tinyunet_deploy.artifacts.facts import NetworkFacts


class UpConv(nn.Module):
    """Nearest x2, one pixel of zeros at the right and bottom edge, 2x2 convolution, ReLU.

    The pad is on one side only because the reference is TensorFlow, whose SAME padding of an even
    kernel goes right and bottom.
    """

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels_in, channels_out, kernel_size=2)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """Enlarge [N, C_in, H, W] to [N, C_out, 2H, 2W]."""
        x_NCHW = F.interpolate(x_NCHW, scale_factor=2.0, mode="nearest")
        return F.relu(self.conv(F.pad(x_NCHW, (0, 1, 0, 1))))


def _conv3x3_pair(channels_in: int, first: int, second: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels_in, first, kernel_size=3, padding=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(first, second, kernel_size=3, padding=1),
        nn.ReLU(inplace=True),
    )


class TinyUNet(nn.Module):
    """The segmentation network: normalised grey image in, defect logit per pixel out.

    ``tiny`` has 23 convolutions, 1,850,305 parameters and 18.337 GMAC at 512x512;
    ``original`` has 29,137,793 parameters.

    Args:
        name: a key of :data:`~tinyunet_deploy.artifacts.architectures.NETWORKS`, or another name
            for an architecture that is given.
        architecture: widths of the network; None takes those of the name.
    """

    def __init__(self, name: str = "tiny", architecture: Architecture | None = None) -> None:
        super().__init__()
        widths = architecture or NETWORKS[name]
        self.name = name
        self.facts = NetworkFacts.of(name, architecture)
        self.block = widths.space_to_depth
        channels = self.block * self.block
        encoder = []
        for width in widths.encoder:
            encoder.append(_conv3x3_pair(channels, width, width))
            channels = width
        self.encoder = nn.ModuleList(encoder)
        self.pool = nn.MaxPool2d(2)
        self.bottleneck = _conv3x3_pair(channels, widths.bottleneck, widths.bottleneck)

        ups, decoder = [], []
        channels, up = widths.bottleneck, widths.encoder[-1]
        for level, skip in reversed(list(enumerate(widths.encoder))):
            ups.append(UpConv(channels, up))
            first, second = (skip, skip // 2) if level else (widths.head, widths.head)
            decoder.append(_conv3x3_pair(up + skip, first, second))
            channels = up = second
        self.ups = nn.ModuleList(ups)
        self.decoder = nn.ModuleList(decoder)
        self.logit = nn.Conv2d(channels, self.block * self.block, kernel_size=1)
        self.reset_parameters()

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw He-uniform weights, U(-sqrt(6 / fan_in), sqrt(6 / fan_in)); set biases to zero.

        He et al. 2015, "Delving Deep into Rectifiers", eq. 10; uniform, as in NVIDIA's network.
        """
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                bound = math.sqrt(6.0 / module.weight[0].numel())
                nn.init.uniform_(module.weight, -bound, bound, generator=generator)
                assert module.bias is not None
                nn.init.zeros_(module.bias)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """Return the logits of normalised images.

        Args:
            x_NCHW: float [N, 1, H, W] in [-1, 1]; H and W multiples of the network's size multiple.

        Returns:
            float [N, 1, H, W]; positive means defect more likely than not.
        """
        if self.block > 1:
            x_NCHW = F.pixel_unshuffle(x_NCHW, self.block)
        skips = []
        for block in self.encoder:
            x_NCHW = block(x_NCHW)
            skips.append(x_NCHW)
            x_NCHW = self.pool(x_NCHW)
        x_NCHW = self.bottleneck(x_NCHW)
        for up, block, skip_NCHW in zip(self.ups, self.decoder, reversed(skips), strict=True):
            x_NCHW = block(torch.cat((up(x_NCHW), skip_NCHW), dim=1))
        logit_NCHW: Tensor = self.logit(x_NCHW)
        return F.pixel_shuffle(logit_NCHW, self.block) if self.block > 1 else logit_NCHW


Network: TypeAlias = TinyUNet
"""Any network of :data:`~tinyunet_deploy.artifacts.architectures.NETWORKS`.

Other rooms name this type, never a class, and build a network by :func:`make_network`. A class for
another architecture is added here and there.
"""


def make_network(name: str = "tiny", architecture: Architecture | None = None) -> Network:
    """Build a network with random weights.

    Args:
        name: a key of :data:`~tinyunet_deploy.artifacts.architectures.NETWORKS`, or another name
            for an architecture that is given.
        architecture: widths of the network; None takes those of the name.
    """
    return TinyUNet(name, architecture)


def normalize(image_NCHW: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Scale raw grey values 0..255 of any dtype to ``dtype`` in [-1, 1], by x / 127.5 - 1."""
    return image_NCHW.to(dtype) * (1.0 / 127.5) - 1.0


class DeployableGraph(nn.Module):
    """A network with the contract's bytes at both ends, ready to be exported or run."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> Tensor:
        """Score of raw grey images.

        Args:
            image: uint8 [N, 1, H, W]; H and W multiples of the network's size multiple.

        Returns:
            uint8 [N, 1, H, W], round(255 * sigmoid(logit)), half to even.
        """
        logit = self.network(normalize(image, next(self.network.parameters()).dtype))
        return torch.round(torch.sigmoid(logit.float()) * 255.0).to(torch.uint8)


def parameter_count(network: nn.Module) -> int:
    """Count the trained values."""
    return sum(parameter.numel() for parameter in network.parameters())


def multiply_accumulates(
    name: str = "tiny",
    height: int = 512,
    width: int = 512,
    architecture: Architecture | None = None,
) -> int:
    """Count the multiply-accumulates of the convolutions for one image, half the FLOP count.

    Args:
        name, architecture: as for :func:`make_network`.
        height, width: image size, pixels.
    """
    with torch.device("meta"):
        network = make_network(name, architecture)
        image_NCHW = torch.empty(1, 1, height, width)
    total = 0

    def count(module: nn.Module, _inputs: object, output: Tensor) -> None:
        nonlocal total
        assert isinstance(module, nn.Conv2d)
        total += output.shape[-2] * output.shape[-1] * module.weight.numel()

    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(count)
    network(image_NCHW)
    return total
