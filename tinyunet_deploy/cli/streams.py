"""stdin, stdout and stderr of a command that may have been started without them."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from typing import Any

__all__ = ["open_streams"]


def open_streams() -> None:
    """Make the three standard streams usable; call this at the start of a program.

    A closed stream is opened on ``/dev/null``: else a file opened later would get its number, and
    with it the messages. Messages that stderr cannot take, as on a full disk, are dropped.
    """
    for descriptor, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number is this one
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(descriptor, mode, closefd=False))
    if sys.stderr is sys.__stderr__ or sys.__stderr__ is None:
        raw = _Forgiving(2, "wb", closefd=False)
        sys.stderr = io.TextIOWrapper(
            raw, sys.stderr.encoding, "backslashreplace", write_through=True
        )


class _Forgiving(io.FileIO):
    """A file that accepts every write, and drops the bytes that it cannot write."""

    def write(self, data: Any) -> int:
        with contextlib.suppress(OSError):
            super().write(data)
        return len(data)
