"""Keep the reference's scores of many images on disk instead of in memory."""

from __future__ import annotations

import tempfile
import zlib
from typing import Self

import numpy as np

from tinyunet_deploy.contract import Score

__all__ = ["StoredScores"]


class StoredScores:
    """Scores of many images, compressed, in a temporary file without a name.

    Use it as a context manager: the file disappears when the block ends.
    """

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115  closed by __exit__
        self._places: list[tuple[int, int, tuple[int, ...]]] = []

    def append(self, score: Score) -> None:
        """Add the score of the next image, uint8 [H, W]."""
        data = zlib.compress(score.tobytes(), 1)
        start = self._file.seek(0, 2)
        self._file.write(data)
        self._places.append((start, len(data), score.shape))

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> Score:
        start, size, shape = self._places[index]
        self._file.seek(start)
        return np.frombuffer(zlib.decompress(self._file.read(size)), np.uint8).reshape(shape)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
