"""Artifacts and their sidecars: which file this is, where it comes from, how it is to be used.

Every artifact ``NAME`` has a sidecar ``NAME.json`` beside it, such as ``tinyunet.onnx.json``.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple, get_args

from tinyunet_deploy.artifacts.precision import PRECISIONS, AnyPrecision
from tinyunet_deploy.contract import Contract
from tinyunet_deploy.errors import ArtifactError
from tinyunet_deploy.files import read_regular, write_atomic

SCHEMA_VERSION: Final = 1

Kind = Literal["checkpoint", "onnx", "plan"]

KINDS: Final[dict[str, Kind]] = {".safetensors": "checkpoint", ".onnx": "onnx", ".plan": "plan"}
"""File suffix -> kind of artifact."""

MODELS: Final = Path(__file__).parent.parent / "models"
DEFAULT_CHECKPOINT: Final = MODELS / "tinyunet.safetensors"
DEFAULT_ONNX: Final = MODELS / "tinyunet.onnx"


class Decision(NamedTuple):
    """The rule that makes masks and verdicts of scores."""

    threshold: float
    """Probability over which a pixel is a defect, 0..1."""
    min_area: int
    """Pixels that a defect must have to make a part NG."""


@dataclass(frozen=True)
class Sidecar:
    """What is known of one artifact. Stored as ``NAME.json``."""

    kind: Kind
    precision: AnyPrecision
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
    golden: str | None = None
    """sha256 of ``NAME.golden.png``, which the self-test uses; None where there is none."""
    verified_batch: int | None = None
    """Largest batch that was seen to score its images as one by one; a larger one is refused.
    None: not tried, not limited."""

    @property
    def max_batch(self) -> int | None:
        """Images of the largest batch: what the file takes and what was verified, whichever is
        smaller; None where only memory limits it."""
        limits = (self.contract.max_batch, self.verified_batch)
        return min((limit for limit in limits if limit is not None), default=None)

    def decision(self, threshold: float | None = None, min_area: int | None = None) -> Decision:
        """Return the rule that decides on defects: the user's values, else the artifact's own."""
        return Decision(
            self.threshold if threshold is None else threshold,
            self.min_area if min_area is None else min_area,
        )

    @property
    def inherited(self) -> dict[str, Any]:
        """What of ``origin`` holds for all that is made from this artifact, too: the images that
        chose its threshold and min_area (``tinyunet tune``)."""
        return {"tuned": self.origin["tuned"]} if "tuned" in self.origin else {}

    def as_json(self) -> str:
        """The text of the sidecar file; its last field is the digest of all others."""
        fields = {"schema_version": SCHEMA_VERSION, **dataclasses.asdict(self)}
        fields["sidecar_sha256"] = _digest_of_fields(fields)
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
        sidecar = parse_sidecar(read_regular(where, limit=16 * 1024 * 1024), where)
    except FileNotFoundError:
        raise _unusable(path, path, "has no sidecar, so nothing is known of it") from None
    except OSError as error:
        raise _unusable(path, where, f"is not a readable sidecar: {error}") from error
    except ArtifactError as error:
        raise _unusable(path, where, error.what) from error
    if sidecar.kind != kind:
        raise _unusable(path, where, f"is of the kind {sidecar.kind}, not {kind}")
    return sidecar


def parse_sidecar(text: str | bytes, where: str | os.PathLike[str]) -> Sidecar:
    """A sidecar from its text; ``where`` names it in errors.

    Raises:
        ArtifactError: it is damaged or of another schema version.
    """
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ArtifactError(where, f"is not a readable sidecar: {error}") from error
    try:
        if fields["schema_version"] != SCHEMA_VERSION:
            raise ArtifactError(where, "is of another schema version")
        if fields.pop("sidecar_sha256") != _digest_of_fields(fields):
            raise ArtifactError(where, "was edited after it was written")
        del fields["schema_version"]
        contract = Contract(**fields.pop("contract"))
        sidecar = Sidecar(contract=contract, **fields)
        _check_values(sidecar)
        sidecar.as_json().encode()  # half a surrogate pair could be read but never written again
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ArtifactError(where, f"is not a valid sidecar: {error}") from error
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


def trusted(path: Path) -> Artifact:
    """An artifact without a sidecar, which the user trusts: a plan is a program.

    Nothing is known of it but its bytes; its contract is the default one until it is loaded.

    Raises:
        ArtifactError: it cannot be read.
    """
    kind = kind_of(path)
    try:
        data = read_regular(path)
    except OSError as error:
        raise ArtifactError(path, f"cannot be read: {error.strerror}") from error
    return Artifact(path, data, Sidecar(kind, "unknown", digest(data), None, Contract()))


def write_artifact(path: Path, data: bytes, sidecar: Sidecar) -> None:
    """Write an artifact and its sidecar, each whole or not at all, and past a power cut.

    The sidecar goes first: should the run die between the two, the file does not match and is
    refused rather than used with the wrong description.
    """
    if digest(data) != sidecar.sha256:
        raise ValueError("the sidecar describes other bytes")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_sidecar(path, sidecar)
    write_atomic(path, data, durable=True)


def write_sidecar(path: Path, sidecar: Sidecar) -> None:
    """Say something new of the artifact ``path``, whose bytes stay."""
    write_atomic(sidecar_path(path), sidecar.as_json().encode(), durable=True)


class Link(NamedTuple):
    """One artifact of a lineage."""

    sha256: str
    path: Path | None
    """None where no folder that was searched has it."""


def lineage(path: Path, folders: Sequence[Path] = ()) -> list[Link]:
    """An artifact and what it was made from: plan, ONNX file, checkpoint, as far as they are here.

    Parents are known by their sha256 alone, and looked for beside the artifact, in ``folders`` and
    among the models of the package. Nothing but sidecars is read. A parent that is not found is
    the last link.

    Raises:
        ArtifactError: the artifact's own sidecar is missing or damaged.
    """
    sidecar = read_sidecar(path)
    found = {sidecar.sha256: (path, sidecar)}
    for folder in (path.parent, *folders, MODELS):
        for where in sorted(folder.glob("*.json")):
            candidate = where.with_suffix("")
            if candidate.suffix in KINDS and candidate.is_file():
                with contextlib.suppress(ArtifactError):
                    other = read_sidecar(candidate)
                    found.setdefault(other.sha256, (candidate, other))
    links = []
    wanted: str | None = sidecar.sha256
    while wanted is not None:
        parent, known = found.pop(wanted, (None, None))
        links.append(Link(wanted, parent))
        wanted = known.parent if known else None
    return links


def _digest_of_fields(fields: dict[str, Any]) -> str:
    """sha256 of values as they are after a way through JSON, in the order of their names."""
    plain = json.loads(json.dumps(fields, allow_nan=False))
    return digest(json.dumps(plain, sort_keys=True).encode())


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
    if sidecar.kind not in get_args(Kind) or sidecar.precision not in (*PRECISIONS, "unknown"):
        raise ValueError(f"unknown kind or precision {sidecar.kind!r} {sidecar.precision!r}")
    for name, value in (("parent", sidecar.parent), ("golden", sidecar.golden)):
        if value is not None and not re.fullmatch("[0-9a-f]{64}", value):
            raise ValueError(f"{name} is no sha256")
    if not re.fullmatch("[0-9a-f]{64}", sidecar.sha256):
        raise ValueError("sha256 is no sha256")
    if not 0.0 <= sidecar.threshold <= 1.0:
        raise ValueError(f"threshold {sidecar.threshold} is outside 0..1")
    if type(sidecar.min_area) is not int or sidecar.min_area < 1:
        raise ValueError(f"min_area {sidecar.min_area!r} is not a positive number")
    most = sidecar.verified_batch
    if most is not None and (type(most) is not int or most < 1):
        raise ValueError(f"verified_batch {most!r} is not a positive number")
    _check_origin(sidecar.origin)


def _check_origin(origin: Any) -> None:
    """Check what is read again of how an artifact was made; the rest is for people."""
    if not isinstance(origin, dict):
        raise ValueError("origin is no table")
    for key, parts in _READ_AGAIN.items():
        table = origin.get(key, parts)
        if not isinstance(table, dict) or not parts.keys() <= table.keys():
            raise ValueError(f"origin.{key} is no table of {', '.join(parts)}")
        for part, example in parts.items():
            if type(table[part]) is not type(example) and (example or table[part] is not None):
                raise ValueError(f"origin.{key}.{part} is {table[part]!r}")
    quantization = origin.get("quantization", {})
    kept = quantization.get("kept_in_float32", []) if isinstance(quantization, dict) else None
    if not isinstance(kept, list) or not all(isinstance(name, str) for name in kept):
        raise ValueError("origin.quantization does not name what is kept_in_float32")


_READ_AGAIN: Final[dict[str, dict[str, str | int]]] = {
    "tensorrt": {"flavour": "tensorrt", "version": "10.0"},
    "gpu": {"name": "", "compute_capability": ""},
    "profile": {"min": 1, "opt": 1, "max": 1},
}
"""Part of an origin -> its values' types, by example; an empty text may be null."""
