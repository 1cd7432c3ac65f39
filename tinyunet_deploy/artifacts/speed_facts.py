"""Typed facts about how fast a file was when it was exported, stored in its sidecar.

They are measurements of one machine. On another processor they are a hint, nothing more.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from tinyunet_deploy.artifacts.precision import PRECISIONS, Precision

__all__ = ["MIN_SPEEDUP", "RuntimeSpeed", "SpeedFacts", "read_speed"]

MIN_SPEEDUP: Final = 1.02
"""Usual smallest speedup at which a precision counts as faster than the next wider one."""


@dataclass(frozen=True)
class RuntimeSpeed:
    """Speed of a file on one runtime, as a ratio to the wider precision on the same runtime."""

    backend: str
    """Name of the backend, such as ``onnxruntime``."""
    speedup: float
    """Time of the wider precision divided by the file's own; above 1 is faster."""
    low: float
    """Lower end of the interval of ``speedup``."""
    high: float
    """Upper end of the interval of ``speedup``."""
    floor: float
    """Noise floor, at least 1: the factor that two series of the same file differed by."""

    def __post_init__(self) -> None:
        if not isinstance(self.backend, str) or not self.backend:
            raise ValueError(f"speed.backend {self.backend!r} is not a name")
        for field in ("speedup", "low", "high", "floor"):
            _check_positive(f"speed.{field}", getattr(self, field))
        if not self.low <= self.speedup <= self.high or self.floor < 1:
            raise ValueError(f"speed of {self.backend} is not inside its interval")

    def __str__(self) -> str:
        return f"{self.speedup:.2f} times as fast"


@dataclass(frozen=True)
class SpeedFacts:
    """Speed of a file against the next wider precision that a CPU computes in."""

    wider: Precision
    """Precision that the file was timed against; it has the same weights and size."""
    processor: str
    """Model name of the processor and the instruction sets that speed depends on."""
    processors: int
    """Number of processors in use."""
    min_speedup: float
    """Smallest speedup at which the file counts as faster."""
    runtimes: tuple[RuntimeSpeed, ...]
    """One entry for each runtime that was installed."""

    def __post_init__(self) -> None:
        if self.wider not in PRECISIONS:
            raise ValueError(f"speed.wider {self.wider!r} is not a precision")
        if not isinstance(self.processor, str):
            raise ValueError(f"speed.processor {self.processor!r} is not a string")
        if type(self.processors) is not int or self.processors < 1:
            raise ValueError(f"speed.processors {self.processors!r} is not a positive number")
        _check_positive("speed.min_speedup", self.min_speedup)
        names = [runtime.backend for runtime in self.runtimes]
        if len(set(names)) < len(names):
            raise ValueError("speed.runtimes names a backend twice")

    def on(self, backend: str) -> RuntimeSpeed | None:
        """Return the speed on a backend; None if it was not timed."""
        return next((one for one in self.runtimes if one.backend == backend), None)

    def pays(self, backend: str) -> bool | None:
        """Return whether the file was faster than the wider precision on a backend.

        It was if its speedup reaches ``min_speedup`` and lies above the noise floor. None if the
        backend was not timed.
        """
        speed = self.on(backend)
        if speed is None:
            return None
        return speed.speedup >= self.min_speedup and speed.speedup > speed.floor

    def falls_short(self, backend: str) -> bool:
        """Return whether the speedup on a backend was measured and is below ``min_speedup``.

        A gain inside the noise neither pays nor falls short."""
        speed = self.on(backend)
        return speed is not None and speed.speedup < self.min_speedup


def read_speed(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of :class:`SpeedFacts` from the table of a sidecar.

    Raises:
        TypeError, ValueError: ``runtimes`` is not a list of tables with the fields of
            :class:`RuntimeSpeed`.
    """
    runtimes = fields.get("runtimes")
    if not isinstance(runtimes, list) or not all(isinstance(one, dict) for one in runtimes):
        raise ValueError("speed.runtimes is not a list of tables")
    return {**fields, "runtimes": tuple(RuntimeSpeed(**one) for one in runtimes)}


def _check_positive(name: str, value: object) -> None:
    if type(value) not in (int, float) or not 0 < float(str(value)) < math.inf:
        raise ValueError(f"{name} {value!r} is not a positive number")
