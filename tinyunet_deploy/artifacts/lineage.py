"""Lineage: from which artifact another was made, back to the checkpoint."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tinyunet_deploy.artifacts.packaged import is_packaged_checkpoint
from tinyunet_deploy.artifacts.sidecar import KINDS, MODELS, Sidecar, read_sidecar
from tinyunet_deploy.errors import ArtifactError

__all__ = ["KnownArtifact", "Link", "lineage", "nearby_artifacts", "parent_place"]

_MOST_STEPS_UP = 2
"""Largest number of ``..`` in a recorded place: enough from ``engines/NAME/`` to ``runs/NAME/``."""


class Link(NamedTuple):
    """One artifact of a lineage."""

    sha256: str
    path: Path | None
    """Path of the artifact; None if it was not found."""


class KnownArtifact(NamedTuple):
    """An artifact that was found by its sidecar; its bytes were not read."""

    path: Path
    sidecar: Sidecar


def lineage(path: Path, folders: Sequence[Path] = ()) -> list[Link]:
    """Return the lineage of an artifact, itself first: plan, ONNX file, checkpoint.

    A sidecar identifies its parent by sha256. Parents are searched beside the artifact, in
    ``folders``, among the models of the package, and where the sidecar says that the parent lay
    when the artifact was made. A parent that is not found is the last link, with the path None.

    Raises:
        ArtifactError: the artifact's own sidecar is missing or damaged.
    """
    artifacts = nearby_artifacts(path, folders)
    links = []
    wanted: str | None = read_sidecar(path).sha256
    while wanted is not None:
        known = artifacts.pop(wanted, None)
        links.append(Link(wanted, known and known.path))
        wanted = known.sidecar.parent if known else None
        if known and wanted not in artifacts:
            for other in _at_recorded_place(known):
                artifacts.setdefault(other.sidecar.sha256, other)
    return links


def nearby_artifacts(path: Path, folders: Sequence[Path] = ()) -> dict[str, KnownArtifact]:
    """Return sha256 -> artifact: the one at ``path`` and those in its folder and the others.

    Args:
        folders: searched after the artifact's own folder and before the models of the package.

    Raises:
        ArtifactError: the artifact's own sidecar is missing or damaged.
    """
    sidecar = read_sidecar(path)
    artifacts = {sidecar.sha256: KnownArtifact(path, sidecar)}
    for folder in (path.parent, *folders, MODELS):
        for where in sorted(folder.glob("*.json")):
            for other in _read(where.with_suffix("")):
                artifacts.setdefault(other.sidecar.sha256, other)
    return artifacts


def parent_place(parent: Path, artifact: Path) -> str | None:
    """Return the place of a parent for ``Sidecar.parent_place``.

    Returns:
        The path from the artifact's folder, with forward slashes. None if the two have only the
        root of the file system in common or are far apart: such a path would tell a reader of the
        sidecar how the disk of another machine is laid out.
    """
    own, other = artifact.parent.resolve(), parent.resolve()
    try:
        common = Path(os.path.commonpath([own, other]))
        place = Path(os.path.relpath(other, own))
    except ValueError:  # two drives
        return None
    if common == Path(common.anchor) or place.parts.count("..") > _MOST_STEPS_UP:
        return None
    return place.as_posix()


def _at_recorded_place(artifact: KnownArtifact) -> list[KnownArtifact]:
    """Return the parent of an artifact if it lies where the sidecar says."""
    place = artifact.sidecar.parent_place
    return _read(artifact.path.parent.resolve() / place) if place is not None else []


def _read(path: Path) -> list[KnownArtifact]:
    """Return the artifact at a path; nothing if there is none with a readable sidecar."""
    with contextlib.suppress(ArtifactError, OSError, ValueError):
        if path.suffix in KINDS and (path.is_file() or is_packaged_checkpoint(path)):
            return [KnownArtifact(path, read_sidecar(path))]
    return []
