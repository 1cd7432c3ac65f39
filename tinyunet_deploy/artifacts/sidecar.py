"""Artifacts on disk: reading, checking and writing a file together with its sidecar.

Every artifact ``NAME`` has a sidecar ``NAME.json`` beside it, such as ``tinyunet.onnx.json``.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tinyunet_deploy.artifacts.adoption.hints import (
    foreign_checkpoint,
    foreign_model,
    foreign_plan,
    not_a_model,
)
from tinyunet_deploy.artifacts.packaged import (
    DEFAULT_CHECKPOINT,
    DEFAULT_ONNX,
    MODELS,
    is_packaged_checkpoint,
    rebuilt_checkpoint,
)
from tinyunet_deploy.artifacts.sidecar_schema import (
    Decision,
    Kind,
    Sidecar,
    digest,
    parse_sidecar,
)
from tinyunet_deploy.contract import Contract
from tinyunet_deploy.errors import ArtifactError
from tinyunet_deploy.files import read_regular, write_atomic

__all__ = [
    "DEFAULT_CHECKPOINT",
    "DEFAULT_ONNX",
    "KINDS",
    "MAX_BYTES",
    "MAX_SIDECAR_BYTES",
    "MODELS",
    "Artifact",
    "Decision",
    "Kind",
    "Sidecar",
    "digest",
    "kind_of",
    "parse_sidecar",
    "read_artifact",
    "read_sidecar",
    "sidecar_path",
    "trusted",
    "write_artifact",
    "write_sidecar",
]

KINDS: Final[dict[str, Kind]] = {".safetensors": "checkpoint", ".onnx": "onnx", ".plan": "plan"}
"""File suffix -> kind of artifact."""

MAX_BYTES: Final = 1 << 30
"""Largest artifact that is read, bytes. Three times the largest segmentation networks in use; a
runtime takes several times the file in memory. Protobuf, and so ONNX, ends at 2 GiB."""
MAX_SIDECAR_BYTES: Final = 16 << 20
"""Largest sidecar that is read, bytes: the digests of 200,000 images on which one was tuned."""


@dataclass(frozen=True)
class Artifact:
    """One artifact whose bytes match its sidecar."""

    path: Path
    data: bytes
    sidecar: Sidecar
    has_sidecar: bool = True
    """False for a file without a sidecar that the user trusts: ``sidecar`` then has defaults, apart
    from what was read from the file itself."""


def sidecar_path(path: Path) -> Path:
    """Return the path of the sidecar of the artifact ``path``."""
    return path.with_name(path.name + ".json")


def kind_of(path: Path) -> Kind:
    """Return the kind of an artifact by the suffix of its file name.

    Raises:
        ArtifactError: the suffix is unknown.
    """
    try:
        return KINDS[path.suffix]
    except KeyError:
        raise not_a_model(path, KINDS) from None


def read_sidecar(path: Path) -> Sidecar:
    """Read the sidecar of the artifact ``path``.

    Raises:
        ArtifactError: it is missing, damaged or of another schema version.
    """
    kind = kind_of(path)
    where = sidecar_path(path)
    try:
        sidecar = parse_sidecar(read_regular(where, limit=MAX_SIDECAR_BYTES), where)
    except FileNotFoundError:
        raise _without_sidecar(path, kind) from None
    except OSError as error:
        raise _unusable(path, where, f"is not a readable sidecar: {error.strerror}") from error
    except ArtifactError as error:
        raise _unusable(path, where, error.what) from error
    if sidecar.kind != kind:
        raise _unusable(path, where, f"is of kind {sidecar.kind}, not {kind}")
    return sidecar


def read_artifact(path: Path) -> Artifact:
    """Read an artifact and check its very bytes against the sidecar.

    Raises:
        ArtifactError: the file or its sidecar is missing, or the file was changed after the
            sidecar was written.
    """
    data = _read(path)
    sidecar = read_sidecar(path)
    if digest(data) != sidecar.sha256:
        raise _unusable(path, path, "is not the file that its sidecar describes")
    return Artifact(path, data, sidecar)


def trusted(path: Path) -> Artifact:
    """Read an artifact without a sidecar, which the user trusts: a plan is a program.

    Until it is loaded, only its bytes are known, and its contract is the default one.

    Raises:
        ArtifactError: it cannot be read.
    """
    data = _read(path)
    sidecar = Sidecar(kind_of(path), "unknown", digest(data), None, Contract())
    return Artifact(path, data, sidecar, has_sidecar=False)


def write_artifact(path: Path, data: bytes, sidecar: Sidecar) -> None:
    """Write an artifact and its sidecar, each completely or not at all, and durably.

    The sidecar goes first: if the process dies between the two, the file does not match and is
    refused, rather than used with a wrong description.
    """
    if digest(data) != sidecar.sha256:
        raise ValueError("the sidecar describes other bytes")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_sidecar(path, sidecar)
    write_atomic(path, data, durable=True)


def write_sidecar(path: Path, sidecar: Sidecar) -> None:
    """Replace the sidecar of the artifact ``path``; the artifact itself does not change."""
    write_atomic(sidecar_path(path), sidecar.as_json().encode(), durable=True)


def _read(path: Path) -> bytes:
    """Return the bytes of an artifact, a regular file of at most :data:`MAX_BYTES`."""
    kind_of(path)  # before anything is read of a file that is not ours
    try:
        return read_regular(path, limit=MAX_BYTES)
    except FileNotFoundError:
        if is_packaged_checkpoint(path):
            return _rebuilt(path)
        raise _unusable(path, path, "does not exist") from None
    except OSError as error:
        raise ArtifactError(path, f"cannot be read: {error.strerror}") from error


def _without_sidecar(path: Path, kind: Kind) -> ArtifactError:
    data = _read(path)
    match kind:
        case "onnx":
            return foreign_model(path, data)
        case "checkpoint":
            return foreign_checkpoint(path)
        case "plan":
            return foreign_plan(path)


def _rebuilt(path: Path) -> bytes:
    """Return a checkpoint that the wheel leaves out, before it is checked by its sidecar."""
    try:
        return rebuilt_checkpoint(path)
    except (OSError, ValueError) as error:
        onnx = path.with_suffix(".onnx")
        raise ArtifactError(path, f"cannot be made from {onnx.name}: {error}") from error


def _unusable(path: Path, where: Path, what: str) -> ArtifactError:
    """Return the error of the artifact ``path``, with the command that makes it again."""
    output = shlex.quote(str(path))
    commands: dict[Kind, str] = {
        "checkpoint": "train it again in a clone of the repository: "
        "python -m training --data DATA --output FOLDER",
        "onnx": "export it again in a clone of the repository: "
        f"python -m export CHECKPOINT --output {output}; "
        f"another network's: tinyunet adopt ORIGINAL.onnx --output {output}",
        "plan": f"build it again: tinyunet build MODEL.onnx --output {output}",
    }
    return ArtifactError(where, what, commands[kind_of(path)])
