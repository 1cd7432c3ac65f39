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
from tinyunet_deploy.inspection.file_messages import (
    error_fields,
    inspection_of,
    receive,
    scored_fields,
    scored_of,
    send,
)
from tinyunet_deploy.inspection.outputs import Inspection
from tinyunet_deploy.inspection.report_line import ReportLine
from tinyunet_deploy.inspection.scoring import decode_part

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
        self._slots = np.frombuffer(mmap.mmap(descriptor, 0), np.uint8).reshape(-1, 2, size)

    def decode(self, index: int, path: str, slot: int) -> list[Any]:
        """Decode an image into a slot.

        Returns:
            Fields of the image; its shape, None if there is an error or the image is larger than a
            slot; the largest value if it is shallow.
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
        if scored.image is None or scored.image.size > self._slots.shape[2]:
            return [scored_fields(scored), None, None]
        self._slots[slot, 0, : scored.image.size] = scored.image.reshape(-1)
        return [scored_fields(scored), scored.image.shape, depth.largest]

    def finish(self, fields: list[Any], shape: list[int], slot: int) -> ReportLine:
        """Write the files of the image whose pixels and score lie in a slot."""
        height, width = shape
        image, score = self._slots[slot, :, : height * width].reshape(2, height, width)
        return self._inspection.finish(replace(scored_of(fields), image=image, score=score))

    def answer(self, kind: str, *arguments: Any) -> list[Any]:
        """Return the answer to one request, or the error that it met."""
        call: Callable[..., Any] = self.decode if kind == "decode" else self.finish
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
        send(answers, "ready")
        while True:
            send(answers, [files.answer(*request) for request in receive(requests)])
    except (EOFError, BrokenPipeError):
        os._exit(0)  # without flushing into the closed pipe


if __name__ == "__main__":
    main()
