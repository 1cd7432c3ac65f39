"""The artifact, backend and device that made some scores, as results name them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

from tinyunet_deploy.backends.base import Backend

__all__ = ["ScoredBy"]


@dataclass(frozen=True)
class ScoredBy:
    """An artifact on a backend and a device."""

    model: str
    """File name of the artifact."""
    model_sha256: str
    precision: str
    backend: str
    device: str

    @classmethod
    def of(cls, backend: Backend) -> Self:
        """Return the name of a loaded artifact."""
        sidecar = backend.artifact.sidecar
        name = backend.artifact.path.name
        return cls(name, sidecar.sha256, sidecar.precision, backend.name, backend.device)

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any]) -> Self:
        """Return the name of :meth:`as_fields`.

        Raises:
            KeyError: a field is missing.
        """
        names = ("model", "model_sha256", "precision", "backend", "device")
        return cls(*(str(fields[name]) for name in names))

    def as_fields(self) -> dict[str, str]:
        """Return plain values for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        return f"{self.model} ({self.precision}) on {self.backend}, {self.device}"
