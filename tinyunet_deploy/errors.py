"""Every error that a user can meet, and the exit code it becomes.

::

    TinyUNetError
    ├── ImageError            one image is skipped, the run goes on          exit 3
    ├── RefusedError          a model, an engine or data is unusable         exit 4
    │   ├── ArtifactError     ... an artifact, its sidecar or its lineage
    │   └── DataError         ... a data set or a recipe
    ├── RuntimeUnavailable    disk, memory, GPU or a missing runtime         exit 5
    │   └── OutOfMemory       ... memory: a smaller batch may fit
    └── GateFailed            parity, IoU or a deadline was not kept         exit 6

Each is one line: ``<where>: <what> (<hint>)``.
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
        where: the file, folder or part that the error is about.
        what: what is wrong with it, one clause.
        hint: what to do about it, if anything can be said.
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
    """Text as one line that does nothing to a terminal: what cannot be printed is spelled out."""
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


class ImageError(TinyUNetError):
    """One image cannot be used.

    Args:
        reason: a stable code for reports, such as ``not-an-image`` or ``wrong-size``.
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
    """The machine lacks what is needed: a runtime, a GPU, memory, disk."""

    exit_code = 5


class OutOfMemory(RuntimeUnavailable):
    """Memory, of the machine or of a GPU, does not hold a batch; a smaller one may fit."""


_SHORTAGE: Final = (
    "out of memory|not enough memory|alloc"
    "|resource temporarily unavailable|can't start new thread|pthread_create"
)
"""Words of runtimes for too little memory, and for a thread that cannot be started."""


def lacks_memory(what: str) -> bool:
    """Whether the words of a runtime say that memory, or a thread, is not available."""
    return bool(re.search(_SHORTAGE, what, re.IGNORECASE))


def unavailable(where: str | os.PathLike[str], what: str) -> RuntimeUnavailable:
    """The error of a runtime that failed while it ran, by its own words."""
    return (OutOfMemory if lacks_memory(what) else RuntimeUnavailable)(where, what)


class GateFailed(TinyUNetError):
    """A measured figure broke its limit."""

    exit_code = 6
