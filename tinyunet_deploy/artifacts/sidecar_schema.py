"""The sidecar: its typed fields, and their text as JSON of schema 2.

Files of schema 1, which had the facts that code reads in ``origin``, are upgraded when they are
read.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import inspect
import json
import logging
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, Literal, NamedTuple, TypeAlias, TypeVar, get_args

from tinyunet_deploy.artifacts.architectures import Architecture
from tinyunet_deploy.artifacts.facts import (
    AdoptionFacts,
    NetworkFacts,
    PlanFacts,
    PrecisionAudit,
    Profile,
)
from tinyunet_deploy.artifacts.precision import PRECISIONS, AnyPrecision
from tinyunet_deploy.artifacts.speed_facts import SpeedFacts, read_speed
from tinyunet_deploy.artifacts.strict_json import read_json
from tinyunet_deploy.contract import HIGHEST_SCORE, Contract, score_threshold
from tinyunet_deploy.data.bit_depth import DEPTHS
from tinyunet_deploy.data.decoding import MAX_PIXELS
from tinyunet_deploy.data.tiles import Tiling
from tinyunet_deploy.errors import ArtifactError

__all__ = ["SCHEMA_VERSION", "Decision", "Kind", "Sidecar", "digest", "parse_sidecar"]

log = logging.getLogger(__name__)

SCHEMA_VERSION: Final = 2
"""Version that is written; version 1 is read as well."""

_MAX_MESSAGE: Final = 200
"""Longest reason in an error, characters."""

T = TypeVar("T")

Kind: TypeAlias = Literal["checkpoint", "onnx", "plan"]


class Decision(NamedTuple):
    """The rule that turns scores into masks and verdicts."""

    threshold: float
    """Probability over which a pixel is a defect, 0..1."""
    min_area: int
    """Smallest defect that makes a part NG, pixels."""


@dataclass(frozen=True)
class Sidecar:
    """Description of one artifact, stored as ``NAME.json``."""

    kind: Kind
    precision: AnyPrecision
    sha256: str
    """sha256 of the artifact's bytes, 64 hex digits."""
    parent: str | None
    """sha256 of the artifact that this one was made from; None for a checkpoint and for an adopted
    file, whose original has no sidecar."""
    contract: Contract
    threshold: float = 0.5
    """Default probability above which a pixel is a defect."""
    min_area: int = 1
    """Default size of the smallest defect that makes a part NG, pixels."""
    origin: dict[str, Any] = field(default_factory=dict)
    """Command, recipe, data digest, versions and figures that made the artifact; for people only,
    code does not read it."""
    golden: str | None = None
    """sha256 of ``NAME.golden.png``, which the self-test uses; None if there is none."""
    verified_batch: int | None = None
    """Largest batch that was verified to give the scores of single images; larger ones are refused.
    None if no batch was verified; then none is refused."""
    network: NetworkFacts | None = None
    """Facts about the network; None if unknown."""
    tuned_on: tuple[str, ...] = ()
    """Digests of the images on which its own or its parents' threshold and min_area were chosen."""
    trained_on: tuple[str, ...] = ()
    """Digests of the images on which its own or its parents' weights were trained; empty if not
    recorded."""
    kept_in_float32: tuple[str, ...] = ()
    """Convolutions that a quantised file computes in float32, as the network names them."""
    plan: PlanFacts | None = None
    """Facts about a plan's build; None for every other kind."""
    bits: int | None = None
    """Default bits per pixel, 8..16, of the camera that took 16-bit images; None takes the depth
    that a file states."""
    step: int | None = None
    """Optimizer steps of the training of a checkpoint; None if not recorded."""
    teacher: str | None = None
    """sha256 of the checkpoint whose scores a distilled checkpoint was trained on, also for files
    that were made from it; None without a teacher."""
    parent_place: str | None = None
    """Path of the parent from this artifact's folder when it was made, with forward slashes, such
    as ``../runs/mine/checkpoint.safetensors``; None if not recorded. Only a place to look: what
    lies there is the parent if its sha256 is."""
    adoption: AdoptionFacts | None = None
    """How a network of another origin was wrapped by ``tinyunet adopt``; None for our own."""
    speed: SpeedFacts | None = None
    """Speed against the next wider precision, measured by the exporter; None if it was not timed.
    It is a measurement, so two exports of one checkpoint may differ in it, never in ``sha256``."""
    unsigned_activations: bool = False
    """True for an int8 file for CPUs, whose activations are uint8; TensorRT refuses it."""

    @property
    def max_batch(self) -> int | None:
        """Largest batch, images: the file's limit or the verified batch, whichever is smaller; None
        if only memory limits it."""
        limits = (self.contract.max_batch, self.verified_batch)
        return min((limit for limit in limits if limit is not None), default=None)

    @property
    def tiling(self) -> Tiling:
        """How images of any size are given to the network."""
        facts = self.network or NetworkFacts(None)
        return Tiling(self.contract, facts.size_multiple, facts.reach)

    @property
    def is_batch_fixed(self) -> bool:
        """True for an ONNX file whose shapes say one image, as of some adopted networks."""
        return self.kind == "onnx" and self.contract.max_batch == 1

    def decision(self, threshold: float | None = None, min_area: int | None = None) -> Decision:
        """Return the rule that decides on defects: the user's values, else the artifact's own.

        Warns once of a rule with which every part passes.
        """
        decision = Decision(
            self.threshold if threshold is None else threshold,
            self.min_area if min_area is None else min_area,
        )
        _warn_if_all_pass(decision, self.contract)
        return decision

    def bit_depth(self, bits: int | None = None) -> int | None:
        """Return the depth of 16-bit image files: the user's value, else the artifact's own."""
        return self.bits if bits is None else bits

    def as_json(self) -> str:
        """Return the text of the sidecar file; its last field is the digest of all others."""
        fields = {"schema_version": SCHEMA_VERSION, **dataclasses.asdict(self)}
        fields["sidecar_sha256"] = _digest_of_fields(fields)
        return json.dumps(fields, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


@functools.cache
def _warn_if_all_pass(decision: Decision, contract: Contract) -> None:
    """Warn once of a threshold that no score exceeds, or a min_area that no whole image has."""
    threshold, min_area = decision
    if 0.0 <= threshold <= 1.0 and score_threshold(threshold) >= HIGHEST_SCORE:
        log.warning("threshold %g lets every part pass: no score is above it", threshold)
    if min_area > contract.height * contract.width:
        log.warning(
            "min_area %d px lets every part pass whose image is not larger than the model's, "
            "%dx%d pixels",
            min_area,
            contract.height,
            contract.width,
        )


def digest(data: bytes) -> str:
    """Return the sha256 of bytes, in hex."""
    return hashlib.sha256(data).hexdigest()


def parse_sidecar(text: str | bytes, where: str | os.PathLike[str]) -> Sidecar:
    """Read a sidecar from its text.

    Args:
        where: name of the sidecar in errors.

    Raises:
        ArtifactError: it is damaged or of another schema version.
    """
    try:
        fields = read_json(text)
    except ValueError as error:
        raise ArtifactError(where, f"is not a readable sidecar: {_short(error)}") from error
    if not isinstance(fields, dict):
        raise ArtifactError(where, "is not a valid sidecar: it is not a table")
    try:
        version = fields["schema_version"]
        if type(version) is not int or not 1 <= version <= SCHEMA_VERSION:
            raise ArtifactError(where, "is of another schema version")
        if fields.pop("sidecar_sha256") != _digest_of_fields(fields):
            raise ArtifactError(where, "was edited after it was written")
        del fields["schema_version"]
        sidecar = _sidecar(_upgraded(fields) if version == 1 else fields)
        sidecar.as_json().encode()  # half a surrogate pair could be read but never written again
    except KeyError as error:
        what = f"is not a valid sidecar: it has no field {_short(error)}"
        raise ArtifactError(where, what) from error
    except (AttributeError, TypeError, ValueError) as error:
        raise ArtifactError(where, f"is not a valid sidecar: {_short(error)}") from error
    return sidecar


def _short(error: Exception) -> str:
    """Return the beginning of an error's text, which may quote all of a hostile file."""
    text = str(error)
    return text if len(text) <= _MAX_MESSAGE else text[:_MAX_MESSAGE] + "..."


def _digest_of_fields(fields: dict[str, Any]) -> str:
    """Return the sha256 of values as JSON keeps them, in the order of their names."""
    plain = json.loads(json.dumps(fields, allow_nan=False))
    return digest(json.dumps(plain, sort_keys=True).encode())


def _sidecar(fields: dict[str, Any]) -> Sidecar:
    """Build a sidecar from the fields of schema 2.

    Raises:
        AttributeError, KeyError, TypeError, ValueError: a field is missing, unknown or impossible.
    """
    plan = fields.pop("plan", None)
    network = fields.pop("network", None)
    adoption = fields.pop("adoption", None)
    speed = fields.pop("speed", None)
    values = {
        **fields,
        "contract": _made(Contract, "contract", fields["contract"]),
        "network": None if network is None else _network(network),
        "plan": None if plan is None else _plan(plan),
        "adoption": None if adoption is None else _adoption(adoption),
        "speed": None if speed is None else _speed(speed),
        "tuned_on": _texts("tuned_on", fields.get("tuned_on", [])),
        "trained_on": _texts("trained_on", fields.get("trained_on", [])),
        "kept_in_float32": _texts("kept_in_float32", fields.get("kept_in_float32", [])),
    }
    sidecar = _made(Sidecar, "it", values)
    _check_values(sidecar)
    return sidecar


def _network(fields: dict[str, Any]) -> NetworkFacts:
    widths = fields.get("architecture")
    if widths is not None:
        encoder = widths.get("encoder")
        if not isinstance(encoder, list):
            raise ValueError("network.architecture.encoder is not a list")
        values = {**widths, "encoder": tuple(encoder)}
        widths = _made(Architecture, "network.architecture", values)
    facts = _made(NetworkFacts, "network", {**fields, "architecture": widths})
    if widths is not None and facts != NetworkFacts.of(str(facts.name), widths):
        raise ValueError("the facts of the network are not those of its architecture")
    return facts


def _plan(fields: dict[str, Any]) -> PlanFacts:
    audit = fields.get("audit")
    values = {
        **fields,
        "profile": _made(Profile, "plan.profile", fields["profile"]),
        "audit": None if audit is None else _made(PrecisionAudit, "plan.audit", audit),
        "flags": _texts("plan.flags", fields.get("flags", [])),
        "more_profiles": _profiles(fields.get("more_profiles", [])),
    }
    return _made(PlanFacts, "plan", values)


def _profiles(values: Any) -> tuple[Profile, ...]:
    if not isinstance(values, list):
        raise ValueError("plan.more_profiles is not a list")
    return tuple(_made(Profile, "plan.more_profiles", value) for value in values)


def _adoption(fields: dict[str, Any]) -> AdoptionFacts:
    lists = {name: fields.get(name) for name in ("mean", "std", "defect_channels")}
    if not all(isinstance(values, list | None) for values in lists.values()):
        raise ValueError("adoption has a field that is not a list")
    values = {name: None if value is None else tuple(value) for name, value in lists.items()}
    return _made(AdoptionFacts, "adoption", {**fields, **values})


def _speed(fields: Any) -> SpeedFacts:
    return _made(SpeedFacts, "speed", read_speed(fields) if isinstance(fields, dict) else fields)


def _made(kind: Callable[..., T], name: str, values: Any) -> T:
    """Build a dataclass from a table that must have its fields and no others."""
    if not isinstance(values, dict):
        raise ValueError(f"{name} is not a table")
    known = inspect.signature(kind).parameters
    for key in sorted(values.keys() - known.keys()):
        raise ValueError(f"{name} has an unknown field {key!r}")
    for key, parameter in known.items():
        if parameter.default is parameter.empty and key not in values:
            raise ValueError(f"{name} has no field {key!r}")
    return kind(**values)


def _texts(name: str, values: Any) -> tuple[str, ...]:
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise ValueError(f"{name} is not a list of strings")
    return tuple(values)


def _check_values(sidecar: Sidecar) -> None:
    if sidecar.kind not in get_args(Kind) or sidecar.precision not in (*PRECISIONS, "unknown"):
        raise ValueError(f"unknown kind or precision {sidecar.kind!r} {sidecar.precision!r}")
    for name in ("parent", "golden", "teacher"):
        value = getattr(sidecar, name)
        if value is not None and not re.fullmatch("[0-9a-f]{64}", value):
            raise ValueError(f"{name} is not a SHA-256 in hex")
    if not re.fullmatch("[0-9a-f]{64}", sidecar.sha256):
        raise ValueError("sha256 is not a SHA-256 in hex")
    if not 0.0 <= sidecar.threshold <= 1.0:
        raise ValueError(f"threshold {sidecar.threshold} is outside 0..1")
    if type(sidecar.min_area) is not int or sidecar.min_area < 1:
        raise ValueError(f"min_area {sidecar.min_area!r} is not a positive number")
    if sidecar.bits is not None and (type(sidecar.bits) is not int or sidecar.bits not in DEPTHS):
        raise ValueError(f"bits {sidecar.bits!r} is not a depth of 8 to 16 bits")
    for name in ("verified_batch", "step"):
        number = getattr(sidecar, name)
        if number is not None and (type(number) is not int or number < (name != "step")):
            raise ValueError(f"{name} {number!r} is not a positive number")
    place = sidecar.parent_place
    if place is not None and (not isinstance(place, str) or place.startswith("/") or "\0" in place):
        raise ValueError(f"parent_place {place!r} is not a relative path")
    if not isinstance(sidecar.origin, dict):
        raise ValueError("origin is not a table")
    height, width = sidecar.contract.height, sidecar.contract.width
    if height * width > MAX_PIXELS:
        raise ValueError(f"images of {width}x{height} pixels are more than {MAX_PIXELS}")
    if sidecar.network is not None:
        sidecar.network.check_size(sidecar.contract.height, sidecar.contract.width)
    if type(sidecar.unsigned_activations) is not bool:
        raise ValueError(f"unsigned_activations {sidecar.unsigned_activations!r} is not a bool")
    if sidecar.plan is not None and sidecar.kind != "plan":
        raise ValueError(f"a {sidecar.kind} file has facts of a plan")


# --- schema 1 -------------------------------------------------------------------------------------


def _upgraded(fields: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of schema 2 from those of schema 1: facts move out of ``origin``."""
    later = {
        *(
            "network",
            "tuned_on",
            "trained_on",
            "kept_in_float32",
            "plan",
            "bits",
            "step",
            "parent_place",
        ),
        "adoption",
        "speed",
        "teacher",
        "unsigned_activations",
    }
    new = sorted(later.intersection(fields))
    if new:
        raise ValueError(f"schema 1 has no field {new[0]}")
    origin = fields.get("origin", {})
    if not isinstance(origin, dict):
        raise ValueError("origin is not a table")
    origin = dict(origin)
    checkpoint = fields["kind"] == "checkpoint"
    upgraded: dict[str, Any] = {
        **fields,
        "network": _network_1(origin.pop("variant", None) if checkpoint else None),
        "step": origin.pop("step", None) if checkpoint else None,
    }
    if "tuned" in origin:
        if not isinstance(origin["tuned"], dict):
            raise ValueError("origin.tuned is not a table")
        origin["tuned"] = dict(origin["tuned"])
        upgraded["tuned_on"] = origin["tuned"].pop("images", [])
    if "quantization" in origin:
        upgraded["kept_in_float32"] = origin["quantization"].get("kept_in_float32", [])
    if fields["kind"] == "plan" and {"tensorrt", "gpu"} <= origin.keys():
        upgraded["plan"] = _plan_1(origin, fields["contract"])
    upgraded["origin"] = origin
    return upgraded


def _network_1(name: Any) -> dict[str, Any]:
    """Return the facts of a schema-1 network; all had the four pools of ``tiny``."""
    return dataclasses.asdict(dataclasses.replace(NetworkFacts.of("tiny"), name=name))


def _plan_1(origin: dict[str, Any], contract: dict[str, Any]) -> dict[str, Any]:
    """Take the facts of a plan out of an origin of schema 1."""
    tensorrt, gpu = origin.pop("tensorrt"), origin.pop("gpu")
    most = contract.get("max_batch") or 1
    plan = {
        "flavour": tensorrt["flavour"],
        "version": tensorrt["version"],
        "gpu_name": gpu["name"],
        "compute_capability": gpu["compute_capability"],
        "profile": origin.pop("profile", {"min": 1, "opt": most, "max": most}),
    }
    audit = origin.pop("precision_audit", None)
    if audit is not None:
        plan["audit"] = {
            "parsed_network": audit["parsed_network"],
            "engine": audit["engine"],
            "not_inspected": audit.get("engine_not_inspected"),
        }
    for old, name in (("rebuild", "rebuild"), ("plan_bytes", "size_bytes"), ("build_s", "build_s")):
        if old in origin:
            plan[name] = origin.pop(old)
    return plan
