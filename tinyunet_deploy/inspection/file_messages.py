"""Messages between a run and the processes that decode its files: MessagePack behind its length."""

from __future__ import annotations

import os
import struct
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any, Final

import msgpack

from tinyunet_deploy import errors
from tinyunet_deploy.contract import Contract
from tinyunet_deploy.data.bit_depth import BitDepth
from tinyunet_deploy.errors import ImageError, TinyUNetError
from tinyunet_deploy.inspection.outputs import Inspection, Outputs

__all__ = [
    "encoded",
    "error_fields",
    "error_of",
    "inspection_fields",
    "inspection_of",
    "receive",
    "send",
]


_LENGTH: Final = struct.Struct("<I")


def encoded(message: object) -> bytes:
    """Return a message as it is sent."""
    data: bytes = msgpack.packb(message, unicode_errors="surrogateescape")  # as in names of files
    return _LENGTH.pack(len(data)) + data


def send(pipe: IO[bytes], message: bytes) -> None:
    """Write one encoded message.

    Raises:
        OSError: the other process has ended.
    """
    pipe.write(message)
    pipe.flush()


def receive(pipe: IO[bytes]) -> Any:
    """Read one message.

    Raises:
        EOFError: the other process has ended.
    """
    (length,) = _LENGTH.unpack(_read(pipe, _LENGTH.size))
    return msgpack.unpackb(_read(pipe, length), unicode_errors="surrogateescape")


def _read(pipe: IO[bytes], length: int) -> bytes:
    data = pipe.read(length)
    if len(data) < length:
        raise EOFError
    return data


def inspection_fields(inspection: Inspection, contract: Contract) -> dict[str, Any]:
    """Return what a process has to know of a run."""
    return {
        "root": os.fspath(inspection.root),
        "output": os.fspath(inspection.output),
        "threshold": inspection.threshold,
        "min_area": inspection.min_area,
        "tile": inspection.tile,
        "outputs": asdict(inspection.outputs),
        "bits": inspection.depth.bits,
        "max_pixels": inspection.max_pixels,
        "changes": dict(inspection.changes),
        "clashes": sorted(inspection.clashes),
        "size": [contract.height, contract.width],
    }


def inspection_of(fields: dict[str, Any]) -> tuple[Inspection, Contract]:
    """Return the arguments of :func:`inspection_fields`."""
    inspection = Inspection(
        Path(fields["root"]),
        Path(fields["output"]),
        fields["threshold"],
        fields["min_area"],
        fields["tile"],
        Outputs(**fields["outputs"]),
        BitDepth(fields["bits"]),
        fields["max_pixels"],
        fields["changes"],
        frozenset(fields["clashes"]),
    )
    return inspection, Contract(*fields["size"])


def error_fields(error: Exception) -> list[Any]:
    """Return the name and the arguments of an error of ours, or what another error says."""
    if isinstance(error, ImageError):
        return ["ImageError", error.where, error.reason, error.what, error.hint]
    if isinstance(error, TinyUNetError):
        return [type(error).__name__, error.where, error.what, error.hint]
    return ["RuntimeError", f"{type(error).__name__}: {error}"]


def error_of(fields: list[Any]) -> Exception:
    """Return the error of :func:`error_fields`."""
    name, *arguments = fields
    if name in errors.__all__:
        kind: type[TinyUNetError] = getattr(errors, name)
        return kind(*arguments)
    return RuntimeError(*arguments)
