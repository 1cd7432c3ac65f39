"""A process of :mod:`.file_processes`: answers requests from stdin on stdout until stdin is closed.

Images and scores lie in the memory that its parent shares.
"""

from __future__ import annotations

import mmap
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from tinyunet_deploy import systems
from tinyunet_deploy.contract import Contract
from tinyunet_deploy.data.bit_depth import BitDepth
from tinyunet_deploy.data.tiles import Fit
from tinyunet_deploy.inspection.file_messages import (
    encoded,
    error_fields,
    inspection_of,
    receive,
    send,
)
from tinyunet_deploy.inspection.outputs import Inspection
from tinyunet_deploy.inspection.scoring import Scored, decode_part

__all__: list[str] = []


class _Noticed(BitDepth):
    """Bit depth that keeps its warning for the parent, which gives one per run."""

    largest: int | None = None

    def on_shallow(self, path: Path, largest: int) -> None:
        self.largest = largest


class _Files:
    def __init__(self, inspection: Inspection, contract: Contract, descriptor: int) -> None:
        self._inspection = inspection
        self._contract = contract
        size = contract.height * contract.width
        self._images, self._scores = np.frombuffer(mmap.mmap(descriptor, 0), np.uint8).reshape(
            2, -1, size
        )
        self._decoded: dict[int, Scored] = {}
        """Slot -> its image, until its files are written."""

    def decode(self, slot: int, index: int, path: str) -> list[Any]:
        """Decode an image into a slot.

        Returns:
            Its shape, and the largest value if it is shallow. Else None, and the error with the
            identity of the file; no error if the image is larger than a slot.
        """
        inspection = self._inspection
        depth = _Noticed(inspection.depth.bits)
        scored = decode_part(
            index,
            Path(path),
            contract=self._contract,
            tile=inspection.tile,
            identify=True,
            depth=depth,
            max_pixels=inspection.max_pixels,
        )
        if scored.error is not None:
            return [None, error_fields(scored.error), scored.identity]
        assert scored.image is not None
        size, shape = scored.image.size, scored.image.shape
        if size > self._images.shape[1]:
            return [None, None, None]
        pixels = self._images[slot, :size].reshape(shape)
        pixels[:] = scored.image
        self._decoded[slot] = replace(scored, image=pixels)
        return [shape, depth.largest]

    def finish(self, slot: int, fit: Fit, approximate: bool) -> list[Any]:
        """Write the files of the image whose pixels and score lie in a slot.

        Returns:
            Its line of the report, alone in a list.
        """
        scored = self._decoded.pop(slot)
        assert scored.image is not None
        score = self._scores[slot, : scored.image.size].reshape(scored.image.shape)
        scored = replace(scored, score=score, fit=fit, approximate=approximate)
        return [self._inspection.finish(scored)]

    def answer(self, kind: str, *arguments: Any) -> list[Any]:
        """Return the answer to one request, or the error that it met."""
        call: Callable[..., list[Any]] = self.decode if kind == "decode" else self.finish
        try:
            return ["answer", call(*arguments)]
        except Exception as error:
            return ["error", error_fields(error)]


def main() -> None:
    """Answer requests until the parent closes the pipe or ends."""
    for number in systems.ENDING_SIGNALS:  # they go to the whole group, and the parent decides
        signal.signal(number, signal.SIG_IGN)
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever prints must not get between the answers
    systems.keep_freed_memory()
    try:
        files = _Files(*inspection_of(receive(requests)), int(sys.argv[1]))
        send(answers, encoded("ready"))
        while True:
            send(answers, encoded([files.answer(*request) for request in receive(requests)]))
    except (EOFError, BrokenPipeError):
        os._exit(0)  # without flushing into the closed pipe


if __name__ == "__main__":
    main()
