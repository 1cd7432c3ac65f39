"""Read an artifact's lineage as evidence, before anything of it is run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from tinyunet_deploy.artifacts.foreign import is_foreign
from tinyunet_deploy.artifacts.lineage import lineage
from tinyunet_deploy.artifacts.sidecar import (
    MAX_BYTES,
    Sidecar,
    digest,
    kind_of,
    read_artifact,
    read_sidecar,
)
from tinyunet_deploy.contract import Contract
from tinyunet_deploy.errors import ArtifactError
from tinyunet_deploy.files import read_regular
from tinyunet_deploy.quality.acceptance.evidence import Ancestor, ModelFacts

__all__ = ["Origin", "read_origin"]


class Origin(NamedTuple):
    """Where an artifact comes from."""

    facts: ModelFacts
    """Facts by the sidecar; backend, device and versions are empty until the model is loaded."""
    links: tuple[Ancestor, ...]
    ancestors: tuple[Path, ...]
    """Paths of the ancestors that were found, without the artifact itself."""
    trained_on: frozenset[str]
    """Digests of the images that trained it, 16 hex digits each; empty if not recorded."""
    tuned_on: frozenset[str]
    blocked: str | None
    """Reason why the artifact must not be run; None if it may."""


def read_origin(model: Path, folders: Sequence[Path], *, trust_engine: bool = False) -> Origin:
    """Check the bytes of an artifact and of its ancestors.

    Args:
        folders: folders to search for ancestors, besides the artifact's own and the package's.
        trust_engine: also take a model without a sidecar, of which nothing can be checked.

    Raises:
        ArtifactError: the file is missing, or has no sidecar and is not trusted.
    """
    kind = kind_of(model)
    if is_foreign(model):
        if not trust_engine:
            read_artifact(model)  # raises what is missing, with the command that helps
        data = _bytes(model)
        link = Ancestor(model.name, digest(data), "unknown", "unchecked")
        facts = _facts(model, _unknown(model, link.sha256))
        return Origin(facts, (link,), (), frozenset(), frozenset(), None)
    actual = digest(_bytes(model))
    try:
        sidecar = read_artifact(model).sidecar
        links = lineage(model, folders)
    except ArtifactError as error:
        link = Ancestor(model.name, actual, kind, "changed", error.what)
        facts = _facts(model, _sidecar_or_unknown(model, actual))
        why = f"{Path(error.where).name} {error.what}"
        return Origin(facts, (link,), (), frozenset(), frozenset(), why)
    checked = tuple(_check(link.path, link.sha256) for link in links)
    return Origin(
        facts=_facts(model, sidecar),
        links=checked,
        ancestors=tuple(link.path for link in links[1:] if link.path is not None),
        trained_on=frozenset(sidecar.trained_on),
        tuned_on=frozenset(sidecar.tuned_on),
        blocked=None,
    )


def _check(path: Path | None, sha256: str) -> Ancestor:
    if path is None:
        return Ancestor(None, sha256, "unknown", "missing")
    try:
        sidecar = read_artifact(path).sidecar
    except ArtifactError as error:
        return Ancestor(path.name, sha256, "unknown", "changed", error.what)
    first = sidecar.adoption is not None and sidecar.parent is None
    return Ancestor(path.name, sha256, "adopted" if first else sidecar.kind, "ok")


def _facts(model: Path, sidecar: Sidecar) -> ModelFacts:
    return ModelFacts(
        name=model.name,
        sha256=sidecar.sha256,
        kind=sidecar.kind,
        precision=sidecar.precision,
        backend="",
        device="",
        threshold=sidecar.threshold,
        min_area_px=sidecar.min_area,
        versions={},
    )


def _sidecar_or_unknown(model: Path, sha256: str) -> Sidecar:
    """Return the sidecar with the sha256 that the file has; default values if it is damaged."""
    try:
        return replace(read_sidecar(model), sha256=sha256)
    except ArtifactError:
        return _unknown(model, sha256)


def _unknown(model: Path, sha256: str) -> Sidecar:
    return Sidecar(kind_of(model), "unknown", sha256, None, Contract())


def _bytes(model: Path) -> bytes:
    try:
        return read_regular(model, limit=MAX_BYTES)
    except FileNotFoundError:
        raise ArtifactError(model, "does not exist") from None
    except OSError as error:
        raise ArtifactError(model, f"cannot be read: {error.strerror}") from error
