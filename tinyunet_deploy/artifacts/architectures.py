"""Architectures of the networks that this package trains, without the library that computes them.

Each is NVIDIA's "U-Net Industrial" in other widths: blocks of two 3x3 convolutions, each followed
by a 2x2 pool on the way down, and on the way up by nearest x2 and a 2x2 convolution that is padded
at the right and bottom only.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Final

from tinyunet_deploy.artifacts.facts import NetworkFacts

__all__ = ["NETWORKS", "Architecture"]


@dataclass(frozen=True)
class Architecture:
    """Widths of one network."""

    encoder: tuple[int, ...]
    """Channels of each encoder block, full resolution first; a pool follows each."""
    bottleneck: int
    """Channels of the lowest resolution."""
    head: int
    """Channels of the two convolutions before the logit."""

    @property
    def size_multiple(self) -> int:
        """Number that must divide the height and width of an image: a factor of 2 for each pool."""
        return 1 << len(self.encoder)

    @cached_property
    def reach(self) -> tuple[int, int]:
        """Distance before and after a pixel up to which its score depends on the image, pixels.

        The reach is traced back through the layers, from each place in the pooling grid.
        """
        spans = [self._depends_on(pixel, pixel) for pixel in range(self.size_multiple)]
        before = max(pixel - first for pixel, (first, _) in enumerate(spans))
        after = max(last - pixel for pixel, (_, last) in enumerate(spans))
        return before, after

    def _depends_on(self, first: int, last: int, level: int = 0) -> tuple[int, int]:
        """Return the pixels of an encoder block's input on which pixels of its decoder depend.

        Args:
            first, last: pixels of the decoder block of this level.
            level: number of pools above the block; the bottleneck is the lowest.
        """
        first, last = first - 2, last + 2  # a pair of 3x3
        if level == len(self.encoder):
            return first, last
        below = self._depends_on(first // 2, (last + 1) // 2, level + 1)
        return min(first, 2 * below[0]) - 2, max(last, 2 * below[1] + 1) + 2

    def facts(self, name: str | None) -> NetworkFacts:
        """Return the facts of a network of this architecture, for a sidecar."""
        return NetworkFacts(name, self.size_multiple, *self.reach)


NETWORKS: Final = {
    "tiny": Architecture(encoder=(32, 32, 64, 128), bottleneck=256, head=32),
    "original": Architecture(encoder=(64, 128, 256, 512), bottleneck=1024, head=64),
}
"""Name of a network -> its architecture."""
