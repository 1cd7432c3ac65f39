"""Architectures of the networks that this package trains, without the library that computes them.

Each is NVIDIA's "U-Net Industrial" in other widths: blocks of two 3x3 convolutions, each followed
by a 2x2 pool on the way down, and on the way up by nearest x2 and a 2x2 convolution that is padded
at the right and bottom only. A network may work on blocks of pixels: space-to-depth in front of the
U-Net, depth-to-space behind it, so that even its first block has a fraction of the pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Final

__all__ = ["MAX_SIZE_MULTIPLE", "MAX_WIDTH", "NETWORKS", "Architecture"]

MAX_SIZE_MULTIPLE: Final = 256
"""Largest size multiple of a network; more would leave nothing of an image of 512x512."""
MAX_WIDTH: Final = 1024
"""Largest number of channels of a layer, that of ``original``."""


@dataclass(frozen=True)
class Architecture:
    """Widths of one network."""

    encoder: tuple[int, ...]
    """Channels of each encoder block, full resolution first; a pool follows each."""
    bottleneck: int
    """Channels of the lowest resolution."""
    head: int
    """Channels of the two convolutions before the logit."""
    space_to_depth: int = 1
    """Side of the square block of pixels that becomes the channels of one place, and of the block
    of logits that every place gives; 1 leaves the pixels as they are."""

    def __post_init__(self) -> None:
        numbers = (*self.encoder, self.bottleneck, self.head, self.space_to_depth)
        if not self.encoder or any(type(number) is not int or number < 1 for number in numbers):
            raise ValueError(f"{self} is not a list of widths of at least 1")
        if min(self.encoder[1:], default=2) < 2:
            raise ValueError(f"{self} has one channel below the first block, which is halved")
        if self.size_multiple > MAX_SIZE_MULTIPLE:
            raise ValueError(
                f"{self} takes images in multiples of {self.size_multiple}, more than "
                f"{MAX_SIZE_MULTIPLE}"
            )
        if max(numbers) > MAX_WIDTH:
            raise ValueError(f"{self} has more than {MAX_WIDTH} channels")

    @property
    def size_multiple(self) -> int:
        """Number that must divide the height and width of an image.

        It is the side of a block of pixels, times 2 for each pool.
        """
        return self.space_to_depth << len(self.encoder)

    @cached_property
    def reach(self) -> tuple[int, int]:
        """Distance before and after a pixel up to which its score depends on the image, pixels.

        The reach is traced back through the layers, from each place in the pooling grid.
        """
        block = self.space_to_depth
        spans = [self._depends_on(place, place) for place in range(1 << len(self.encoder))]
        before = max(place - first for place, (first, _) in enumerate(spans))
        after = max(last - place for place, (_, last) in enumerate(spans))
        return before * block + block - 1, after * block + block - 1

    def _depends_on(self, first: int, last: int, level: int = 0) -> tuple[int, int]:
        """Return the places of an encoder block's input on which places of its decoder depend.

        Args:
            first, last: places of the decoder block of this level.
            level: number of pools above the block; the bottleneck is the lowest.
        """
        first, last = first - 2, last + 2  # a pair of 3x3
        if level == len(self.encoder):
            return first, last
        below = self._depends_on(first // 2, (last + 1) // 2, level + 1)
        return min(first, 2 * below[0]) - 2, max(last, 2 * below[1] + 1) + 2


NETWORKS: Final = {
    "tiny": Architecture(encoder=(32, 32, 64, 128), bottleneck=256, head=32),
    "slim": Architecture(encoder=(16, 32, 64), bottleneck=256, head=16, space_to_depth=2),
    "original": Architecture(encoder=(64, 128, 256, 512), bottleneck=1024, head=64),
}
"""Name of a network -> its architecture."""
