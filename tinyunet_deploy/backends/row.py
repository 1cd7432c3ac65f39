"""What the program knows about a backend before its runtime is imported.

Importing this module imports no runtime and no array library.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, TypeAlias, cast, get_args

from tinyunet_deploy import systems
from tinyunet_deploy.backends.device_name import DeviceType
from tinyunet_deploy.backends.install_hint import install_hint
from tinyunet_deploy.errors import RuntimeUnavailable

if TYPE_CHECKING:
    from tinyunet_deploy.artifacts.sidecar import Kind
    from tinyunet_deploy.backends.base import Backend

__all__ = ["COMPUTES", "BackendChoice", "BackendRow", "Compute", "missing_package"]

Compute: TypeAlias = Literal["bf16", "fp16"]
"""Number type for ``--compute``: bfloat16, or half precision."""
COMPUTES: Final[tuple[Compute, ...]] = get_args(Compute)
_LEAST_ADDRESS_SPACE: Final = 1 << 30
"""Bytes of address space below which importing a runtime has ended in a segmentation fault."""


def missing_package(row: BackendRow) -> str | None:
    """Return which package a backend lacks and how to install it; None if nothing is missing."""
    for module in row.modules:
        if importlib.util.find_spec(module) is None:
            return f"{module} is not installed: {install_hint(module, row.extra)}"
    return None


@dataclass(frozen=True)
class BackendRow:
    """One backend, before its runtime is imported."""

    name: str
    """Name for ``--backend``; equal to the ``name`` of the class."""
    implementation: str | type[Backend]
    """The class, or its import path ``module:Class``, which is imported at the first use."""
    kinds: tuple[Kind, ...] = ("onnx",)
    """Kinds of artifact that it runs."""
    devices: tuple[DeviceType, ...] = ("cpu",)
    """Types of device that it runs on, the default one first."""
    modules: tuple[str, ...] = ()
    """Modules that must be installed, the runtime itself first."""
    distributions: tuple[str, ...] = ()
    """Packages of which any one provides the runtime; its version is reported."""
    extra: str | None = None
    """Extra of this package that installs it; None for a backend of another package."""
    preference: int = 100
    """Rank among the backends that can run an artifact; the lowest number is chosen."""
    unasked: bool = False
    """True if the backend may be chosen when the user names none."""
    sandbox: str = "onnxruntime"
    """Name of the backend that tries an ONNX file of unknown origin in a separate process, before
    this one loads it."""
    title: str = ""
    """Name as its makers write it, for charts and reports; empty takes ``name``."""
    marker: str = "X"
    """Marker in charts, in matplotlib's notation."""
    dashes: str = "-."
    """Line style in charts, in matplotlib's notation."""
    compute: Compute | None = None
    """Number type in which it computes a float32 file instead of float32; None for the file's own
    precision."""
    runtime: str = ""
    """Name of the backend of which it is the choice of another number type; empty for none."""
    obstacle: Callable[[BackendRow], str | None] = missing_package
    """Function that returns why the backend cannot run on this machine and what to do, or None; it
    imports no runtime."""

    def load_class(self) -> type[Backend]:
        """Import the class of the backend.

        Raises:
            RuntimeUnavailable: it cannot be imported, or the address space is limited so far that
                native code might end the process.
        """
        if not isinstance(self.implementation, str):
            return self.implementation
        limit = systems.address_space_bytes()
        if limit is not None and limit < _LEAST_ADDRESS_SPACE:
            raise RuntimeUnavailable(
                self.name,
                f"is not loaded into an address space of {limit >> 20} MiB",
                f"ulimit -v {_LEAST_ADDRESS_SPACE >> 10}, or more",
            )
        module, _, attribute = self.implementation.partition(":")
        try:
            return cast("type[Backend]", getattr(importlib.import_module(module), attribute))
        except (Exception, SystemExit) as error:  # a runtime's import may raise anything
            reason = str(error).strip().splitlines() or [repr(error)]
            raise RuntimeUnavailable(
                self.name, f"is installed but cannot be imported: {reason[0]}"
            ) from error


BackendChoice: TypeAlias = "str | BackendRow | type[Backend]"
"""Backend that a caller asks for: a name, or the caller's own row or class."""
