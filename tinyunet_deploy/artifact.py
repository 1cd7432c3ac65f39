"""Artifacts and their sidecars: which file this is, where it comes from, how it is to be used.

Every artifact ``NAME`` has a sidecar ``NAME.json`` beside it, such as ``tinyunet.onnx.json``.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, get_args

from tinyunet_deploy.contract import Contract
from tinyunet_deploy.errors import ArtifactError
from tinyunet_deploy.files import read_regular, write_atomic

SCHEMA_VERSION: Final = 1

Kind = Literal["checkpoint", "onnx", "plan"]
Precision = Literal["fp32", "fp16", "int8", "unknown"]
"""``unknown`` is a plan that was not built here and that the user trusts."""

KINDS: Final[dict[str, Kind]] = {".safetensors": "checkpoint", ".onnx": "onnx", ".plan": "plan"}
"""File suffix -> kind of artifact."""

MODELS: Final = Path(__file__).parent / "models"
DEFAULT_CHECKPOINT: Final = MODELS / "tinyunet.safetensors"
DEFAULT_ONNX: Final = MODELS / "tinyunet.onnx"


@dataclass(frozen=True)
class Sidecar:
    """What is known of one artifact. Stored as ``NAME.json``."""

    kind: Kind
    precision: Precision
    sha256: str
    """Of the artifact's bytes, 64 hex digits."""
    parent: str | None
    """sha256 of the artifact that this one was made from; None for a checkpoint."""
    contract: Contract
    threshold: float = 0.5
    """Probability over which a pixel is a defect, unless the user says otherwise."""
    min_area: int = 1
    """Pixels that a defect must have to make a part NG, unless the user says otherwise."""
    origin: dict[str, Any] = field(default_factory=dict)
    """How it was made: command, recipe, data digest, versions, figures."""

    def as_json(self) -> str:
        """The text of the sidecar file."""
        fields = {"schema_version": SCHEMA_VERSION, **dataclasses.asdict(self)}
        return json.dumps(fields, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


@dataclass(frozen=True)
class Artifact:
    """One artifact whose bytes are those that its sidecar describes."""

    path: Path
    data: bytes
    sidecar: Sidecar


def sidecar_path(path: Path) -> Path:
    """Where the sidecar of the artifact ``path`` is."""
    return path.with_name(path.name + ".json")


def digest(data: bytes) -> str:
    """sha256 in hex."""
    return hashlib.sha256(data).hexdigest()


def kind_of(path: Path) -> Kind:
    """The kind of artifact that a file name says.

    Raises:
        ArtifactError: the suffix is none of ours.
    """
    try:
        return KINDS[path.suffix]
    except KeyError:
        raise ArtifactError(
            path, "is no model by its suffix", f"known are {' '.join(KINDS)}"
        ) from None


def read_sidecar(path: Path) -> Sidecar:
    """The sidecar of the artifact ``path``.

    Raises:
        ArtifactError: it is missing, damaged or of another schema version.
    """
    kind = kind_of(path)
    where = sidecar_path(path)
    try:
        fields = json.loads(read_regular(where, limit=16 * 1024 * 1024))
    except FileNotFoundError:
        raise _unusable(path, path, "has no sidecar, so nothing is known of it") from None
    except (OSError, ValueError, RecursionError) as error:
        raise _unusable(path, where, f"is not a readable sidecar: {error}") from error
    try:
        if fields.pop("schema_version") != SCHEMA_VERSION:
            raise _unusable(path, where, "is of another schema version")
        contract = Contract(**fields.pop("contract"))
        sidecar = Sidecar(contract=contract, **fields)
        _check_values(sidecar)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise _unusable(path, where, f"is not a valid sidecar: {error}") from error
    if sidecar.kind != kind:
        raise _unusable(path, where, f"is of the kind {sidecar.kind}, not {kind}")
    return sidecar


def read_artifact(path: Path) -> Artifact:
    """Read an artifact and check its very bytes against the sidecar.

    Raises:
        ArtifactError: the file or its sidecar is missing, or the file was changed after the
            sidecar was written.
    """
    kind_of(path)  # a foreign file may be too large to read
    try:
        data = read_regular(path)
    except FileNotFoundError:
        raise _unusable(path, path, "is not there") from None
    except OSError as error:
        raise ArtifactError(path, f"cannot be read: {error.strerror}") from error
    sidecar = read_sidecar(path)
    if digest(data) != sidecar.sha256:
        raise _unusable(path, path, "is not the file that its sidecar describes")
    return Artifact(path, data, sidecar)


def trusted_plan(path: Path) -> Artifact:
    """A plan without a sidecar, which the user trusts: a plan is a program.

    Nothing is known of it but its bytes; its contract is the default one until it is loaded.

    Raises:
        ArtifactError: not a plan, or it cannot be read.
    """
    if kind_of(path) != "plan":
        raise ArtifactError(path, "is no TensorRT plan")
    try:
        data = read_regular(path)
    except OSError as error:
        raise ArtifactError(path, f"cannot be read: {error.strerror}") from error
    return Artifact(path, data, Sidecar("plan", "unknown", digest(data), None, Contract()))


def write_artifact(path: Path, data: bytes, sidecar: Sidecar) -> None:
    """Write an artifact and its sidecar, each whole or not at all, and past a power cut.

    The sidecar goes first: should the run die between the two, the file does not match and is
    refused rather than used with the wrong description.
    """
    if digest(data) != sidecar.sha256:
        raise ValueError("the sidecar describes other bytes")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(sidecar_path(path), sidecar.as_json().encode(), durable=True)
    write_atomic(path, data, durable=True)


def _unusable(path: Path, where: Path, what: str) -> ArtifactError:
    """The error of the artifact ``path``, with the command that makes it again."""
    output = shlex.quote(str(path))
    commands: dict[Kind, str] = {
        "checkpoint": "train it again: python -m training --data DATA --output FOLDER",
        "onnx": f"export it again: python -m export CHECKPOINT --output {output}",
        "plan": f"build it again: tinyunet build MODEL.onnx --output {output}",
    }
    return ArtifactError(where, what, commands[kind_of(path)])


def _check_values(sidecar: Sidecar) -> None:
    if sidecar.kind not in get_args(Kind) or sidecar.precision not in get_args(Precision):
        raise ValueError(f"unknown kind or precision {sidecar.kind!r} {sidecar.precision!r}")
    for name, value in (("sha256", sidecar.sha256), ("parent", sidecar.parent or "0" * 64)):
        if not re.fullmatch("[0-9a-f]{64}", value):
            raise ValueError(f"{name} is no sha256")
    if not 0.0 <= sidecar.threshold <= 1.0:
        raise ValueError(f"threshold {sidecar.threshold} is outside 0..1")
    if type(sidecar.min_area) is not int or sidecar.min_area < 1:
        raise ValueError(f"min_area {sidecar.min_area!r} is not a positive number")
    if not isinstance(sidecar.origin, dict):
        raise ValueError("origin is no table")
