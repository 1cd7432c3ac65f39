"""All errors that a user can see, and their exit codes.

::

    TinyUNetError
    ├── ImageError            one image is skipped, the run continues          exit 3
    ├── RefusedError          a model, an engine or data is unusable         exit 4
    │   ├── ArtifactError     ... an artifact, its sidecar or its lineage
    │   └── DataError         ... a data set or a recipe
    ├── RuntimeUnavailable    disk, memory, GPU or a missing runtime         exit 5
    │   └── OutOfMemory       ... memory: a smaller batch may fit
    └── GateFailed            parity, IoU or a deadline was not kept         exit 6

Each error prints as one line: ``<where>: <what> (<hint>)``.
"""

from __future__ import annotations

import os
import re
from typing import ClassVar, Final

__all__ = [
    "ArtifactError",
    "DataError",
    "GateFailed",
    "ImageError",
    "OutOfMemory",
    "RefusedError",
    "RuntimeUnavailable",
    "TinyUNetError",
    "printable",
]


class TinyUNetError(Exception):
    """Base of all errors of this library.

    Args:
        where: the file, folder, device or package with the fault.
        what: the fault, as a clause that continues ``where``.
        hint: what the user can do; None if nothing helps.
    """

    exit_code: ClassVar[int] = 70

    def __init__(self, where: str | os.PathLike[str], what: str, hint: str | None = None) -> None:
        self.where = os.fspath(where)
        self.what = what
        self.hint = hint
        super().__init__(self.where, what, hint)

    def __str__(self) -> str:
        line = f"{self.where}: {self.what}" + (f" ({self.hint})" if self.hint else "")
        return printable(line)


def printable(text: str) -> str:
    """Return text as one line with unprintable characters escaped, which is safe on a terminal."""
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


class ImageError(TinyUNetError):
    """One image cannot be used.

    Args:
        reason: stable code for reports, such as ``not-an-image`` or ``wrong-size``.
    """

    exit_code = 3

    def __init__(
        self, where: str | os.PathLike[str], reason: str, what: str, hint: str | None = None
    ) -> None:
        super().__init__(where, what, hint)
        self.reason = reason


class RefusedError(TinyUNetError):
    """A model, an engine or data is unusable."""

    exit_code = 4


class ArtifactError(RefusedError):
    """An artifact, its sidecar or its lineage is unusable."""


class DataError(RefusedError):
    """A data set or a recipe is unusable."""


class RuntimeUnavailable(TinyUNetError):
    """A runtime, a GPU, memory or disk space is missing on this machine."""

    exit_code = 5


class OutOfMemory(RuntimeUnavailable):
    """A batch does not fit the memory of the machine or the GPU; a smaller one may."""


_SHORTAGE: Final = (
    "out of memory|not enough memory|alloc"
    "|resource temporarily unavailable|failed to map segment|can't start new thread|pthread_create"
)
"""Pattern of runtimes' messages about too little memory, or a thread that cannot start."""


def lacks_memory(what: str) -> bool:
    """Return whether a runtime's message says that memory or a thread is not available."""
    return bool(re.search(_SHORTAGE, what, re.IGNORECASE))


def unavailable(where: str | os.PathLike[str], what: str) -> RuntimeUnavailable:
    """Return the error for a runtime's message: OutOfMemory if it says that memory is short."""
    return (OutOfMemory if lacks_memory(what) else RuntimeUnavailable)(where, what)


class GateFailed(TinyUNetError):
    """A measured figure broke its limit."""

    exit_code = 6
